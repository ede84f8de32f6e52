"""From the features of many pictures to figures with intervals: a bootstrap over prompts, the same for every row.

A resample is a row of weights, so each metric is computed for the estimate (all weights 1) and for all resamples at
once. Truth is resampled with the same weights: prompt i of a method belongs to scene i with the same caption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.quality.features import Features
from benchmarks.quality.methods import NATIVE
from benchmarks.quality.pyramid import LevelScale, distances

RESAMPLES, AXES, NEAREST = 200, 16, 5  # few axes: 64 pictures must be enough for their covariance
Z = 1.96
BEST_AT = {"fine_energy": 1.0}  # figures that are neither better low nor high, and where they are best


@dataclass(frozen=True)
class Sample:
    """A metric's value on all prompts, and on each resample."""

    value: float
    resamples: np.ndarray

    @property
    def margin(self) -> float:
        """Half width of the 95 % interval. Normal, because distances of resamples lie above their own."""
        return float(Z * self.resamples.std(ddof=1))

    def minus(self, other: Sample) -> Sample:
        """The paired difference."""
        return Sample(self.value - other.value, self.resamples - other.resamples)


def from_best(name: str, sample: Sample, best_at: Mapping[str, float] = BEST_AT) -> Sample:
    """A figure that is best at a value as its distance from it, any other as it is: lower is better."""
    if name not in best_at:
        return sample
    return Sample(abs(sample.value - best_at[name]), np.abs(sample.resamples - best_at[name]))


def weights(prompts: int) -> np.ndarray:
    """`[1 + RESAMPLES, prompts]`: ones, then how often each prompt was drawn."""
    rng = np.random.default_rng(11)
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES)
    return np.concatenate([np.ones((1, prompts)), drawn]).astype(np.float64)


def _sample(values: np.ndarray) -> Sample:
    return Sample(float(values[0]), values[1:])


def metrics(found: Features, truth: Features, scales: dict[int, LevelScale], axes: Axes) -> dict[str, Sample]:
    """All distances and shares of one row; `found` and `truth` hold the same prompts in the same order."""
    draws = weights(len(found["objects"]))
    total = draws.sum(axis=1)
    objects = found["objects"].astype(np.float64)
    energy, true_energy = (
        draws @ f["fine_energy"].reshape(len(objects), -1).sum(axis=1) for f in (found, truth)
    )
    seams, true_seams = (draws @ f["seams"] for f in (found, truth))
    agreement = (found["attributes"] == truth["captions"]).mean(axis=1)
    ratio = (seams[:, 0] / seams[:, 1]) / (true_seams[:, 0] / true_seams[:, 1])
    result = {
        "repeated": draws @ (objects > 1) / total,
        "none": draws @ (objects == 0) / total,
        "excess": draws @ np.maximum(objects - 1, 0) / total,
        "agreement": draws @ agreement / total,
        "seams": ratio,
        "whole_net": frechet(draws, found["whole"][:, None], truth["whole"][:, None], axes.whole),
        "patch_net": frechet(draws, found["crops"], truth["crops"], axes.crops),
        **_neighbours("whole", draws, found["whole"][:, None], truth["whole"][:, None], axes.whole),
        **_neighbours("patch", draws, found["crops"], truth["crops"], axes.crops),
        **_sliced(draws, found, truth, scales),
    }
    if true_energy[0] > 0:  # the native size has no band above itself
        result["fine_energy"] = energy / true_energy
    return {name: _sample(values) for name, values in result.items()}


def _neighbours(
    part: str, draws: np.ndarray, found: np.ndarray, truth: np.ndarray, axes: np.ndarray
) -> dict[str, np.ndarray]:
    """Shares `{part}_outside` (1 - precision) and `{part}_missed` (1 - coverage), of features [prompts, pictures, D].

    A true picture's neighbourhood reaches to its fifth nearest true one. Outside: lies in none of them
    (Kynkaanniemi et al. 2019). Missed: true pictures in whose neighbourhood there is none (Naeem et al. 2020).
    """
    number = found.shape[1]
    one, other = ((features @ axes).reshape(-1, axes.shape[1]) for features in (found, truth))
    reach = np.sort(cdist(other, other), axis=1)[:, min(NEAREST, len(other) - 1)]
    within = cdist(one, other) < reach  # [found, truth]
    repeated = np.repeat(draws, number, axis=1)  # a prompt's pictures are drawn together
    total = repeated.sum(axis=1)
    inside = (repeated @ within.T > 0) * repeated
    covered = (repeated @ within > 0) * repeated
    return {
        f"{part}_outside": 1 - inside.sum(axis=1) / total,
        f"{part}_missed": 1 - covered.sum(axis=1) / total,
    }


def _sliced(
    draws: np.ndarray, found: Features, truth: Features, scales: dict[int, LevelScale]
) -> dict[str, np.ndarray]:
    """Mean distance of the levels up to the native size (whole) and of the finer ones (patch), in thousandths."""
    by_level = {}
    for side, scale in scales.items():
        one, other = (_weighted(draws, f[f"histogram_{side}"]) for f in (found, truth))
        by_level[side] = 1000 * distances(one, other, scale.end)
    coarse = [found for side, found in by_level.items() if side <= NATIVE]
    fine = [found for side, found in by_level.items() if side > NATIVE]
    result = {"whole_sliced": np.mean(coarse, axis=0)}
    return result | ({"patch_sliced": np.mean(fine, axis=0)} if fine else {})


def _weighted(draws: np.ndarray, histograms: np.ndarray) -> np.ndarray:
    flat = histograms.reshape(len(histograms), -1).astype(np.float32)
    return (draws.astype(np.float32) @ flat).reshape(len(draws), *histograms.shape[1:])


@dataclass(frozen=True)
class Axes:
    """Principal axes of true features, on which Frechet distances are taken; scaled to unit mean variance."""

    whole: np.ndarray
    crops: np.ndarray


def principal_axes(truth: Features) -> Axes:
    """The leading axes of the whole pictures' and the crops' features."""
    return Axes(_leading(truth["whole"]), _leading(truth["crops"].reshape(-1, truth["crops"].shape[-1])))


def _leading(features: np.ndarray) -> np.ndarray:
    centred = features - features.mean(axis=0)
    scale = np.sqrt(np.mean(centred**2))
    rows = np.linalg.svd(centred, full_matrices=False)[2]
    return rows[:AXES].T / scale


def frechet(draws: np.ndarray, found: np.ndarray, truth: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Frechet distance of Gaussians fitted to features `[prompts, pictures, D]`, for every row of `draws`."""
    centre = (truth @ axes).mean(axis=(0, 1))
    moments = [_moments(draws, features @ axes - centre) for features in (found, truth)]
    return np.array([_frechet_of(a, b) for a, b in zip(zip(*moments[0]), zip(*moments[1]))])


def _moments(draws: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means `[R, D]` and covariances `[R, D, D]` of each resample."""
    total = draws.sum(axis=1) * features.shape[1]
    sums = features.sum(axis=1)
    products = np.einsum("nkd,nke->nde", features, features)
    means = draws @ sums / total[:, None]
    second = np.tensordot(draws, products, axes=1) / total[:, None, None]
    return means, second - means[:, :, None] * means[:, None, :]


def _frechet_of(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    (mean, covariance), (other_mean, other_covariance) = one, other
    root = _square_root(covariance)
    cross = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.square(mean - other_mean).sum() + trace)


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
