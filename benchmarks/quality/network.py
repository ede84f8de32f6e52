"""Features to compare pictures by: a small classifier of the world's captions and scales, trained on rendered scenes.

It has seen no picture of any model, and is none of the networks under test. `python -m benchmarks.quality.network`
makes its weights again, in a few minutes of one core.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quality.attributes import SLOTS, truth
from benchmarks.quality.methods import NATIVE
from world.captions import wide_captions
from world.scene import draw
from world.texture import View

WEIGHTS = Path(__file__).with_name("network.safetensors")
WIDTHS, GROUPS = (16, 32, 64, 64), 8
SCALES = (
    1.0,
    0.5,
    0.25,
)  # side of what a training picture shows, in scenes: the whole, and crops of 2x and 4x
PICTURES, FIRST_SEED, STEPS, BATCH, RATE = 1536, 900_000, 360, 32, 3e-3
QUARTERS = 2


class Network(nn.Module):
    """Four strided layers; linear heads on mean and deviation of the last."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip((3, *WIDTHS), WIDTHS)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for width in WIDTHS)
        self.heads = nn.Linear(2 * WIDTHS[-1], 4 * len(SLOTS) + len(SCALES))

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each layer sees `[B, width, h, w]` of pictures `[B, 3, S, S]` in -1..1."""
        found = []
        for layer, norm in zip(self.layers, self.norms):
            x = F.silu(norm(layer(x)))
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(_pooled(self.maps(x)[-1]))


def _pooled(found: Tensor) -> Tensor:
    """Mean and deviation of each channel `[B, 2 C]`."""
    return torch.cat([found.mean((2, 3)), found.std((2, 3))], 1)


def _input(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1


@cache
def network() -> Network:
    """The trained network, ready to look."""
    model = Network()
    model.load_state_dict({name: weight.float() for name, weight in load_file(str(WEIGHTS)).items()})
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def features(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(layout `[B, 256]`, texture `[B, 320]`) of uint8 `[B, 128, 128, 3]`.

    Layout: the last layer averaged over quarters. Texture: mean and deviation of the last three layers.
    """
    found = network().maps(_input(pictures))
    layout = F.adaptive_avg_pool2d(found[-1], QUARTERS).flatten(1)
    return layout.numpy(), torch.cat([_pooled(one) for one in found[1:]], 1).numpy()


def scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Training picture uint8 `[128, 128, 3]` and its classes `[5]`: the slots, then which of the scales."""
    rng = np.random.default_rng([index, 31])
    caption = wide_captions()[int(rng.integers(256))]
    scale = int(rng.integers(len(SCALES)))
    left, top = rng.uniform(0, 1 - SCALES[scale], 2) if scale else (0.0, 0.0)
    view = View(float(left), float(top), SCALES[scale], NATIVE)
    picture = (draw(caption, FIRST_SEED + index, view) * 255 + 0.5).astype(np.uint8)
    return picture, np.append(truth(caption), scale)


def loss_of(model: Network, x: Tensor, classes: Tensor) -> Tensor:
    """Cross entropy of the slots and of the scale."""
    found = model(x).split([*[4] * len(SLOTS), len(SCALES)], dim=1)
    return torch.stack([F.cross_entropy(part, classes[:, k]) for k, part in enumerate(found)]).mean()


def fit(pictures: int = PICTURES, steps: int = STEPS) -> Network:
    """A network trained on `pictures` scenes."""
    torch.manual_seed(0)
    scenes = [scene(index) for index in range(pictures)]
    x = _input(np.stack([picture for picture, _ in scenes]))
    classes = torch.from_numpy(np.stack([found for _, found in scenes]))
    model = Network()
    solver = torch.optim.AdamW(model.parameters(), lr=RATE)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(solver, steps)
    for step in range(steps):
        chosen = torch.randint(pictures, (BATCH,))
        mirrored = x[chosen].flip(-1) if step % 2 else x[chosen]
        loss = loss_of(model, mirrored, classes[chosen])
        solver.zero_grad()
        loss.backward()
        solver.step()
        fall.step()
        if step % 60 == 59:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    return model


def main() -> None:
    weights = {name: weight.half().contiguous() for name, weight in fit().state_dict().items()}
    save_file(weights, str(WEIGHTS))
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
