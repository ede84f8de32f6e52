"""Pictures through the host's VAE, in tiles where the job, the settings page or the memory there is asks for it.

Automatic1111's VAE takes a picture whole: its encoder and decoder are replaced by tiled ones (`scalediff.vae`) while
a picture of ours is encoded or decoded. Forge, reForge and their kin tile in their own way, under a flag of
their memory management and by themselves when memory does not suffice; here the flag is raised where the user
wants tiles, or where the whole picture would exceed the memory ceiling of the settings page.

The base and the stages between are encoded with each image's own seed; decoded for the cascade they are not
clamped (`WebUIHost.decode`), the last picture is what the host makes of it (`decode_final`).
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from modules import devices, shared
from modules.processing import decode_latent_batch
from modules.sd_samplers_common import images_tensor_to_samples
from torch import Tensor, nn

from scalediff.cost.memory import weight_bytes
from scalediff.cost.tiled_vae import choose_tile, memory_limit
from scalediff.hosts.webui.job_record import ATTRIBUTE, DECODE, ENCODE, working
from scalediff.hosts.webui.latents import USUAL, LatentForm
from scalediff.hosts.webui.memory import networks_of, vae_of
from scalediff.hosts.webui.notes import tell
from scalediff.method import seeding
from scalediff.method.cascade import Stopped
from scalediff.method.geometry import CELL, Cells, vae_cells
from scalediff.settings import preferences
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.table import TILING_AUTO, TILING_OFF, TILING_ON
from scalediff.vae.tiled import ChooseTile, Report, TiledVAE, taken_by

# Where the flag is that makes their VAE tile always: Forge backend/memory_management.py:212 (read in
# backend/patcher/vae.py:129), reForge ldm_patched/modules/model_management.py:356 (read in sd.py:776).
MEMORY_MODULES = ("backend.memory_management", "ldm_patched.modules.model_management")
FLAG = "VAE_ALWAYS_TILED"
HOSTS_TILE = 64  # their tiles for the decoder, in latent cells; those for the encoder are not larger
OTHERS_TILE = (
    "ScaleDiff's VAE tiling was left out: another extension ({}) runs the VAE in its own way. Switch that off, or set "
    "VAE tiling to Off"
)


def tiling_mode(config: ScaleDiffConfig) -> str:
    """ "Auto", "On" or "Off": what the job says, and on Auto what the settings page says."""
    return preferences.vae_tiling(shared.opts) if config.vae_tiling == TILING_AUTO else config.vae_tiling


def tile_chooser(sd_model: Any, config: ScaleDiffConfig, form: LatentForm = USUAL) -> ChooseTile:
    """Which tiles the VAE of the host's model takes for a size, as the policy and the memory are now.

    Sizes and tiles in the VAE's own cells (`geometry.vae_cells`).
    """
    asked, tiling_host = _asked_for(sd_model, config, form), _tiling_host()

    def choose(part: nn.Module, latent_size: Cells) -> int | None:
        taken = tiling_host is None and taken_by(part) is not None
        return None if taken else asked(part, latent_size)

    return choose


def _asked_for(sd_model: Any, config: ScaleDiffConfig, form: LatentForm = USUAL) -> ChooseTile:
    """As `tile_chooser`, whoever else tiles."""
    wanted = tiling_mode(config)
    hosts_tile, _ = vae_cells((HOSTS_TILE, HOSTS_TILE), form.cell)
    always, tiling_host = wanted == TILING_ON, _tiling_host()

    def choose(part: nn.Module, latent_size: Cells) -> int | None:
        if wanted == TILING_OFF:
            return None
        ceiling = preferences.memory_ceiling(shared.opts)
        if tiling_host is not None and (always or not ceiling):  # what is free is the host's business
            return hosts_tile if always else None
        # thousands of tensors are looked at, so only where the answer counts
        weights = weight_bytes(*networks_of(sd_model)) if ceiling else 0
        limit = memory_limit(devices.device, ceiling=ceiling, weights=weights)
        tile = choose_tile(part, latent_size, limit=limit, always=always)
        return hosts_tile if tile is not None and tiling_host is not None else tile

    return choose


def tiles(
    p: Any, config: ScaleDiffConfig, cells: Cells, form: LatentForm = USUAL, *, report: Report | None = None
) -> AbstractContextManager[Any]:
    """Inside the `with` the VAE of the job's model follows the policy for a picture of (h, w) `cells` of its own.

    `report` is called after each of our own tiles; the hosts that tile report to the console. The job is told
    where its setting changed what is done.
    """
    tiling_host = _tiling_host()
    if tiling_mode(config) == TILING_OFF:
        usual = tile_chooser(p.sd_model, replace(config, vae_tiling=TILING_AUTO), form)
        if any(usual(half, cells) is not None for half in _halves(p.sd_model)):
            _mark_use(p)
        return nullcontext()
    choose = tile_chooser(p.sd_model, config, form)
    if tiling_host is None:
        _note_others(p, config, cells, form)
        return TiledVAE(vae_of(p.sd_model), choose, report=_marking_use(p, report))
    if choose(_decoder(p.sd_model), cells) is None:
        return nullcontext()
    _mark_use(p)
    return _flag_raised(tiling_host)


def progress(host: Any, verb: str, *, stoppable: bool = True) -> Report:
    """Shows "decoding 3/16"; raises Stopped once the user has interrupted or skipped, where `stoppable`."""

    def report(done: int, total: int) -> None:
        host.phase(f"{verb} {done}/{total}")
        if stoppable and host.stopped():
            raise Stopped

    return report


def decode_final(p: Any, config: ScaleDiffConfig, latent: Tensor, form: LatentForm) -> Any:
    """The final pictures of `latent` [B, C, h, w], decoded: the host's list of [3, H, W], about [-1, 1], on the CPU.

    With a frame axis in front where the model's latents have one. An interrupt does not stop this: there is a
    finished picture to be given back.
    """

    def report(done: int, total: int) -> None:
        shared.state.textinfo = f"ScaleDiff: decoding {done}/{total}"

    shared.state.textinfo = "ScaleDiff: decoding"
    try:
        with working(p, DECODE, None), tiles(p, config, form.vae_cells(latent), form, report=report):
            return decode_latent_batch(
                p.sd_model, form.outside(latent), target_device=devices.cpu, check_for_nans=True
            )
    finally:
        shared.state.textinfo = None


def decode_where_tiled(p: Any, config: ScaleDiffConfig, latent: Tensor, form: LatentForm = USUAL) -> Any:
    """`decode_final` where the VAE may have to tile; else `latent` itself as the host has it, for it to decode."""
    if tiling_mode(config) == TILING_OFF:
        return form.outside(latent)
    choose = tile_chooser(p.sd_model, config, form)
    if _tiling_host() is not None and choose(_decoder(p.sd_model), form.vae_cells(latent)) is None:
        return form.outside(latent)
    if shared.opts.sd_vae_decode_method != "Full":  # as the host notes it when it decodes
        p.extra_generation_params["VAE Decoder"] = shared.opts.sd_vae_decode_method
    return decode_final(p, config, latent, form)


def encode(host: Any, rgb: Tensor, stage_index: int) -> Tensor:
    """RGB `[B, 3, H, W]` in [-1, 1] -> latent `[B, C, h, w]` fp32; stage index -1 is the base image of img2img.

    Through the host's `images_tensor_to_samples` (sd_samplers_common.py:87), which wants [0, 1], one picture at a
    time: a VAE with frames would take a batch for them, and Qwen-Image's keeps only the first. The posterior is
    sampled with each image's own seed. `host` is a `WebUIHost`. Raises Stopped when the user stops it in a stage.
    """
    p, method = host.p, shared.opts.sd_vae_encode_method
    if method != "Full":
        p.extra_generation_params["VAE Encoder"] = method
    latents = []
    cells = (rgb.shape[-2] // CELL, rgb.shape[-1] // CELL)
    # without a latent of the base there is nothing to give back
    report = progress(host, "encoding", stoppable=stage_index >= 0)
    at_work = working(p, ENCODE, stage_index)
    tiled = tiles(p, host.config, cells, host.form, report=report)
    with at_work, devices.without_autocast(), host.references_kept(p.sd_model), tiled:
        for seed, image in zip(p.seeds, rgb):
            with _seeded(seeding.generator(seed, stage=stage_index, purpose="vae"), devices.device):
                encoded = images_tensor_to_samples(image[None] * 0.5 + 0.5, None, p.sd_model)
            latents.append(host.form.inside(encoded))
    return torch.cat(latents).float()


def _note_others(p: Any, config: ScaleDiffConfig, cells: Cells, form: LatentForm) -> None:
    """Tell the user where the tiles that are asked for are another extension's business."""
    if tiling_mode(config) != TILING_ON:
        return
    asked = _asked_for(p.sd_model, config, form)
    for half in _halves(p.sd_model):
        taker = taken_by(half)
        if taker is not None and asked(half, cells) is not None:
            tell(p, OTHERS_TILE.format(taker))
            return


