"""One call of FLUX at 1x, 2x and 4x the native size: direct, ours, the paper's usual form, MultiDiffusion.

The carrier is diffusers' FluxTransformer2DModel with FLUX's 19 double and 38 single blocks and random weights: of
FLUX's own width in bf16 on a GPU, with fewer blocks where its memory asks for it; on a CPU a narrow one. Times are
taken in turn in one process and given as ratios of medians, beside what the counted multiply-adds predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.call_rounds import arguments, in_turn, made_on, place_of, write_each
from benchmarks.flux_methods import METHODS, image_ids
from benchmarks.timing import machine
from benchmarks.unet_methods import patch_starts
from scalediff.cost.counts import transformer_work
from scalediff.cost.transformers import TransformerShape, transformer_shape

PATCH, CHANNELS = 2, 16  # latent cells per token side, latent channels
GPU_PATCHES_UP_TO = 2  # times the native side: at 4x MultiDiffusion alone would take 20 s of a GPU
WEIGHTS_SHARE = 0.6  # of a GPU's free memory that weights may take; the rest is for a call


@dataclass(frozen=True)
class Carrier:
    """A transformer of FLUX's topology: blocks, heads of `dim` channels, native `side` and `text` in tokens."""

    heads: int
    dim: int
    side: int
    text: int
    text_width: int
    pooled: int
    double: int = 19
    single: int = 38

    def build(self) -> nn.Module:
        """diffusers' FluxTransformer2DModel with random weights."""
        from diffusers import FluxTransformer2DModel

        torch.manual_seed(0)
        spatial = self.dim * 7 // 16
        return FluxTransformer2DModel(
            in_channels=CHANNELS * PATCH**2,
            num_layers=self.double,
            num_single_layers=self.single,
            attention_head_dim=self.dim,
            num_attention_heads=self.heads,
            joint_attention_dim=self.text_width,
            pooled_projection_dim=self.pooled,
            guidance_embeds=True,
            axes_dims_rope=(self.dim - 2 * spatial, spatial, spatial),
        ).eval()

    def within(self, memory: int) -> Carrier:
        """As many of the blocks, in the same proportion, as `memory` bytes hold in half precision."""
        shape = TransformerShape.of_dimensions(self.double, self.single, self.heads * self.dim)
        share = min(1.0, WEIGHTS_SHARE * memory / (2 * shape.parameters))
        return replace(self, double=max(1, int(self.double * share)), single=max(1, int(self.single * share)))


FLUX = Carrier(heads=24, dim=128, side=64, text=256, text_width=4096, pooled=768)
# 16*16 / 192 = 64*64 / 3072, and text as much shorter as the picture: all shares of the work are FLUX's.
NARROW = Carrier(heads=3, dim=64, side=16, text=16, text_width=256, pooled=64)


def measure(model: Any, carrier: Carrier, scale: float, names: list[str], *, rounds: int) -> dict[str, Any]:
    """Seconds of each method at `scale` times the native side, in turn, its peak memory, and the counts beside."""
    side = round(carrier.side * scale)
    inputs = call_inputs(model, carrier, side)
    grid, window = (side, side), (carrier.side, carrier.side)
    ways = {name: partial(METHODS[name], model, grid, window) for name in names}
    device = place_of(model)["device"]
    found = in_turn(ways, lambda: model(**inputs), device=device, rounds=rounds, title=f"{scale:g}x")
    return {"scale": scale, "side": side, **found, "macs": predicted(model, carrier, side)}


def call_inputs(model: Any, carrier: Carrier, side: int) -> dict[str, Any]:
    """Arguments of one call on `side` x `side` tokens."""
    place = place_of(model)
    device = place["device"]
    return {
        "hidden_states": torch.randn(1, side * side, CHANNELS * PATCH**2, **place),
        "encoder_hidden_states": torch.randn(1, carrier.text, carrier.text_width, **place),
        "pooled_projections": torch.randn(1, carrier.pooled, **place),
        "timestep": torch.tensor([0.8], **place),
        "guidance": torch.tensor([3.5], **place),
        "img_ids": image_ids((side, side)).to(device),
        "txt_ids": torch.zeros(carrier.text, 3, device=device),
    }


def predicted(model: Any, carrier: Carrier, side: int) -> dict[str, int]:
    """Multiply-adds of one call by method, counted from the model's dimensions."""
    shape = transformer_shape(model, text_tokens=carrier.text)
    assert shape is not None
    canvas, home = (side * PATCH,) * 2, (carrier.side * PATCH,) * 2
    whole, windows, patch = (
        transformer_work(shape, size, window).total
        for size, window in ((canvas, None), (canvas, home), (home, None))
    )
    return {
        "direct": whole,
        "ours": windows,
        "official style": windows,
        "MultiDiffusion": patch * len(patch_starts(side, carrier.side)) ** 2,
    }


def main() -> None:
    parser = arguments("flux_call", __doc__, list(METHODS))
    parser.add_argument("--scales", type=float, nargs="+", help="1 2 4, on a GPU 2 4")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    carrier, dtype = NARROW, torch.float32
    if device.type == "cuda":
        carrier, dtype = FLUX.within(torch.cuda.mem_get_info(device)[0]), torch.bfloat16
    with made_on(device, dtype):
        model = carrier.build()

    def rows() -> Iterator[dict[str, Any]]:
        for scale in args.scales or ([2, 4] if device.type == "cuda" else [1, 2, 4]):
            names = list(args.methods)
            if device.type == "cuda" and scale > GPU_PATCHES_UP_TO:
                names = [name for name in names if name != "MultiDiffusion"]
            yield measure(model, carrier, scale, names, rounds=args.rounds)

    head = {
        "machine": machine(args.device),
        "dtype": str(dtype),
        "carrier": asdict(carrier),
        "cut": (carrier.double, carrier.single) != (FLUX.double, FLUX.single),
    }
    write_each(args.json, head, rows())


if __name__ == "__main__":
    with torch.inference_mode():
        main()
