"""python -m training: draws the data, trains both networks, writes the checkpoint. Resumable; minutes are wall time."""

from __future__ import annotations

import argparse
from pathlib import Path

from training import export, unet, vae
from training.config import LATENT_CHANNELS
from world import data


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("training/cache"), help="folder for data and snapshots"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("pocket_webui/checkpoint"), help="folder of the checkpoint"
    )
    parser.add_argument("--pictures", type=int, default=12288)
    parser.add_argument("--vae-minutes", type=float, default=20)
    parser.add_argument("--unet-minutes", type=float, default=50)
    parser.add_argument("--ranks", type=int, default=2, help="processes of one thread each")
    args = parser.parse_args()
    data.build(args.work, args.pictures, args.ranks)
    vae.train(args.work, args.vae_minutes, LATENT_CHANNELS, args.ranks)
    unet.train(args.work, args.unet_minutes, LATENT_CHANNELS, args.ranks)
    export.write(args.work, args.out, LATENT_CHANNELS)


if __name__ == "__main__":
    main()
