"""What the hosts with a model patcher share (Forge, Neo, reForge, Classic): `sd_model.forge_objects`.

Every sampler call starts from the patcher as it was after LoRA; other scripts then add their patches, and
ours are laid on top, on a clone that is in place only while the sampler runs.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from modules import shared
from torch import Tensor, nn

from scalediff.hosts.patcher.levels import NoiseLevels
from scalediff.hosts.patcher.models import PatcherModel, is_unet, map_transformer, map_unet, why_not_size
from scalediff.hosts.patcher.references import init_picture_left_out, references_kept
from scalediff.hosts.patcher.transformer import (
    Found,
    find,
    joint_window,
    unet_in_place,
    windowed_now,
    with_wrapper,
)
from scalediff.hosts.patcher.unet import PatcherWindows, windowed_layers
from scalediff.hosts.webui import changes
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.memory import attention_room
from scalediff.hosts.webui.sampling import no_refiner, whole_schedule
from scalediff.method import flow, schedule, seeding
from scalediff.method.cascade import Stage
from scalediff.method.geometry import Cells, patch_length
from scalediff.models.families import family_of
from scalediff.models.family import Family
from scalediff.models.inspection import ModelMap, layer_window
from scalediff.models.windowed_transformer import JointWindow
from scalediff.models.windowed_unet import Shift
from scalediff.settings.preferences import attention_choice

SAME_MODULES = ["Use same choices"]
LEVELS = "_scalediff_levels"  # on a job: the model's noise levels before it, a `NoiseLevels`


class PatcherHost(WebUIHost):
    """A host whose model lies behind `p.sd_model.forge_objects.unet`."""

    before_hr_patches = (
        False  # Forge and Neo start from LoRA after it (Forge modules/processing.py:1509-1518)
    )

    # --- what one dialect does in its own way

    @classmethod
    @abstractmethod
    def kernel(cls) -> tuple[ModuleType, str]:
        """Module and name of the host's attention function for UNets."""

    @classmethod
    @abstractmethod
    def model_of(cls, sd_model: Any) -> PatcherModel:
        """What is loaded."""

    @classmethod
    @abstractmethod
    def noise_schedule(cls, sd_model: Any) -> Any:
        """What holds the model's noise levels: the table `sigmas`, and sigma(timestep) of a UNet."""

    # --- the model

    @classmethod
    def inspect(cls, sd_model: Any) -> ModelMap:
        """The map of what is loaded now."""
        loaded = cls.model_of(sd_model)
        if is_unet(loaded.network):
            return map_unet(loaded)
        family = family_of(loaded.network)
        return map_transformer(loaded, family, reachable=family is not None and find(family) is not None)

    @classmethod
    def why_not_size(cls, sd_model: Any, latent_size: Cells) -> str | None:
        """Why the model cannot be run on a latent of this size at all; None where it can."""
        network = cls.model_of(sd_model).network
        return None if is_unet(network) else why_not_size(network, family_of(network), latent_size)

    # --- the job

    @classmethod
    def prepare_job(cls, p: Any) -> None:
        """Two things on which the host would fail.

        An API request need not name the modules of the second pass: they are None then. The picture that the
        gallery hands over to be upscaled has an alpha channel, which no VAE takes (Forge, a latent upscaler).
        """
        if getattr(p, "hr_additional_modules", SAME_MODULES) is None:
            p.hr_additional_modules = list(SAME_MODULES)
        picture = getattr(p, "firstpass_image", None)
        if picture is not None:
            p.firstpass_image = picture.convert("RGB")

    @classmethod
    def accept_job(cls, p: Any) -> None:
        """Note the model's noise levels before the job changes them, and keep the CFG for the second pass.

        An API request that gives that pass no CFG of its own gets the host's defaults, 1.0 (no negative
        prompt) and 3.5; its page always sends both.
        """
        setattr(p, LEVELS, NoiseLevels(cls.noise_schedule(p.sd_model)))
        if not getattr(p, "is_api", False):
            return
        if getattr(p, "hr_cfg", None) == 1.0:
            changes.change(p, hr_cfg=p.cfg_scale)
        if getattr(p, "hr_distilled_cfg", None) == 3.5 and getattr(p, "distilled_cfg_scale", None):
            changes.change(p, hr_distilled_cfg=p.distilled_cfg_scale)

    @classmethod
    def leave_job(cls, p: Any) -> None:
        """The noted levels are of no use afterwards."""
        p.__dict__.pop(LEVELS, None)

    @classmethod
    @contextmanager
    def replaced_pass(cls, p: Any, shift: float | None) -> Iterator[None]:
        """The time shift of the pass, where the host has one for the loaded model: it moves the noise levels.

        (Neo modules/processing.py:1517 and 1969, backend/diffusion_engine/base.py:106.)
        """
        with cls._levels_put_back(p), init_picture_left_out(p.sd_model):
            set_shift = getattr(p.sd_model, "set_shift", None)
            if set_shift is not None and shift is not None:
                set_shift(shift=shift)
            yield

    @classmethod
    @contextmanager
    def references_kept(cls, sd_model: Any) -> Iterator[None]:
        """What these hosts' editing models remember of a picture, or make of it with the next prompt, is forgotten."""
        with references_kept(sd_model):
            yield

    def unet(self) -> nn.Module:
        """The network behind the patcher."""
        return self.p.sd_model.forge_objects.unet.model.diffusion_model

    def schedule(self, sampler: Any, stage: Stage, sigma: float) -> Tensor:
        """As on other hosts; a flow model gets its own spacing where the host's is not one of flow levels.

        Forge's "Automatic" counts in timesteps there.
        """
        if self.prediction != "flow":
            return super().schedule(sampler, stage, sigma)
        full = whole_schedule(sampler, self.p, tau=stage.tau, steps=stage.steps)
        if float(full.max()) > 1 + 1e-3:
            return flow.flow_stage_sigmas(stage.tau, stage.steps, self.mu())
        return schedule.stage_sigmas(full, sigma, stage.steps)

    def sigma(self, tau: float) -> float:
        """Noise level of timestep tau on the model's own axis; for flow models tau counts before the shift."""
        if self.prediction == "flow":
            return flow.sigma_of_tau(tau, self.mu())
        return float(self.noise_schedule(self.p.sd_model).sigma(torch.tensor(float(tau))))

    def mu(self) -> float:
        """Time shift of the loaded flow model."""
        return flow.mu_of_levels(self.noise_schedule(self.p.sd_model).sigmas)

    @contextmanager
    def window_scope(self) -> Iterator[None]:
        """Refiner off; token merging is off because nobody switches it on for a sampler call of ours."""
        with no_refiner(self.p):
            yield

    def before_pass(self) -> None:
        """Where the host lets `before_hr` patch the model, it gets the patcher as it was after LoRA."""
        if self.before_hr_patches:
            self._start_from_lora()
        super().before_pass()

    def before_sampling(self, reference: Tensor, noise: Tensor) -> Tensor:
        """The patcher as it was after LoRA, then the other scripts, one of which may change the noise."""
        if not self.before_hr_patches:
            self._start_from_lora()
        noise = super().before_sampling(reference, noise)
        modified, self.p.modified_noise = getattr(self.p, "modified_noise", None), None
        return noise if modified is None else modified

    def _start_from_lora(self) -> None:
        sd_model = self.p.sd_model
        sd_model.forge_objects = sd_model.forge_objects_after_applying_lora.shallow_copy()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """As on other hosts; after an exception the model has its own noise levels again, in Direct mode too."""
        with self._levels_put_back(self.p), super().installed():
            yield

    @classmethod
    @contextmanager
    def _levels_put_back(cls, p: Any) -> Iterator[None]:
        """After an exception the model has the noise levels that it had before the job.

        For zero terminal SNR these hosts exchange them around `p.sample` and do not put them back when that
        raises (Forge modules/processing.py:985-997, reForge 1077-1096): every later picture would change.
        """
        try:
            yield
        except BaseException:
            levels = getattr(p, LEVELS, None)
            if levels is not None and levels.holder is cls.noise_schedule(p.sd_model):
                levels.put_back()
            raise

    # --- attention

    @contextmanager
    def windows(self, stage: Stage) -> Iterator[None]:
        """Windowed self-attention on a clone of the patcher that is in place now."""
        self.rows.restart()
        unet = self.p.sd_model.forge_objects.unet
        windows: PatcherWindows | JointWindow
        if self.model_map.layers:
            windows = self._unet_windows(stage)
            patched = windows.patched(unet)
        else:
            family, found = self._transformer()
            windows = self._joint_window(stage, family, found)
            patched = with_wrapper(unet, windows, family, found)
        with unet_in_place(self.p.sd_model, patched):
            yield
        self.note_windows(stage, windows.calls, windows.fallbacks)

    def windowed_now(self) -> tuple[int, int]:
        """Counted in the patcher's options, or by the function that a transformer's blocks call."""
        layers = self.model_map.layers
        if layers:
            return windowed_layers(self.p.sd_model.forge_objects.unet, self.model_map), len(layers)
        family = family_of(self.unet())
        return (0, 0) if family is None else windowed_now(self.unet(), family, find(family))

    def _transformer(self) -> tuple[Family, Found]:
        family = family_of(self.unet())
        found = None if family is None else find(family)
        assert family is not None  # a model that is not known,
        assert found is not None  # or whose functions are not found, is refused
        return family, found

    def _unet_windows(self, stage: Stage) -> PatcherWindows:
        window = self.window()
        return PatcherWindows(
            self.model_map,
            window,
            kernel=self.kernel(),
            shift=self.shift(stage, window),
            room=self._room(stage),
            choice=attention_choice(shared.opts),
        )

    def _joint_window(self, stage: Stage, family: Family, found: Found) -> JointWindow:
        window = self.window()
        return joint_window(
            self.unet(),
            family,
            found,
            window=window,
            latent_size=stage.latent_size,
            choice=attention_choice(shared.opts),
            shift=self._joint_shift(stage, layer_window(window, family.patch)),
            room=self._room(stage),
        )

    def _room(self, stage: Stage) -> int | None:
        """Bytes that attention may take."""
        return attention_room(self.p, self.unet(), self.model_map, stage.latent_size)

    def _joint_shift(self, stage: Stage, window: Cells) -> Shift | None:
        """As `shift`, for layers that all have one and the same window, in tokens."""
        if not self.config.shift:
            return None
        patch = (patch_length(window[0]), patch_length(window[1]))
        return lambda layer: seeding.shift_offsets(
            self.p.seeds, patch, stage=stage.index, layer=layer, step=self.rows.steps
        )