def _marking_use(p: Any, report: Report | None) -> Report:
    """`report`, and a word to the job that there are tiles."""

    def report_and_mark(done: int, total: int) -> None:
        _mark_use(p)
        if report is not None:
            report(done, total)

    return report_and_mark


def _mark_use(p: Any) -> None:
    record = p.__dict__.get(ATTRIBUTE)
    if record is not None:
        record.mark_used("vae_tiling")


def _tiling_host() -> Any:
    """The module with the host's own flag; None on a host that cannot tile."""
    modules = (sys.modules.get(name) for name in MEMORY_MODULES)
    return next((module for module in modules if hasattr(module, FLAG)), None)


@contextmanager
def _flag_raised(module: Any) -> Iterator[None]:
    """The host's flag up. It may be up already: Forge has a page element for it."""
    previous = getattr(module, FLAG)
    setattr(module, FLAG, True)
    try:
        yield
    finally:
        setattr(module, FLAG, previous)


def _decoder(sd_model: Any) -> Any:
    return getattr(vae_of(sd_model), "decoder", None)


def _halves(sd_model: Any) -> list[nn.Module]:
    halves = (getattr(vae_of(sd_model), name, None) for name in ("encoder", "decoder"))
    return [half for half in halves if isinstance(half, nn.Module)]


@contextmanager
def _seeded(source: torch.Generator, device: torch.device) -> Iterator[None]:
    """Torch's generators of the CPU and of `device` start from the seed of `source` inside the `with`.

    The host's encoder draws from them, and some of its forms cannot be asked for the mean instead. Those of other
    devices are left alone, and so is the choice of the current one: the host may work on the second.
    """
    generators = seeding.global_generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(source.initial_seed())
        yield
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)
