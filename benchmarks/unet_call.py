"""One UNet call at 1x, 2x and 4x the native size: direct, ours, the paper's usual form, MultiDiffusion, HiDiffusion.

The carrier has SDXL's topology (three levels, transformers of depth 0, 2, 10) with random weights: the full
model on a GPU, on a CPU a narrow one with a small native size. Times are taken in turn in one process and
given as ratios of medians; beside each stands the ratio that the counted multiply-adds predict.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.attention_core import machine, timed
from benchmarks.live_bytes import peak_bytes
from benchmarks.unet_methods import METHODS, native, ours, patch_starts
from scalediff.estimate_counts import unet_work

TEXT_TOKENS = 77
SLOWEST_CALLS = 3  # rounds at least, however long they take


@dataclass(frozen=True)
class Carrier:
    """Widths and depths of a UNet of SDXL's topology, its native side in latent cells, its text's width."""

    widths: tuple[int, int, int]
    depths: tuple[int, int, int]
    side: int
    head: int
    text: int

    def build(self) -> nn.Module:
        """diffusers' UNet2DConditionModel with random weights."""
        from diffusers import UNet2DConditionModel

        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=self.side,
            in_channels=4,
            out_channels=4,
            block_out_channels=self.widths,
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=list(self.depths),
            attention_head_dim=[width // self.head for width in self.widths],
            cross_attention_dim=self.text,
            use_linear_projection=True,
        ).eval()


# As narrow as the size is small: attention has about the share of the work that it has in SDXL.
NARROW = Carrier(widths=(32, 64, 128), depths=(1, 2, 10), side=48, head=32, text=64)
SDXL = Carrier(widths=(320, 640, 1280), depths=(1, 2, 10), side=128, head=64, text=2048)


def measure(unet: Any, scale: float, names: list[str], *, rounds: int) -> dict[str, Any]:
    """Seconds of each method at `scale` times the native side, in turn, and its peak memory.

    A method that cannot be run is named with its error.
    """
    side = round(native(unet) * scale)
    device, dtype = next(unet.parameters()).device, next(unet.parameters()).dtype
    x = torch.randn(1, 4, side, side, device=device, dtype=dtype)
    text = torch.randn(1, TEXT_TOKENS, unet.config.cross_attention_dim, device=device, dtype=dtype)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, int] = {}
    failed: dict[str, str] = {}
    for round_ in range(rounds + 1):  # the first warms up, and is where memory is measured
        for name in tqdm(names, desc=f"{scale:g}x, round {round_}", leave=False):
            if name in failed:
                continue
            try:
                with METHODS[name](unet):
                    if round_ == 0:
                        memory[name] = peak_bytes(lambda: _call(unet, x, text), device)
                    else:
                        seconds[name].append(timed(lambda: _call(unet, x, text), str(device)))
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return {
        "scale": scale,
        "side": side,
        "seconds": {name: times for name, times in seconds.items() if times},
        "peak_bytes": memory,
        "failed": failed,
        "macs": predicted(unet, side),
        "windowed": windowed_calls(unet, x, text),
    } | {"ratios": ratios(seconds)}


def predicted(unet: Any, side: int) -> dict[str, int]:
    """Multiply-adds of one call by method, counted from the model's layers."""
    home = native(unet)
    whole, windows, patch = (
        unet_work(unet, size, window, text_tokens=TEXT_TOKENS).total
        for size, window in (((side, side), None), ((side, side), (home, home)), ((home, home), None))
    )
    return {
        "direct": whole,
        "ours": windows,
        "official style": windows,
        "MultiDiffusion": patch * len(patch_starts(side, home)) ** 2,
    }


def windowed_calls(unet: Any, x: Tensor, text: Tensor) -> int:
    """How many attention layers ran in windows in one call of ours."""
    with ours(unet) as inside:
        _call(unet, x, text)
    return inside.calls


def ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median of each other method over ours, and the middle half of the ratios round by round."""
    found = {}
    for name, times in seconds.items():
        if name == "ours" or not times or not seconds.get("ours"):
            continue
        pairs = [other / own for other, own in zip(times, seconds["ours"])]
        low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else [pairs[0]] * 3
        found[name] = {"of_medians": median(times) / median(seconds["ours"]), "middle_half": [low, high]}
    return found


def _call(unet: Any, x: Tensor, text: Tensor) -> Tensor:
    return unet(x, torch.tensor(981, device=x.device), text).sample


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unet_call", description=__doc__)
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--all-up-to", type=float, default=4.0, help="larger sizes are run with ours alone")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--rounds", type=int, default=SLOWEST_CALLS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("outputs/unet_call.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    carrier = SDXL if cuda else NARROW
    unet: Any = carrier.build().to(args.device, torch.float16 if cuda else torch.float32)
    results = []
    args.json.parent.mkdir(parents=True, exist_ok=True)
    for scale in args.scales:
        names = args.methods if scale <= args.all_up_to else ["ours"]
        results.append(measure(unet, scale, names, rounds=args.rounds))
        report = {"machine": machine(args.device), "carrier": asdict(carrier), "results": results}
        args.json.write_text(json.dumps(report, indent=1))
        print(
            {name: round(ratio["of_medians"], 2) for name, ratio in results[-1]["ratios"].items()}, flush=True
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
