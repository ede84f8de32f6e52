"""Native samples of the pocket model above, rendered truth of the same captions below, for the documents."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from pocket_webui.in_process import generator
from world.captions import wide_captions
from world.scene import draw
from world.texture import whole

NATIVE, COLUMNS, GAP = 128, 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.sheet", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/pocket_samples.jpg"))
    args = parser.parse_args()
    generate = generator()
    side = NATIVE + GAP
    sheet = Image.new("RGB", (COLUMNS * side - GAP, 4 * side - GAP), "white")
    for index in range(2 * COLUMNS):
        caption = wide_captions()[(index * 67 + 5) % 256]
        body = {"prompt": str(caption), "seed": index, "width": NATIVE, "height": NATIVE, "steps": 20}
        sampler = {"cfg_scale": 2.0, "sampler_name": "DPM++ 2M", "scheduler": "Automatic"}
        sampled = generate(body | sampler)
        truth = Image.fromarray((draw(caption, 90000 + index, whole(NATIVE)) * 255).astype(np.uint8))
        column, row = index % COLUMNS, index // COLUMNS
        sheet.paste(sampled.convert("RGB"), (column * side, row * side))
        sheet.paste(truth, (column * side, (row + 2) * side))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, quality=92)
    print(args.out)


if __name__ == "__main__":
    main()
