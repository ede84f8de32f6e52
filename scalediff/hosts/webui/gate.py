"""The text gate on one pass of a WebUI: the prompt without its subject, a look at the base picture, the stages."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scalediff.hosts.webui.conditioning import conditioning_of, texts_of
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.look import look_at_base
from scalediff.hosts.webui.notes import tell
from scalediff.method.guidance import StructureGuidance
from scalediff.models.gate import TextGate, cross_layers, without_subject

log = logging.getLogger("scalediff")

# The base picture is noised a little and denoised once more. At this level its subject has its place and the model
# still listens to the prompt; no sampler needs more steps.
LOOK_TAU, LOOK_STEPS = 300, 3
SETTINGS = ("subject_gate", "gate_subject")


def open_gate(host: WebUIHost, record: JobRecord, latent: Tensor) -> None:
    """Find the subject in the base picture, `latent` [B, C, h, w], and gate the stages of `host`.

    Without a subject, in the prompt or in the picture, nothing is changed: the user is told, and the settings are
    taken out of the infotext.
    """
    if record.config.subject_gate == 0:
        return
    reason = _open(host, record, latent)
    if reason:
        log.info("the subject gate stays open: %s", reason)
        if not host.stopped():  # else it has not looked to the end
            tell(host.p, f"ScaleDiff made the picture without the subject gate: {reason}.")
        for name in SETTINGS:
            record.mark_unused(name)


def _open(host: WebUIHost, record: JobRecord, latent: Tensor) -> str:
    """As `open_gate`; the reason where nothing is to gate, else an empty string."""
    if not cross_layers(host.model_map):
        return "the model has no cross-attention to the text"
    if record.config.upscale_prompt:
        return "the stages have a prompt of their own"
    subject = record.config.gate_subject
    background = _background(host, subject)
    if background is None:
        named = f"the prompt lacks its subject {subject!r}" if subject else "no subject in the prompt"
        return f"{named}, or there is nothing beside it"
    rows = _PromptRows(host)
    gate = TextGate(host.model_map, background, rows=rows, strength=record.config.subject_gate)
    unguided = StructureGuidance(
        latent, host.config.sg_factor, 0.0, sigma_start=host.sigma(LOOK_TAU), prediction=host.prediction
    )
    look_at_base(
        host,
        latent,
        tau=LOOK_TAU,
        steps=LOOK_STEPS,
        guidance=unguided,
        inside=lambda stage: rows.noted(gate.looking(stage.latent_size)),
    )
    if all(mask is None for mask in gate.masks):
        return "no subject in the picture, or hardly anything beside it"
    host.gated = lambda stage: rows.noted(gate.blending(stage.latent_size))
    return ""


def _background(host: WebUIHost, subject: str) -> Tensor | None:
    """The context [B, T, C] of the prompts without their subject, None where no prompt has one.

    As it stands at the end of a prompt that changes with the steps. Prompts composed with AND have no one context.
    """
    texts = texts_of(host.p, host.sampler_name)
    without = [without_subject(prompt, subject) for prompt in texts.prompts]
    if not any(without):
        return None
    prompts = [rest or prompt for rest, prompt in zip(without, texts.prompts)]
    made, _ = conditioning_of(host.p, replace(texts, prompts=prompts), negative=False)
    if any(len(parts) != 1 for parts in made.batch):
        return None
    conds = [parts[0].schedules[-1].cond for parts in made.batch]
    rows = [cond["crossattn"] if isinstance(cond, dict) else cond for cond in conds]
    longest = max(len(row) for row in rows)
    return torch.stack([torch.cat([row, row[-1:].expand(longest - len(row), -1)]) for row in rows])


class _PromptRows:
    """Which rows belong to the prompt: the patcher hosts say so with each model call, else their order does."""

    def __init__(self, host: WebUIHost) -> None:
        self._host = host
        self._kinds: list[int] = []  # one number per piece of the batch, 0 for a prompt

    @contextmanager
    def noted(self, gate: AbstractContextManager[None]) -> Iterator[None]:
        """`gate` with the kinds of rows noted at each call of the network."""
        hook = self._host.unet().register_forward_pre_hook(self._note, with_kwargs=True)
        try:
            with gate:
                yield
        finally:
            hook.remove()

    def __call__(self, count: int) -> Sequence[int | None]:
        if not self._kinds:
            return self._host.rows.prompts_of_call(count)
        each = count // len(self._kinds)
        images = self._host.rows.images_of_call(count)
        return [image if self._kinds[row // each] == 0 else None for row, image in enumerate(images)]

    def _note(self, network: nn.Module, inputs: tuple, options: dict[str, Any]) -> None:
        self._kinds = list((options.get("transformer_options") or {}).get("cond_or_uncond") or [])
