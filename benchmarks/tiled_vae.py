"""The tiled VAE against the untiled one: difference, peak memory and time, on the pocket VAE.

    python -m benchmarks.tiled_vae [--cases 512:32 1024:64] [--repeats 3] [--device cpu]

Writes `outputs/tiled_vae.json`. "plain" is the same tiling with every tile normalised by itself. Peak memory is
that of tensors alive at once: counted on a CPU, read from the allocator on a GPU. Times are medians, the ways
measured alternately in one process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.live_bytes import peak_bytes
from benchmarks.timing import default_device, machine, timed
from pocket_webui.model.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from scalediff.vae import tiled as tiled_vae
from scalediff.vae.tiled import TiledVAE
from world.data import sample
from world.scene import draw
from world.texture import whole

SCENE = 3
Job = Callable[[], Tensor]


class OwnNorms:
    """Stands for PictureNorms: what tiling does without the statistics of the whole picture."""

    def __init__(self, modules: list[Any]) -> None:
        self.place: Any = None
        self.patches: list[Any] = []

    def learn(self) -> None:
        pass


def main() -> None:
    """Measure all sizes and tiles and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", default=["512:32", "1024:64"], help="pixels:latent cells of a tile"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("outputs/tiled_vae.json"))
    parser.add_argument("--device", default=default_device())
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.backends.cudnn.allow_tf32 = False  # differences are to be those of tiling
    vae = load_checkpoint(DEFAULT_CHECKPOINT, device=args.device).first_stage_model
    torch.set_num_threads(args.threads)
    cases = [tuple(map(int, case.split(":"))) for case in args.cases]
    rows = [row for size, tile in cases for row in measure(vae, size, tile, args.repeats, args.device)]
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"machine": machine(args.device), "results": rows}, indent=1))
    for row in rows:
        print(json.dumps(row))


def measure(vae: Any, size: int, tile: int, repeats: int, device: str) -> list[dict[str, Any]]:
    """One row for each half of the VAE."""
    words, _ = sample(SCENE)
    picture = torch.from_numpy(draw(words, SCENE, whole(size))).float().permute(2, 0, 1)[None] * 2 - 1
    picture = picture.to(device)
    latent = vae.encode(picture).mean
    jobs: dict[str, Job] = {
        "encode": lambda: vae.quant_conv(vae.encoder(picture))[:, : latent.shape[1]],
        "decode": lambda: vae.decode(latent),
    }
    return [
        {"half": half, "size": size, "tile": tile, **compare(vae, job, tile, repeats, device)}
        for half, job in jobs.items()
    ]


def compare(vae: Any, job: Job, tile: int, repeats: int, device: str) -> dict[str, Any]:
    """Differences are in standard deviations of the untiled result, and for pictures in 1/255 as well."""

    def ways(name: str) -> AbstractContextManager[Any]:
        return nullcontext() if name == "untiled" else TiledVAE(vae, lambda half, cells: tile)

    expected = job()
    with ways("tiled"):
        tiled = job()
    with mock.patch.object(tiled_vae, "PictureNorms", OwnNorms), ways("plain"):
        plain = job()
    row: dict[str, Any] = {}
    for name, result in (("tiled", tiled), ("plain", plain)):
        off = (result - expected).abs() / expected.std()
        row[name] = {"max_sigma": off.max().item(), "mean_sigma": off.mean().item()}
        if expected.shape[1] == 3:
            off = (result - expected).abs() * 127.5
            row[name] |= {"max_255": off.max().item(), "mean_255": off.mean().item()}
    times: dict[str, list[float]] = {"untiled": [], "tiled": []}
    for name in times:
        with ways(name):
            row[f"{name}_peak_mb"] = round(peak_bytes(job, torch.device(device)) / 1e6, 1)
    for _ in range(repeats):
        for name, taken in times.items():
            with ways(name):
                taken.append(timed(job, device))
    row |= {f"{name}_seconds": round(median(taken), 3) for name, taken in times.items()}
    row["spread"] = {name: [round(min(taken), 3), round(max(taken), 3)] for name, taken in times.items()}
    return row


if __name__ == "__main__":
    main()
