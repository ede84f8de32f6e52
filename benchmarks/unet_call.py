"""One UNet call at 1x to 4x the native size: direct, ours, the paper's usual form, MultiDiffusion, HiDiffusion.

The carrier has SDXL's topology (three levels, transformers of depth 0, 2, 10) with random weights: the full
model in fp16 on a GPU, alone and in a batch of two (a picture with its negative prompt), on a CPU a narrow one
with a small native size. Times are taken in turn in one process and
given as ratios of medians; beside each stands the ratio that the counted multiply-adds predict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.call_rounds import arguments, in_turn, made_on, place_of, write_each
from benchmarks.timing import machine
from benchmarks.unet_methods import METHODS, native, ours, patch_starts
from scalediff.cost.counts import unet_work

TEXT_TOKENS = 77
POOLED, TIME_IDS, TIME_WIDTH = 1280, 6, 256  # SDXL's pooled text, and picture sizes as further "times"


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
            addition_embed_type="text_time",
            addition_time_embed_dim=TIME_WIDTH,
            projection_class_embeddings_input_dim=POOLED + TIME_IDS * TIME_WIDTH,
        ).eval()


# As narrow as the size is small: attention has about the share of the work that it has in SDXL.
NARROW = Carrier(widths=(32, 64, 128), depths=(1, 2, 10), side=48, head=32, text=64)
SDXL = Carrier(widths=(320, 640, 1280), depths=(1, 2, 10), side=128, head=64, text=2048)


def measure(unet: Any, scale: float, names: Sequence[str], *, rounds: int, batch: int = 1) -> dict[str, Any]:
    """Seconds of each method at `scale` times the native side, in turn, its peak memory, and the counts beside.

    Counts are those of one picture, whatever the batch.
    """
    side = round(native(unet) * scale)
    place = place_of(unet)
    x = torch.randn(batch, 4, side, side, **place)
    text = torch.randn(batch, TEXT_TOKENS, unet.config.cross_attention_dim, **place)
    ways = {name: partial(METHODS[name], unet) for name in names}
    found = in_turn(
        ways, lambda: call(unet, x, text), device=place["device"], rounds=rounds, title=f"{scale:g}x"
    )
    windowed = windowed_calls(unet, x, text) if "ours" in found["seconds"] else 0
    about = {"scale": scale, "side": side, "batch": batch}
    return about | found | {"macs": predicted(unet, side), "windowed": windowed}


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
        call(unet, x, text)
    return inside.calls


def call(unet: Any, x: Tensor, text: Tensor) -> Tensor:
    """Noise predicted for x [B, 4, h, w] and text [B, tokens, width]."""
    sizes = {"text_embeds": x.new_zeros(1, POOLED), "time_ids": x.new_zeros(1, TIME_IDS)}
    return unet(x, torch.tensor(981, device=x.device), text, added_cond_kwargs=sizes).sample


def main() -> None:
    parser = arguments("unet_call", __doc__, list(METHODS))
    parser.add_argument(
        "--scales", type=float, nargs="+", help="1 2 4 8, on a GPU what the goals ask for first"
    )
    parser.add_argument("--batches", type=int, nargs="+", help="1, on a GPU 2 and 1")
    parser.add_argument(
        "--all-up-to", type=float, help="larger sizes are run with ours alone; 4 on a CPU, else 8"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    carrier, dtype = (SDXL, torch.float16) if cuda else (NARROW, torch.float32)
    with made_on(torch.device(args.device), dtype):
        unet: Any = carrier.build()
    all_up_to = args.all_up_to or (8 if cuda else 4)
    scales = args.scales or ([2, 4, 1.5, 1] if cuda else [1, 2, 4, 8])
    batches = args.batches or ([2, 1] if cuda else [1])

    def rows() -> Iterator[dict[str, Any]]:
        for scale in scales:
            names = args.methods if scale <= all_up_to else ["ours"]
            for batch in batches:
                yield measure(unet, scale, names, rounds=args.rounds, batch=batch)

    head = {"machine": machine(args.device), "dtype": str(dtype), "carrier": asdict(carrier)}
    write_each(args.json, head, rows())


if __name__ == "__main__":
    with torch.inference_mode():
        main()
