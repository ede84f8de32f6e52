"""Structure guidance through the host's two CFG callbacks.

`on_cfg_denoiser` shows the noisy input and its noise level, `on_cfg_after_cfg` the combined prediction,
which may be replaced: x0 for the k-diffusion samplers, eps for the timestep samplers, where "sigma" is the
timestep (Automatic1111 modules/sd_samplers_cfg_denoiser.py:211 and 306). Forge and its kin show x0 for all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import script_callbacks
from modules.sd_samplers_timesteps import CFGDenoiserTimesteps
from torch import Tensor

from scalediff.hosts.webui.latents import USUAL, LatentForm
from scalediff.hosts.webui.rows import BatchRows
from scalediff.method.guidance import Guidance


def log_alphas(alphas_cumprod: Tensor) -> Tensor:
    """The logarithms of alphas_cumprod `[T]`, fp64 on the CPU: not every device has that type (Macs have not)."""
    return alphas_cumprod.detach().cpu().double().clamp_min(1e-12).log()


def alpha_bar(logs: Tensor, timestep: Tensor) -> Tensor:
    """alphas_cumprod, as `log_alphas` gives them, at timesteps `[B]` that may be fractional (UniPC): `[B]`, as `logs`.

    Linear in the logarithm.
    """
    t = timestep.detach().cpu().double().clamp(0, len(logs) - 1)
    low = t.floor().long()
    high = (low + 1).clamp(max=len(logs) - 1)
    return torch.lerp(logs[low], logs[high], t - low).exp()


def noise_level(alpha: Tensor) -> Tensor:
    """sigma = sqrt((1 - abar) / abar), of any shape (Karras et al. 2022, variance-preserving models)."""
    return ((1 - alpha) / alpha).sqrt()


def guide_eps(x: Tensor, eps: Tensor, alpha: Tensor, guidance: Guidance) -> Tensor:
    """Guidance for a host that shows eps: to x0, guide, and back. x, eps `[B, C, H, W]`, alpha (abar) `[B]`.

    x0 = (x - sqrt(1 - abar) eps) / sqrt(abar); only the change of x0 is carried back: eps keeps its digits.
    """
    signal = alpha.sqrt().float().to(x.device).view(-1, 1, 1, 1)
    noise = (1 - alpha).sqrt().float().to(x.device).view(-1, 1, 1, 1)
    x0 = (x.float() - noise * eps.float()) / signal
    change = guidance(x0, noise_level(alpha).float().to(x.device)) - x0
    return (eps.float() - signal / noise.clamp_min(1e-6) * change).to(eps.dtype)


class _HaltedError(BaseException):
    """Leaves the sampler after an error of ours: the host only logs an Exception of a callback, and samples on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class GuidanceCallbacks:
    """Guides every CFG prediction made for one `p`, and tells `rows` which rows the UNet will see.

    `shows_eps`: this host shows eps and timesteps for the DDIM family; others show x0 and sigma always. What they
    show has the host's `form`, what guides it the method's.
    """

    def __init__(self, p: Any, rows: BatchRows, *, shows_eps: bool = True, form: LatentForm = USUAL):
        self.p = p
        self.rows = rows
        self.shows_eps = shows_eps
        self.form = form
        self.guidance: Guidance | None = None
        self.following = False
        self._seen: tuple[Tensor, Tensor, Any] | None = None
        self._logs: tuple[Any, Tensor] | None = (
            None  # a denoiser's alphas and what `log_alphas` makes of them
        )

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
        """Follow the rows inside the `with` and apply `guidance`, if any. An error of theirs ends it at once."""
        self.guidance, self.following = guidance, True
        try:
            yield
        except _HaltedError as halted:
            raise halted.error from None
        finally:
            self.guidance, self.following, self._seen, self._logs = None, False, None, None

    def _before(self, params: Any) -> None:
        self._seen = None
        if not self.following or params.denoiser.p is not self.p:
            return
        try:
            self.rows.expect(params.x)
        except Exception as error:
            raise _HaltedError(error) from error
        batch = self.rows.batch
        self._seen = params.x[-batch:], params.sigma[-batch:], params.denoiser

    def _after(self, params: Any) -> None:
        seen, self._seen = self._seen, None
        if seen is None or self.guidance is None:
            return
        try:
            params.x = self._guided(params.x, *seen)
        except Exception as error:
            raise _HaltedError(error) from error

    def _guided(self, prediction: Tensor, x: Tensor, sigma: Tensor, denoiser: Any) -> Tensor:
        assert self.guidance is not None
        if self.shows_eps and isinstance(denoiser, CFGDenoiserTimesteps):
            return guide_eps(x, prediction, alpha_bar(self._logs_of(denoiser), sigma), self.guidance)
        guided = self.guidance(self.form.inside(prediction), sigma)
        return self.form.outside(guided).to(prediction.dtype)

    def _logs_of(self, denoiser: Any) -> Tensor:
        """Fetched from the device once a stage: it would wait for the device in every step."""
        if self._logs is None or self._logs[0] is not denoiser.alphas:
            self._logs = denoiser.alphas, log_alphas(denoiser.alphas)
        return self._logs[1]
