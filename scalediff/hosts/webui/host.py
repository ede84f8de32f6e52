"""What the Hosts of all WebUIs share: VAE, upscaler, noise, sampler and progress of one pass.

A subclass says what its host does in its own way: which layers the model has, how attention is windowed,
what has to be prepared before the sampler is called.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from modules import devices, sd_samplers, shared
from modules.processing import decode_latent_batch
from torch import Tensor, nn

from scalediff.hosts.webui import vae
from scalediff.hosts.webui.conditioning import Conditioning
from scalediff.hosts.webui.control import hints_of_size
from scalediff.hosts.webui.guidance import GuidanceCallbacks
from scalediff.hosts.webui.job_record import DECODE, SAMPLE, working
from scalediff.hosts.webui.keep import keep
from scalediff.hosts.webui.latents import LatentForm, pictures_of
from scalediff.hosts.webui.pictures import resize_bicubic, resize_with_upscaler, save_stage
from scalediff.hosts.webui.rows import BatchRows
from scalediff.hosts.webui.sampling import (
    exact_schedule,
    fresh_noise,
    is_timestep_sampler,
    no_extra_noise,
    savings,
    schedule_of_size,
    stage_schedule,
    steps_of_pass,
)
from scalediff.hosts.webui.times import follow, measure
from scalediff.method import seeding
from scalediff.method.cascade import Stage, StagePlan
from scalediff.method.geometry import Cells, PixelSize, patch_length
from scalediff.method.guidance import Guidance
from scalediff.method.schedule import step_levels, without_last
from scalediff.models.feature_reuse import FeatureReuse, deep_blocks
from scalediff.models.inspection import ModelMap, layer_window
from scalediff.models.replacing import is_replaced
from scalediff.models.units import network_of
from scalediff.models.windowed_unet import Shift
from scalediff.settings import presets
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.planning import attention_window

log = logging.getLogger("scalediff")


PHASES = {"upscaling": "enlarging", "sampling": "drawing detail"}  # the cascade's words in those of the page


class WebUIHost(ABC):
    """Implements `scalediff.method.cascade.Host`; `run` the cascade inside `with host.installed()`.

    `sampler_name` and `upscaler` are the names that the user chose (upscaler None: plain bicubic),
    `conditionings` what each stage of the plan is sampled with; none where the host samples by itself.
    """

    name = "webui"
    calls_blocks = True  # whether a UNet's blocks are called as modules: else their features cannot be reused
    eps_from_timestep_samplers = False  # whether on_cfg_after_cfg shows eps for the DDIM family

    def __init__(
        self,
        p: Any,
        config: ScaleDiffConfig,
        model_map: ModelMap,
        plan: StagePlan,
        *,
        sampler_name: str,
        upscaler: str | None = None,
        conditionings: Sequence[Conditioning] = (),
    ):
        self.p, self.config, self.model_map, self.plan = p, config, model_map, plan
        self.sampler_name, self.upscaler, self.conditionings = sampler_name, upscaler, conditionings
        self.cond = self.uncond = None  # of the stage that runs
        self.prediction = model_map.prediction
        self.windowed_calls = self.reused = 0
        self.fallbacks: set[str] = set()
        self.rows = BatchRows(len(p.seeds))
        self.form = LatentForm.of(model_map)
        self.callbacks = GuidanceCallbacks(
            p, self.rows, shows_eps=self.eps_from_timestep_samplers, form=self.form
        )
        # what a stage's guidance is wrapped in beside its reference, set by `hold`
        self.held: Callable[[Stage, Tensor, Guidance], Guidance] = lambda stage, reference, guidance: guidance
        self._text, self._stage = "", 0

    # --- what a host does in its own way

    @classmethod
    def current(cls, model_data: Any) -> Any:
        """The model that the next picture is made with, out of `sd_models.model_data`; None if not loaded."""
        return model_data.sd_model

    @classmethod
    @abstractmethod
    def inspect(cls, sd_model: Any) -> ModelMap:
        """Which layers of the loaded model get windows, or why none."""

    @classmethod
    def why_not_size(cls, sd_model: Any, latent_size: Cells) -> str | None:
        """Why the model cannot be run on a latent of this size at all; None where it can."""
        return None

    @classmethod
    def fit_to_model(cls, sd_model: Any, config: ScaleDiffConfig) -> ScaleDiffConfig:
        """The settings as they suit the loaded model: what was left to the preset is filled in."""
        settled = presets.resolve(config, cls.inspect(sd_model).family)
        return settled if cls.reuses(sd_model) else replace(settled, feature_reuse=1)

    @classmethod
    def reuses(cls, sd_model: Any) -> bool:
        """Whether deep features can be reused: the network is a UNet that is so deep, and calls its blocks."""
        return cls.calls_blocks and bool(deep_blocks(network_of(sd_model)))

    @classmethod  # noqa: B027  # a host may need nothing here
    def prepare_job(cls, p: Any) -> None:
        """Correct values of `p` that this host would fail on, before a second pass is looked at."""

    @classmethod  # noqa: B027  # nor here
    def accept_job(cls, p: Any) -> None:
        """Correct values of `p` that would spoil the stages; called once the job is accepted."""

    @classmethod  # noqa: B027  # nor here
    def leave_job(cls, p: Any) -> None:
        """Take off what `accept_job` left on `p` for the time of the job."""

    @classmethod
    @contextmanager
    def replaced_pass(cls, p: Any, shift: float | None) -> Iterator[None]:
        """All that runs in place of a pass: what the host does first in it, and what it would not undo on an error.

        `shift` is what the host's *Shift* slider says for the pass.
        """
        yield

    @classmethod
    @contextmanager
    def references_kept(cls, sd_model: Any) -> Iterator[None]:
        """Inside the `with` pictures and texts are encoded for us: the user's reference pictures stay what they are."""
        yield

    @abstractmethod
    def unet(self) -> nn.Module:
        """The network that is called once for each piece of a denoiser call."""

    @abstractmethod
    def sigma(self, tau: float) -> float:
        """Noise level of timestep `tau`, read now: the host may change the schedule for an image."""

    @abstractmethod
    def window_scope(self) -> AbstractContextManager[None]:
        """Features of the host that would go round the windows, off inside the `with`."""

    @contextmanager
    def stage_scope(self) -> Iterator[None]:
        """Features of the host that would spoil a stage, off inside the `with`."""
        with self.window_scope(), no_extra_noise():
            yield

    @abstractmethod
    def windows(self, stage: Stage) -> AbstractContextManager[None]:
        """Windowed self-attention on the model that is loaded now."""

    def before_pass(self) -> None:
        """Tell the other scripts that a second pass begins, as the host does: some plan its steps there."""
        if self.p.is_hr_pass and self.p.scripts is not None:
            self.p.scripts.before_hr(self.p)

    def before_sampling(self, reference: Tensor, noise: Tensor) -> Tensor:
        """Let the other scripts prepare the model for this sampler call; returns the noise to use.

        Both in the host's form (`latents`).
        """
        if self.p.scripts is not None:
            self.p.scripts.process_before_every_sampling(
                p=self.p, x=reference, noise=noise, c=self.cond, uc=self.uncond
            )
        return noise

    def schedule(self, sampler: Any, stage: Stage, sigma: float) -> Tensor:
        """What the sampler will use: sigmas from `sigma` down to 0, or timesteps for the DDIM family."""
        return stage_schedule(sampler, self.p, tau=stage.tau, sigma=sigma, steps=stage.steps)

    def noising_input(self, reference: Tensor, sigma: float) -> Tensor:
        """What to hand to the sampler as the clean latent, for a host that noises in its own way."""
        return reference

    # --- one pass

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The host's callbacks and a counter on the network, for the whole pass."""
        counter = self.unet().register_forward_pre_hook(
            lambda module, inputs: self.rows.take(inputs[0].shape[0])
        )
        try:
            with self.callbacks.registered():
                yield
        finally:
            counter.remove()
            shared.state.textinfo = None
            devices.torch_gc()

    # --- progress

    def begin_stage(self, stage: Stage, count: int) -> None:
        """Next job on the progress bar. In img2img the first stage is the job that the host itself counts."""
        width, height = stage.size
        self._text = f"ScaleDiff stage {stage.index + 1} of {count}, {width}x{height}"
        self._stage = stage.index
        if stage.index > 0 or getattr(self.p, "enable_hr", False):
            shared.state.nextjob()

    def phase(self, text: str) -> None:
        """Show what goes on between the sampler's steps."""
        shared.state.textinfo = f"{self._text}: {PHASES.get(text, text)}"

    def stopped(self) -> bool:
        """True once the user interrupted or skipped this image."""
        return bool(shared.state.interrupted or shared.state.skipped)

    # --- pixels and latents

    def decode(self, latent: Tensor) -> Tensor:
        """Latent `[B, C, h, w]` -> RGB `[B, 3, H, W]` fp32, about [-1, 1].

        The host's function moves a VAE that yields NaN to a wider type where it can; if that is no help it
        raises.
        """
        report = vae.progress(self, "decoding")
        at_work = working(self.p, DECODE, self._stage - 1)
        with at_work, vae.tiles(self.p, self.config, self.form.vae_cells(latent), self.form, report=report):
            decoded = decode_latent_batch(
                self.p.sd_model, self.form.outside(latent), target_device=latent.device, check_for_nans=True
            )
        rgb = pictures_of(torch.stack(list(decoded)))
        # what a stage starts from is the result of the one before
        keep(self.p, rgb, self.plan, self._stage - 1)
        if self._stage > 0:
            save_stage(self.p, rgb, self.plan, self.plan.stages[self._stage - 1])
        return rgb

    def upscale_rgb(self, rgb: Tensor, size: PixelSize) -> Tensor:
        """RGB to `size`: by the chosen pixel upscaler, or bicubic on the unclamped tensor."""
        if self.upscaler in (None, "None"):
            return resize_bicubic(rgb, size)
        return resize_with_upscaler(rgb, size, self.upscaler)

    def encode(self, rgb: Tensor, stage: Stage) -> Tensor:
        """RGB [-1, 1] -> latent fp32; the posterior is sampled with each image's own seed."""
        return self.encode_images(rgb, stage.index)

    def encode_images(self, rgb: Tensor, stage_index: int) -> Tensor:
        """Like `encode`, for a stage index: -1 is the base image of img2img."""
        return vae.encode(self, rgb, stage_index)

    # --- noise and sampling

    def denoise(self, reference: Tensor, stage: Stage, guidance: Guidance) -> Tensor:
        """Noise `reference` to sigma(tau) and run the host's sampler down to zero, windowed and guided.

        Returns the latent; after an interrupt whatever the host had then.
        """
        p = self.p
        if self.conditionings:
            self.cond, self.uncond = self.conditionings[stage.index]
        start = self.form.outside(reference)
        noise = fresh_noise(p, start)
        sampler = p.sampler = sd_samplers.create_sampler(self.sampler_name, p.sd_model)
        width, height = stage.size
        image_conditioning = p.txt2img_image_conditioning(start, width=width, height=height)
        sigma = self.sigma(stage.tau)
        with schedule_of_size(p, self.plan.base):
            values = without_last(self.schedule(sampler, stage.whole, sigma), stage.cut)
        at_work = working(p, SAMPLE, stage.index)
        told = steps_of_pass(p, stage.steps)
        with at_work, self.stage_scope(), hints_of_size(p, stage.size), told:
            self.before_pass()
            noise = self.before_sampling(start, noise)
            # windows after the scripts: whatever those put on the attention lies below ours
            with (
                self.windows(stage),
                self.savings(stage, sampler, values) as reuse,
                self.callbacks.using(self.held(stage, reference, guidance)),
                exact_schedule(sampler, p, values) as steps,
            ):
                measure(p, self.window(), reuse)
                follow(p)
                result = sampler.sample_img2img(
                    p,
                    self.noising_input(start, sigma),
                    noise,
                    self.cond,
                    self.uncond,
                    steps=steps,
                    image_conditioning=image_conditioning,
                )
        return self.form.inside(result)

    @contextmanager
    def savings(self, stage: Stage, sampler: Any, values: Tensor) -> Iterator[FeatureReuse]:
        """What the settings leave out of a stage to save time."""
        levels = step_levels(values, stage.steps)
        if is_timestep_sampler(sampler) and not self.eps_from_timestep_samplers:
            # this host's denoiser compares sigmas throughout
            levels = [self.sigma(level) for level in levels]
        with savings(self.p, self.config, levels=levels, unet=self.unet(), rows=self.rows) as reuse:
            yield reuse
        self.reused += reuse.reused

    # --- attention

    def window(self) -> Cells:
        """The attention window, in latent cells, that belongs to the base picture."""
        return attention_window(self.model_map.native_size, self.plan.base, self.config, cell=self.plan.cell)

    def shift(self, stage: Stage, window: Cells) -> Shift | None:
        """Random window shifts from each image's own seed, new in each layer and denoiser call (App. B.1)."""
        if not self.config.shift:
            return None
        sizes = [layer_window(window, layer.stride) for layer in self.model_map.layers]

        def offsets(layer: int) -> list[tuple[int, int]]:
            patch = (patch_length(sizes[layer][0]), patch_length(sizes[layer][1]))
            return seeding.shift_offsets(
                self.p.seeds, patch, stage=stage.index, layer=layer, step=self.rows.steps
            )

        return offsets

    def windowed_now(self) -> tuple[int, int]:
        """(layers that are windowed at this moment, self-attention layers of the model)."""
        layers = self.model_map.layers
        return sum(is_replaced(layer.module) for layer in layers), len(layers)

    def note_windows(self, stage: Stage, calls: int, fallbacks: Any) -> None:
        """Add up what a stage's attention did, and log it."""
        self.windowed_calls += calls
        self.fallbacks.update(fallbacks)
        log.debug(
            "stage %d/%d: %d windowed calls over %d model calls = %g per step",
            stage.index + 1,
            len(self.plan.stages),
            calls,
            self.rows.calls,
            calls / max(self.rows.calls, 1),
        )
