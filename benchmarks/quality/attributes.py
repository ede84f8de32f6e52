"""Which caption a picture shows: four linear classifiers fitted on rendered scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.quality.methods import NATIVE
from world.captions import COLOURS, GROUND_COLOURS, GROUNDS, OBJECTS, Caption, wide_captions
from world.scene import draw
from world.texture import whole

SLOTS = {"colour": COLOURS, "object": OBJECTS, "ground_colour": GROUND_COLOURS, "ground": GROUNDS}
FIRST_SEED, SCENES = 500_000, 1024  # seeds that no other scene here uses
ANGLES, HARMONICS = 128, 20
RIDGE = 1e-2  # keeps the classifiers calm on pictures a little outside the world


@dataclass(frozen=True)
class Classifier:
    """Linear discriminants: one weight matrix `[features + 1, classes]` per slot."""

    weights: dict[str, np.ndarray]

    def attributes(self, image: np.ndarray) -> np.ndarray:
        """Index of the word of each slot `[4]` for uint8 `[128, 128, 3]`."""
        found = features(image)
        return np.array([int(np.argmax(_with_one(found[slot]) @ self.weights[slot])) for slot in SLOTS])


def truth(caption: Caption) -> np.ndarray:
    """The indices that a picture of `caption` should get `[4]`."""
    return np.array([words.index(getattr(caption, slot)) for slot, words in SLOTS.items()])


def fit() -> Classifier:
    """Discriminants from scenes drawn at the native size and at twice that; one covariance per slot."""
    captions = wide_captions()
    scenes = [captions[i % len(captions)] for i in range(SCENES)]
    sides = [NATIVE * (1 + i // len(captions) % 2) for i in range(SCENES)]
    pictures = [rendered(c, FIRST_SEED + i, side) for i, (c, side) in enumerate(zip(scenes, sides))]
    found = [features(at_native(picture)) for picture in pictures]
    labels = np.stack([truth(caption) for caption in scenes])
    weights = {}
    for k, (slot, words) in enumerate(SLOTS.items()):
        weights[slot] = _discriminant(np.stack([f[slot] for f in found]), labels[:, k], len(words))
    return Classifier(weights)


def rendered(caption: Caption, seed: int, side: int) -> np.ndarray:
    """The true scene as uint8 `[side, side, 3]`."""
    return (draw(caption, seed, whole(side)) * 255 + 0.5).astype(np.uint8)


def at_native(image: np.ndarray) -> np.ndarray:
    """The whole picture at the native size, averaged over boxes."""
    return np.asarray(Image.fromarray(image).resize((NATIVE, NATIVE), Image.Resampling.BOX))


def features(image: np.ndarray) -> dict[str, np.ndarray]:
    """Features of each slot for uint8 `[S, S, 3]`."""
    rgb = image.astype(np.float32) / 255
    r, g, b = np.moveaxis(rgb, -1, 0)
    core = (r - g > 0.09) & (b - g > 0.20) & (b - r > -0.02)
    warm = (r - b > 0.12) & ~core
    body = ndimage.binary_fill_holes(ndimage.binary_opening(warm | core, iterations=1))
    ground = ~ndimage.binary_dilation(body, iterations=max(3, len(image) // 16))
    if ground.sum() < 64:
        ground = np.ones_like(ground)
    return {
        "colour": _colours(rgb, warm if warm.any() else np.ones_like(warm)),
        "object": _outline(body, core),
        "ground_colour": _colours(rgb, ground),
        "ground": _texture(rgb.mean(-1), ground),
    }


def _colours(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Quartiles of each channel and of the channel differences under the mask."""
    values = rgb[mask]
    r, g, b = values.T
    channels = np.stack([r, g, b, r - g, g - b, b - r])
    return np.quantile(channels, (0.25, 0.5, 0.75), axis=1).ravel()


def _outline(body: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Strength of the harmonics of the rim around the core, relative to its mean radius."""
    mask = core if core.any() else body
    if not mask.any():
        return np.zeros(HARMONICS + 1)
    cy, cx = ndimage.center_of_mass(mask)
    angles = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    radii = np.arange(1, len(body) // 2)
    y = np.rint(cy + radii[:, None] * np.sin(angles)).astype(int).clip(0, len(body) - 1)
    x = np.rint(cx + radii[:, None] * np.cos(angles)).astype(int).clip(0, len(body) - 1)
    rim = body[y, x].sum(axis=0).astype(np.float64)  # pixels of the body on each ray
    spectrum = np.abs(np.fft.rfft(rim))[1 : HARMONICS + 1] / max(rim.sum(), 1.0)
    return np.append(np.sqrt(spectrum), rim.std() / max(rim.mean(), 1.0))


def _texture(luma: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Anisotropy at three scales, and the shape of the brightness distribution."""
    found = []
    for sigma in (1.0, 2.0, 4.0):
        smooth = ndimage.gaussian_filter(luma, sigma)
        down, across = (np.square(g)[mask].mean() for g in np.gradient(smooth))
        found += [np.log((across + 1e-8) / (down + 1e-8)), np.log(across + down + 1e-8)]
    values = luma[mask]
    z = (values - values.mean()) / (values.std() + 1e-6)
    ridges = ndimage.gaussian_laplace(luma, 1.5)[mask]
    ridges = (ridges - ridges.mean()) / (ridges.std() + 1e-6)
    return np.array(
        [*found, values.std(), (z**3).mean(), (z**4).mean(), (ridges**3).mean(), (ridges**4).mean()]
    )


def _with_one(found: np.ndarray) -> np.ndarray:
    return np.concatenate([found, np.ones((*found.shape[:-1], 1))], axis=-1)


def _discriminant(found: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    means = np.stack([found[labels == k].mean(axis=0) for k in range(classes)])
    residual = found - means[labels]
    covariance = residual.T @ residual / len(found)
    covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    slopes = np.linalg.solve(covariance, means.T)
    return np.vstack([slopes, -0.5 * np.sum(means.T * slopes, axis=0)])
