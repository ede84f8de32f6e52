"""Structure guidance through the host's two CFG callbacks.

`on_cfg_denoiser` shows the noisy input and its noise level, `on_cfg_after_cfg` the combined prediction,
which may be replaced: x0 for the k-diffusion samplers, eps for the timestep samplers, where "sigma" is the
timestep (Automatic1111 modules/sd_samplers_cfg_denoiser.py:211 and 306). Forge and its kin show x0 for all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import script_callbacks
from modules.sd_samplers_timesteps import CFGDenoiserTimesteps
from torch import Tensor

from scalediff.hosts.webui.rows import BatchRows

Guidance = Callable[[Tensor, Tensor], Tensor]  # x0 [B, C, H, W] and sigma [B] to the guided x0


def alpha_bar(alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """alphas_cumprod `[T]` at a timestep that may be fractional (UniPC): linear in the logarithm. fp64."""
    table = alphas_cumprod.double().clamp_min(1e-12).log()
    t = timestep.to(table.device).double().clamp(0, len(table) - 1)
    low = t.floor().long()
    high = (low + 1).clamp(max=len(table) - 1)
    return torch.lerp(table[low], table[high], t - low).exp()


def noise_level(alpha: Tensor) -> Tensor:
    """sigma = sqrt((1 - abar) / abar), of any shape (Karras et al. 2022, variance-preserving models)."""
    return ((1 - alpha) / alpha).sqrt()


def guide_eps(x: Tensor, eps: Tensor, alpha: Tensor, guidance: Guidance) -> Tensor:
    """Guidance for a host that shows eps: to x0, guide, and back. x, eps `[B, C, H, W]`, alpha (abar) `[B]`.

    x0 = (x - sqrt(1 - abar) eps) / sqrt(abar); only the change of x0 is carried back: eps keeps its digits.
    """
    signal = alpha.to(x.device).sqrt().float().view(-1, 1, 1, 1)
    noise = (1 - alpha.to(x.device)).sqrt().float().view(-1, 1, 1, 1)
    x0 = (x.float() - noise * eps.float()) / signal
    change = guidance(x0, noise_level(alpha).to(x.device).float()) - x0
    return (eps.float() - signal / noise.clamp_min(1e-6) * change).to(eps.dtype)


class GuidanceCallbacks:
    """Guides every CFG prediction made for one `p`, and tells `rows` which rows the UNet will see.

    `shows_eps`: this host shows eps and timesteps for the DDIM family; others show x0 and sigma always.
    """

    def __init__(self, p: Any, rows: BatchRows, *, shows_eps: bool = True):
        self.p = p
        self.rows = rows
        self.shows_eps = shows_eps
        self.guidance: Guidance | None = None
        self.following = False
        self.error: Exception | None = None
        self._seen: tuple[Tensor, Tensor, Any] | None = None

    @contextmanager
    def registered(self) -> Iterator["GuidanceCallbacks"]:
        """Registered inside the `with` only, hence last in line and immune to a reload of the scripts."""
        before, after = self._before, self._after
        script_callbacks.on_cfg_denoiser(before)
        script_callbacks.on_cfg_after_cfg(after)
        try:
            yield self
        finally:
            script_callbacks.remove_callbacks_for_function(before)
            script_callbacks.remove_callbacks_for_function(after)

    @contextmanager
    def using(self, guidance: Guidance | None) -> Iterator[None]:
        """Follow the rows inside the `with` and apply `guidance`, if any.

        Its errors, which the host only logs, are raised at the end.
        """
        self.guidance, self.following, self.error = guidance, True, None
        try:
            yield
        finally:
            self.guidance, self.following, self._seen = None, False, None
        if self.error is not None:
            raise self.error

    def _before(self, params: Any) -> None:
        self._seen = None
        if not self.following or params.denoiser.p is not self.p:
            return
        batch = self.rows.batch
        self.rows.expect(params.x)
        self._seen = params.x[-batch:], params.sigma[-batch:], params.denoiser

    def _after(self, params: Any) -> None:
        seen, self._seen = self._seen, None
        if seen is None or self.guidance is None or self.error is not None:
            return
        try:
            params.x = self._guided(params.x, *seen)
        except Exception as error:
            self.error = error

    def _guided(self, prediction: Tensor, x: Tensor, sigma: Tensor, denoiser: Any) -> Tensor:
        assert self.guidance is not None
        if self.shows_eps and isinstance(denoiser, CFGDenoiserTimesteps):
            alpha = alpha_bar(denoiser.alphas, sigma)
            return guide_eps(x, prediction, alpha, self.guidance)
        return self.guidance(prediction, sigma).to(prediction.dtype)
