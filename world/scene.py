"""One procedural scene: exactly one big object over a textured ground, drawable at any resolution and crop."""

from __future__ import annotations

import numpy as np

from world.captions import Caption
from world.texture import View, fbm, smoothstep

# Ramps dark -> middle -> light, RGB in 0..1. Bodies are warm, grounds are cold, the core is violet: the object counter
# (world/counter.py) rests on that and on nothing else.
BODY = {
    "red": ((0.42, 0.02, 0.05), (0.86, 0.12, 0.10), (1.00, 0.50, 0.38)),
    "orange": ((0.52, 0.16, 0.01), (0.96, 0.47, 0.06), (1.00, 0.78, 0.38)),
    "yellow": ((0.56, 0.38, 0.02), (0.98, 0.80, 0.12), (1.00, 0.97, 0.55)),
    "peach": ((0.60, 0.32, 0.24), (0.98, 0.68, 0.54), (1.00, 0.88, 0.78)),
}
GROUND = {
    "blue": ((0.02, 0.07, 0.24), (0.12, 0.33, 0.68), (0.62, 0.82, 0.98)),
    "green": ((0.01, 0.14, 0.06), (0.10, 0.44, 0.19), (0.56, 0.84, 0.50)),
    "teal": ((0.00, 0.15, 0.18), (0.05, 0.50, 0.53), (0.60, 0.93, 0.89)),
    "grey": ((0.10, 0.11, 0.13), (0.42, 0.44, 0.47), (0.86, 0.88, 0.90)),
}
CORE = ((0.16, 0.02, 0.30), (0.46, 0.14, 0.74), (0.80, 0.58, 0.98))
STRETCH = {"clouds": (1.0, 1.0), "waves": (3.0, 1.0), "bark": (1.0, 3.0), "web": (1.0, 1.0)}
CORE_RADIUS = 0.30


def draw(caption: Caption, seed: int, view: View, *, plain: bool = False) -> np.ndarray:
    """The scene (caption, seed) seen through `view`: float32 RGB `[pixels, pixels, 3]` in 0..1.

    `plain`: its ground is one colour, the middle one of its ramp.
    """
    rng = np.random.default_rng([seed, 20251])
    centre = 0.5 + rng.uniform(-0.08, 0.08, 2)
    radius = rng.uniform(0.27, 0.36)
    turn, light = rng.uniform(0, 2 * np.pi, 2)
    ground_noise = fbm(rng, view, STRETCH[caption.ground])
    body_noise = fbm(rng, view)
    if plain:
        ground = ramp(GROUND[caption.ground_colour], np.zeros_like(ground_noise))
    else:
        ground = _ground(caption, ground_noise)

    dx = ((view.x - centre[0]) / radius)[None, :]
    dy = ((view.y - centre[1]) / radius)[:, None]
    r = np.sqrt(dx * dx + dy * dy) + 1e-6
    theta = np.arctan2(dy, dx)
    pixel = view.side / view.pixels / radius  # one output pixel in units of the object's radius
    rim, slope = _outline(caption.object, theta + turn)
    distance = (r - rim) / np.sqrt(1 + (slope / np.maximum(rim, 0.2)) ** 2)

    image = ground * (1 - 0.5 * np.exp(-np.maximum(distance, 0) / 0.14))[..., None]
    body = _body(caption, (r, theta + turn, dx, dy), (turn, light), body_noise)
    body = body * (1 - 0.72 * _cover(np.abs(distance + 0.03) - 0.03, pixel))[..., None]
    image = _over(image, body, _cover(distance, pixel))
    core = ramp(CORE, 0.55 - 0.55 * r / CORE_RADIUS + 0.25 * np.cos(theta - light) + 0.10 * body_noise)
    core = core * (1 - 0.75 * _cover(np.abs(r - CORE_RADIUS + 0.02) - 0.02, pixel))[..., None]
    return np.clip(_over(image, core, _cover(r - CORE_RADIUS, pixel)), 0, 1).astype(np.float32)


def ramp(colours, t: np.ndarray) -> np.ndarray:
    """Piecewise linear ramp through three colours; t is clamped to -1..1 `[..., 3]`."""
    dark, middle, light = (np.asarray(c, dtype=np.float32) for c in colours)
    t = np.clip(t, -1, 1)[..., None].astype(np.float32)
    return middle + np.where(t < 0, (middle - dark) * t, (light - middle) * t)


def _ground(caption: Caption, noise: np.ndarray) -> np.ndarray:
    if caption.ground == "web":  # ridges: bright threads where the noise crosses zero
        return ramp(GROUND[caption.ground_colour], 0.95 - 1.7 * np.sqrt(np.abs(noise)))
    return ramp(GROUND[caption.ground_colour], 0.95 * np.tanh(0.85 * noise))


def _outline(kind: str, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rim radius and its derivative with respect to the angle, in units of the object's radius."""
    if kind == "planet":
        return np.full_like(theta, 0.88), np.zeros_like(theta)
    if kind == "flower":
        c = np.abs(np.cos(3 * theta)) + 0.05
        return 0.60 + 0.40 * np.sqrt(c), np.minimum(0.6 / np.sqrt(c), 2.5)
    if kind == "sun":  # sixteen short flames
        phase = np.abs(((8 * theta / np.pi) % 2) - 1)
        return 0.80 + 0.24 * phase, np.full_like(theta, 0.24 * 8 / np.pi)
    # five straight-edged points: the polar form of a line between tip (1.12) and notch (0.50)
    a = np.abs(((theta * 5 / (2 * np.pi)) % 1) - 0.5) * (2 * np.pi / 5)
    half, tip, notch = np.pi / 5, 1.12, 0.50
    base = tip * notch * np.sin(half)
    below = tip * np.sin(half - a) + notch * np.sin(a)
    rim = base / below
    return rim, base * np.abs(-tip * np.cos(half - a) + notch * np.cos(a)) / below**2


def _body(caption: Caption, polar, angles, noise: np.ndarray) -> np.ndarray:
    r, theta, dx, dy = polar
    turn, light = angles
    shade = 0.28 * (dx * np.cos(light) + dy * np.sin(light))
    if caption.object == "flower":
        figure = 0.34 * np.abs(np.cos(3 * theta)) + 0.22 * np.cos(24 * theta) - 0.25 * r
    elif caption.object == "sun":
        figure = 0.30 * np.cos(16 * theta) * smoothstep((r - 0.3) / 0.3) + 0.45 - 0.75 * r
    elif caption.object == "planet":
        across = dx * np.sin(turn) + dy * np.cos(turn)
        figure = 0.55 * np.sin(9.0 * across + 0.5 * noise) - 0.15 * r * r
    else:
        figure = 0.45 * np.sign(np.sin(5 * theta)) * smoothstep(np.abs(np.sin(5 * theta)) * 4) - 0.15 * r
    return ramp(BODY[caption.colour], figure + shade + 0.34 * noise)


def _cover(distance: np.ndarray, pixel: float) -> np.ndarray:
    """Antialiased coverage of the region distance < 0."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def _over(below: np.ndarray, above: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return below + (above - below) * cover[..., None]
