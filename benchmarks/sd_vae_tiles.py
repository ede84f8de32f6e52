"""Memory and time of the tiled VAE at Stable Diffusion's real shape, with random weights: for a GPU.

    python -m benchmarks.sd_vae_tiles [--cases 2048:128 4096:128] [--repeats 2] [--device cuda] [--json FILE]

`benchmarks.tiled_vae` measures what tiling does to a picture, on a trained VAE. Here the untiled VAE and the tiled
one are run in turn in one process, in fp16 on a GPU; each row is kept as soon as it is measured. Where the untiled
one does not fit into the card, that is said. On a CPU a narrow one in fp32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.call_rounds import made_on, place_of, ratio
from benchmarks.live_bytes import peak_bytes
from benchmarks.sd_vae import CELL, CHANNELS, NARROW, REAL
from benchmarks.timing import default_device, machine, timed, write_json
from scalediff.vae.tiled import TiledVAE, is_out_of_memory

WAYS = ("untiled", "tiled")


def measure(vae: Any, *, size: int, tile: int, repeats: int) -> Iterator[dict[str, Any]]:
    """One row for each half of the VAE: a square picture of `size` pixels in tiles of `tile` cells, and untiled."""
    place, cells = place_of(vae), size // CELL
    picture, latent = (
        torch.randn(1, channels, side, side, **place) for channels, side in ((3, size), (CHANNELS, cells))
    )
    jobs: dict[str, Callable[[], Tensor]] = {
        "decode": lambda: vae.decoder(latent),
        "encode": lambda: vae.encoder(picture),
    }
    for half, job in jobs.items():
        yield {"half": half, "size": size, "tile": tile, **compare(vae, job, tile=tile, repeats=repeats)}


def compare(vae: Any, job: Callable[[], Tensor], *, tile: int, repeats: int) -> dict[str, Any]:
    """Seconds and peak bytes of both ways, and how far they are apart; differences are of values about [-1, 1]."""
    device = place_of(vae)["device"]
    result: Tensor | None = None
    row: dict[str, Any] = {"seconds": {}, "peak_bytes": {}, "failed": {}}
    results: dict[str, Any] = {}
    for name in WAYS:
        try:
            with _way(vae, name, tile):
                result = job()  # warms up
                row["peak_bytes"][name] = peak_bytes(job, device)
            results[name] = result
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            row["failed"][name] = str(error).splitlines()[0]
        if name in row["failed"] and device.type == "cuda":
            torch.cuda.empty_cache()
    if len(results) == len(WAYS):
        off = (results["tiled"].float() - results["untiled"].float()).abs()
        row["off"] = {"max": off.max().item(), "mean": off.mean().item()}
    names = [name for name in WAYS if name in results]
    results.clear()
    result = None
    for _ in range(repeats):
        for name in names:
            with _way(vae, name, tile):
                row["seconds"].setdefault(name, []).append(timed(job, str(device)))
    if len(names) == len(WAYS):
        row["time"] = ratio(*(row["seconds"][name] for name in ("tiled", "untiled")))
        row["memory"] = row["peak_bytes"]["tiled"] / row["peak_bytes"]["untiled"]
    return row


def _way(vae: Any, name: str, tile: int) -> AbstractContextManager[Any]:
    return nullcontext() if name == "untiled" else TiledVAE(vae, lambda half, cells: tile)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sd_vae_tiles", description=__doc__)
    parser.add_argument(
        "--cases", nargs="+", default=["2048:128", "4096:128"], help="pixels:latent cells of a tile"
    )
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("outputs/sd_vae_tiles.json"))
    parser.add_argument("--device", default=default_device())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    shape, dtype = (REAL, torch.float16) if device.type == "cuda" else (NARROW, torch.float32)
    with made_on(device, dtype):
        vae = shape.build()
    rows: list[dict[str, Any]] = []
    for size, tile in (tuple(map(int, case.split(":"))) for case in args.cases):
        for row in measure(vae, size=size, tile=tile, repeats=args.repeats):
            rows.append(row)
            write_json(
                args.json,
                {"machine": machine(args.device), "dtype": str(dtype), "width": shape.width, "results": rows},
            )
            print({name: row[name] for name in ("half", "size", "tile", "peak_bytes", "seconds")}, flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
