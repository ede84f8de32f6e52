"""Mirrors modules/rng.py: noise that depends on each image's own seed, whatever batch the image is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modules import devices, shared


def _source() -> torch.device:
    return devices.cpu if shared.opts.randn_source == "CPU" else devices.device


def manual_seed(seed: int) -> None:
    torch.manual_seed(int(seed))


def create_generator(seed: int) -> torch.Generator:
    return torch.Generator(_source()).manual_seed(int(seed))


def randn(seed: int, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """First normal tensor of `seed`; seeds the global generator too, for `randn_like` and
    `randn_without_seed`."""
    manual_seed(seed)
    return randn_without_seed(shape, generator)


def randn_local(seed: int, shape: Sequence[int]) -> Tensor:
    """First normal tensor of `seed`, leaving the global generator alone."""
    return randn_without_seed(shape, create_generator(seed))


def randn_like(x: Tensor) -> Tensor:
    return torch.randn(x.shape, device=_source(), dtype=x.dtype).to(x.device)


def randn_without_seed(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    return torch.randn(tuple(shape), device=_source(), generator=generator).to(devices.device)


def slerp(val: float, low: Tensor, high: Tensor) -> Tensor:
    """Spherical interpolation along the last but one axis of [C, H, W] noise; linear where the two nearly
    agree."""
    low_unit, high_unit = low / low.norm(dim=1, keepdim=True), high / high.norm(dim=1, keepdim=True)
    cosine = (low_unit * high_unit).sum(1)
    if cosine.mean() > 0.9995:
        return low * val + high * (1 - val)
    omega = cosine.acos()
    weights = (((1.0 - val) * omega).sin() / omega.sin(), (val * omega).sin() / omega.sin())
    return weights[0].unsqueeze(1) * low + weights[1].unsqueeze(1) * high


def _centred(canvas: Tensor, patch: Tensor) -> Tensor:
    """`canvas` with `patch` in its middle, the patch cropped where it is larger. Both [C, H, W]."""
    for axis in (1, 2):
        excess = patch.shape[axis] - canvas.shape[axis]
        if excess > 0:
            # floor of a negative half, as the host computes it, keeps old seeds reproducible
            start = -((-excess) // 2)
            patch = patch.narrow(axis, start, patch.shape[axis] - 2 * start)
    top, left = ((canvas.shape[axis] - patch.shape[axis]) // 2 for axis in (1, 2))
    canvas[:, top : top + patch.shape[1], left : left + patch.shape[2]] = patch
    return canvas


class ImageRNG:
    """Noise of shape [len(seeds), *shape], one generator per image.

    The first `next()` honours subseeds and "resize seed from"; later ones continue each generator.
    """

    def __init__(
        self,
        shape: Sequence[int],
        seeds: Sequence[int],
        subseeds: Sequence[int] | None = None,
        subseed_strength: float = 0.0,
        seed_resize_from_h: int = 0,
        seed_resize_from_w: int = 0,
    ) -> None:
        self.shape = tuple(map(int, shape))
        self.seeds, self.subseeds, self.subseed_strength = seeds, subseeds, subseed_strength
        self.seed_resize_from_h, self.seed_resize_from_w = seed_resize_from_h, seed_resize_from_w
        self.generators = [create_generator(seed) for seed in seeds]
        self.is_first = True

    def _first_of(self, i: int) -> Tensor:
        seed, generator = self.seeds[i], self.generators[i]
        resized = self.seed_resize_from_h > 0 and self.seed_resize_from_w > 0
        small = (self.shape[0], int(self.seed_resize_from_h) // 8, int(self.seed_resize_from_w) // 8)
        shape = small if resized else self.shape
        noise = randn(seed, shape, generator=None if shape != self.shape else generator)
        if self.subseeds is not None and self.subseed_strength != 0:
            subseed = self.subseeds[i] if i < len(self.subseeds) else 0
            noise = slerp(self.subseed_strength, noise, randn_local(subseed, shape))
        if shape == self.shape:
            return noise
        return _centred(randn(seed, self.shape, generator=generator), noise)

    def first(self) -> Tensor:
        noise = torch.stack([self._first_of(i) for i in range(len(self.seeds))])
        delta = shared.opts.eta_noise_seed_delta or 0
        if delta:
            self.generators = [create_generator(seed + delta) for seed in self.seeds]
        return noise.to(devices.device)

    def next(self) -> Tensor:
        if self.is_first:
            self.is_first = False
            return self.first()
        return torch.stack([randn_without_seed(self.shape, g) for g in self.generators]).to(devices.device)


devices.randn = randn  # type: ignore[attr-defined]
devices.randn_local = randn_local  # type: ignore[attr-defined]
devices.randn_like = randn_like  # type: ignore[attr-defined]
devices.randn_without_seed = randn_without_seed  # type: ignore[attr-defined]
devices.manual_seed = manual_seed  # type: ignore[attr-defined]
