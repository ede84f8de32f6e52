"""The last steps of the base picture once more, to see where its subject is."""

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
) -> None:
    """Noise the base picture, `latent` [B, C, h, w], to sigma(tau) and denoise it in `steps`, shown to `guidance`.

    It is sampled with what the first stage is sampled with. The result is thrown away.
    """
    shared.state.textinfo = "ScaleDiff: looking for the subject"
    height, width = latent.shape[-2:]
    held, host.held = host.held, (lambda stage, reference, guided: guided)
    try:
        with host.installed():
            host.denoise(latent, Stage(0, host.plan.base, (height, width), tau, steps), guidance)
    finally:
        host.held = held
