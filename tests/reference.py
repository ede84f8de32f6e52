"""The equations written out as slow loops in float64, sharing no code with the package.

Every fast function is checked against the one of the same name here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_starts(length: int, window: int, offset: int = 0) -> list[int]:
    """clamp(i * p - offset - W/4, 0, n - W) for the patches i that begin before the end of the axis."""
    window = min(window, length)
    patch = max(1, window // 2)
    starts = []
    i = 0
    while i * patch - offset < length:
        start = i * patch - offset - window // 4
        if start < 0:
            start = 0
        if start > length - window:
            start = length - window
        starts.append(start)
        i += 1
    return starts


def keys_of_query(position: int, length: int, window: int, offset: int = 0) -> range:
    """The keys that the query at `position` of one axis sees."""
    window = min(window, length)
    patch = max(1, window // 2)
    start = window_starts(length, window, offset)[(position + offset) // patch]
    return range(start, start + window)


def neighborhood_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], window: tuple[int, int], *, offset=(0, 0)
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v with the keys of each single query's window; q, k, v [B, heads, H*W, D]."""
    q, k, v = q.double(), k.double(), v.double()
    height, width = grid
    batch, _, _, dim = q.shape
    offsets = [offset] * batch if isinstance(offset[0], int) else list(offset)
    out = torch.zeros_like(q)
    for b in range(batch):
        top, left = offsets[b]
        for row in range(height):
            for col in range(width):
                seen = [
                    y * width + x
                    for y in keys_of_query(row, height, window[0], top)
                    for x in keys_of_query(col, width, window[1], left)
                ]
                query = row * width + col
                scores = (k[b][:, seen] * q[b][:, query, None]).sum(-1) / math.sqrt(dim)
                weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
                out[b, :, query] = (weights[..., None] * v[b][:, seen]).sum(1)
    return out


def down_row(values: list[float], size: int) -> list[float]:
    """Antialiased bilinear reduction: a triangle as wide as the ratio, cut at the ends, summing to 1."""
    ratio = len(values) / size
    reach = max(ratio, 1.0)
    result = []
    for cell in range(size):
        centre = (cell + 0.5) * ratio
        weights = [max(0.0, 1.0 - abs(j + 0.5 - centre) / reach) for j in range(len(values))]
        result.append(sum(w * x for w, x in zip(weights, values)) / sum(weights))
    return result


def up_row(values: list[float], size: int) -> list[float]:
    """Linear interpolation between cell centres, flat beyond the first and the last."""
    result = []
    for i in range(size):
        place = (i + 0.5) * len(values) / size - 0.5
        place = min(max(place, 0.0), len(values) - 1.0)
        left = int(place)
        right = min(left + 1, len(values) - 1)
        result.append(values[left] + (place - left) * (values[right] - values[left]))
    return result


def cubic_weight(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return 0.0


def cubic_row(values: list[float], size: int) -> list[float]:
    """Cubic interpolation with the border value repeated."""
    result = []
    for i in range(size):
        place = (i + 0.5) * len(values) / size - 0.5
        base = math.floor(place)
        total = 0.0
        for j in range(base - 1, base + 3):
            total += cubic_weight(place - j) * values[min(max(j, 0), len(values) - 1)]
        result.append(total)
    return result


def resize(x: Tensor, size: tuple[int, int], row_function) -> Tensor:
    """A separable resize of [B, C, H, W]: each row, then each column."""
    out = torch.zeros(*x.shape[:2], *size, dtype=torch.float64)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            rows = [row_function(row, size[1]) for row in x[b, c].double().tolist()]
            columns = [row_function(list(column), size[0]) for column in zip(*rows)]
            out[b, c] = torch.tensor(columns, dtype=torch.float64).T
    return out


def low_pass(x: Tensor, factor: float) -> Tensor:
    small = (max(1, int(x.shape[2] * factor)), max(1, int(x.shape[3] * factor)))
    return resize(resize(x, small, down_row), (x.shape[2], x.shape[3]), up_row)


def mix(low_from: Tensor, high_from: Tensor, factor: float) -> Tensor:
    return low_pass(low_from, factor) + high_from.double() - low_pass(high_from, factor)


def with_means_of(x: Tensor, other: Tensor) -> Tensor:
    """x, each plane moved to the mean of other's."""
    out = x.double().clone()
    for sample in range(out.shape[0]):
        for channel in range(out.shape[1]):
            out[sample, channel] += other[sample, channel].double().mean() - out[sample, channel].mean()
    return out


def upsample_latent(latent: Tensor, size: tuple[int, int]) -> Tensor:
    return resize(latent, size, cubic_row)


def gamma_of_abar(abar: float, abar_start: float) -> float:
    """Eq. 4's weight in the paper's own terms."""
    return (1 - abar) / (1 - abar_start)


def guide(x0: Tensor, reference_low: Tensor, gamma: float, factor: float) -> Tensor:
    return x0.double() + gamma * (reference_low.double() - low_pass(x0, factor))


def alphas_cumprod() -> list[float]:
    """Stable Diffusion's training schedule: betas whose square roots run evenly from 0.00085 to 0.012."""
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    product, result = 1.0, []
    for t in range(1000):
        beta = (first + (last - first) * t / 999) ** 2
        product *= 1 - beta
        result.append(product)
    return result
