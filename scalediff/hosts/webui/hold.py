"""Hold the subject on one pass of a WebUI: where the prompt acts on the base picture, then in every stage."""

import logging
from dataclasses import replace

import torch
from torch import Tensor

from scalediff.hosts.webui.conditioning import conditioning_of, texts_of
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.look import look_at_base
from scalediff.hosts.webui.notes import tell
from scalediff.method.cascade import Stage
from scalediff.method.guidance import Guidance
from scalediff.method.hold import HeldGuidance, held_until, subject_mask
from scalediff.settings.table import GROUND, NOTHING

log = logging.getLogger("scalediff")

# The prompt is asked for at a few levels between these two: above, it has no place yet, below, nothing to say.
LOOK_TAU, LOOK_LAST, LOOK_STEPS = 700, 350, 4


def hold_still(host: WebUIHost, record: JobRecord, latent: Tensor) -> None:
    """Find the subject in the base picture, `latent` [B, C, h, w], and hold it, or its ground, in the stages.

    Where the prompt changes nothing the user is told, and the setting is taken out of the infotext; as it is where the
    user stopped the job meanwhile.
    """
    record.held = None  # of an earlier batch
    if record.config.hold == NOTHING:
        return
    mask = _mask(host, latent)
    if mask is None:
        if not host.stopped():
            tell(host.p, "ScaleDiff held nothing: no place was found where the prompt acts.")
        record.mark_unused("hold")
        return
    log.info("the subject covers %.0f %% of the picture", 100 * float(mask.mean()))
    held = 1 - mask if record.config.hold == GROUND else mask
    record.held = held

    def holding(stage: Stage, reference: Tensor, guidance: Guidance) -> Guidance:
        return HeldGuidance(guidance, held, reference, until=host.sigma(held_until(stage.tau)))

    host.held = holding


def _mask(host: WebUIHost, latent: Tensor) -> Tensor | None:
    """[B, 1, h, w]: from the x0 of the base picture with its prompts, and with empty ones, at the same noise.

    None where the prompt changes nothing, the user stopped the job in one of the two, or the host took our callbacks
    away meanwhile (Reload UI).
    """
    with_prompt = _predictions(host, latent)
    own = host.conditionings
    texts = texts_of(host.p, host.sampler_name)
    empty, _ = conditioning_of(host.p, replace(texts, prompts=[""] * len(texts.prompts)), negative=False)
    host.conditionings = [(empty, own[0][1])]
    try:
        without = _predictions(host, latent)
    finally:
        host.conditionings = own
    if host.stopped() or len(with_prompt) != len(without):
        return None
    lowest = 0.999 * host.sigma(LOOK_LAST)
    looks = [
        (a - b, sigma)
        for (a, sigma), (b, _) in zip(with_prompt, without, strict=True)
        if float(sigma.max()) >= lowest
    ]
    return subject_mask(looks)


def _predictions(host: WebUIHost, latent: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(x0, sigma) of each call of the model on the noised base picture.

    The sampler is told that x0 is the base picture itself: so it stays on the line between that and its noise, and
    another prompt is asked for the very same input.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def note(x0: Tensor, sigma: Tensor) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=torch.float32, device=x0.device).reshape(-1).expand(len(x0))
        seen.append((x0.float(), levels))
        return latent.to(x0)

    look_at_base(host, latent, tau=LOOK_TAU, steps=LOOK_STEPS, guidance=note)
    return seen
