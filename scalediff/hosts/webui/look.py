"""The last steps of the base picture once more, to see where its subject is."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from modules import shared
from torch import Tensor

from scalediff.hosts.webui.host import WebUIHost
from scalediff.method.cascade import Stage
from scalediff.method.guidance import Guidance


def look_at_base(
    host: WebUIHost,
    latent: Tensor,
    *,
    tau: int,
    steps: int,
    guidance: Guidance,
    inside: Callable[[Stage], AbstractContextManager[None]] | None = None,
) -> None:
    """Noise the base picture, `latent` [B, C, h, w], to sigma(tau) and denoise it in `steps`, shown to `guidance`.

    It is sampled with what the first stage is sampled with. `inside` lies around the model, as `host.gated` does in a
    stage. The result is thrown away.
    """
    shared.state.textinfo = "ScaleDiff: looking for the subject"
    height, width = latent.shape[-2:]
    gated, held = host.gated, host.held
    host.gated, host.held = inside or gated, (lambda stage, reference, guided: guided)
    try:
        with host.installed():
            host.denoise(latent, Stage(0, host.plan.base, (height, width), tau, steps), guidance)
    finally:
        host.gated, host.held = gated, held
