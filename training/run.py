"""The whole of it: pictures drawn by processes, the autoencoder, then the UNet on its latents; written as it goes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from training import config, export, unet, vae
from training.budget import BATCHES, UNET_SHARE, VAE_SHARE
from training.latents import FIRST, Latents
from training.loop import Loop, Plan
from training.parallel import launch
from training.pictures import Pictures
from training.report import judged, true_scenes
from training.samples import drawn, reconstructed, sheet
from training.start import Start
from world.captions import wide_captions

DRAWN_A_SECOND = 60  # by one process of a processor of today
MOST_PICTURES = {"cuda": 400_000, "cpu": 16_384}  # 20 GB and 0.8 GB of disk
JUDGED = {"cuda": 256, "cpu": 64}
SHEET_SECONDS = {"cuda": 60, "cpu": 600}
SHOWN = 8  # pictures of a sheet
WARM_VAE, WARM_UNET = 0.1, 0.5  # of the rates, for networks that were trained before


@dataclass(frozen=True)
class Job:
    """What the command line asks for. `steps` of each network at the most, None for as many as the minutes hold.

    `start` is a checkpoint to go on from, `only` the one network ("vae", "unet") that is trained, `plain` as in
    `Pictures`.
    """

    device: str
    minutes: float
    out: Path
    state: Path
    workers: int
    ranks: int
    steps: int | None = None
    start: Path | None = None
    only: str | None = None
    plain: bool = False

    @property
    def pictures(self) -> int:
        drawable = int(self.minutes * 60 * DRAWN_A_SECOND * self.workers)
        return max(4 * FIRST, min(drawable, MOST_PICTURES[self.device]))

    def trains(self, network: str) -> bool:
        return self.only in (None, network)

    def plan(self, share: float, rate_at, warm: float) -> Plan:
        """`share` of the minutes where both networks are trained; `warm` of the rates for one that knows much."""
        share = share if self.only is None else VAE_SHARE + UNET_SHARE
        pace = 1.0 if self.start is None else warm
        slower = lambda spent, step: pace * rate_at(spent, step)  # noqa: E731
        return Plan(60 * self.minutes * share, BATCHES[self.device], slower, self.steps)


def train(job: Job) -> None:
    """Leaves checkpoint, `report.json`, `log.jsonl` and `sheets/` in the job's folder. Goes on from its state."""
    with Pictures(job.state, job.pictures, plain=job.plain).drawn_by(job.workers):
        launch(_rank, job, time.monotonic(), ranks=job.ranks)


def _rank(rank: int, ranks: int, job: Job, begun: float) -> None:
    job.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    pictures = Pictures(job.state, job.pictures, plain=job.plain)
    pictures.wait(FIRST)
    larger = job.trains("vae") or (job.state / "vae.pt").exists()  # else the autoencoder stays as it is
    start = None if job.start is None else Start(job.start, larger=larger)
    params = config.trained_config()["model"]["params"] if start is None else start.params
    autoencoder = vae.build(params, job.device) if start is None else start.autoencoder(job.device)
    coder = vae.loop(autoencoder, job.state, rank, ranks)
    coder.log = job.out / "log.jsonl"
    look = _Sheets(job)
    if job.trains("vae"):
        plan = job.plan(VAE_SHARE, vae.rate_at, WARM_VAE)
        anchor = None if start is None else start.anchor(job.device)
        coder.train(plan, vae.losses(coder, pictures, job.device, anchor), lambda: look.vae(coder))
    if not job.trains("unet"):
        return
    _take_average(coder)
    autoencoder.eval().requires_grad_(False)
    scale = None if start is None else start.scale
    latents = Latents(autoencoder, pictures, job.device, rank, ranks, scale)
    begin = None if start is None else partial(start.begin, latents=latents, ranks=ranks)
    denoiser = unet.loop(unet.build(params, job.device), job.state, rank, ranks, begin)
    denoiser.log = coder.log

    def save() -> None:
        export.write(coder.averaged or {}, denoiser.averaged or {}, params, latents.scale, job.out)
        look.unet(denoiser, autoencoder, params, latents.scale)

    plan = job.plan(UNET_SHARE, unet.rate_at, WARM_UNET)
    denoiser.train(plan, unet.losses(denoiser, latents, job.device), save)
    if rank == 0:
        look.last = -np.inf
        _take_average(denoiser)
        save()
        _report(job, coder, denoiser, latents, begun)


def _take_average(loop: Loop) -> None:
    """The averaged weights in place of the last ones; training is over."""
    loop.model.load_state_dict(loop.averaged or {}, strict=False)


def _report(job: Job, coder: Loop, denoiser: Loop, latents: Latents, begun: float) -> None:
    count = JUDGED[job.device] if job.steps is None else 2
    found = judged(denoiser.model, coder.model, latents.scale, count)  # type: ignore[arg-type]
    found["steps"] = {loop.out.stem: {"steps": loop.step, "batch": loop.batch} for loop in (coder, denoiser)}
    found["drawn"], found["seconds"] = latents.pictures.ready, round(time.monotonic() - begun, 1)
    (job.out / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1), flush=True)


class _Sheets:
    """Looks at the networks now and then: a sheet of each beside the truth, in the job's folder."""

    def __init__(self, job: Job) -> None:
        self.folder, self.every = job.out / "sheets", SHEET_SECONDS[job.device]
        self.last = time.monotonic()

    def _due(self) -> bool:
        if time.monotonic() - self.last < self.every - 1:
            return False
        self.last = time.monotonic()
        return True

    def vae(self, loop: Loop) -> None:
        """The autoencoder's present weights: truth above, reconstruction below."""
        if self._due():
            true = true_scenes(1, SHOWN)
            made = reconstructed(loop.model, true)  # type: ignore[arg-type]
            sheet([true, made], self.folder / f"vae_{loop.step:06d}.jpg")

    def unet(self, loop: Loop, autoencoder, params, scale: float) -> None:
        """Samples of the averaged weights."""
        if self._due():
            model = unet.Denoiser(params).to(next(loop.model.parameters()).device)
            model.load_state_dict(loop.averaged or {}, strict=False)
            captions = [wide_captions()[(67 * k + 5) % 256] for k in range(2 * SHOWN)]
            made = drawn(model, autoencoder, scale, captions, cfg=2.0)
            sheet([made[:SHOWN], made[SHOWN:]], self.folder / f"unet_{loop.step:06d}.jpg")
