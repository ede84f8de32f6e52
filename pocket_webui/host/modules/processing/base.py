"""Part of what mirrors modules/processing.py: what txt2img and img2img have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from modules import devices, extra_networks, rng, shared
from modules.processing.conds import Conditioning, empty_cache
from modules.shared import opts, state

LEFT_OPEN = ("s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise")
"""sampler parameters that come from the settings where a job says nothing"""


def one_each(value: Any, count: int) -> list[Any]:
    """`value` for every image of a job; a list has one entry per image already."""
    return value if isinstance(value, list) else [value] * count


class JobState:
    """What is filled in while a job runs; the constructor takes none of it."""

    # the job
    is_api: bool = False
    comments: Any = None
    user: str | None = None
    scripts_value: Any = None
    script_args_value: Any = None
    scripts_setup_complete: bool = False
    sd_model_name: str | None = None
    sd_model_hash: str | None = None
    sd_vae_name: str | None = None
    sd_vae_hash: str | None = None
    main_prompt: Any = None
    main_negative_prompt: Any = None
    all_prompts: Any = None
    all_negative_prompts: Any = None
    all_seeds: Any = None
    all_subseeds: Any = None
    paste_to: tuple | None = None
    # its current batch
    iteration: int = 0
    batch_index: int = 0
    prompts: Any = None
    negative_prompts: Any = None
    seeds: Any = None
    subseeds: Any = None
    extra_network_data: Any = None
    rng: Any = None
    sampler: Any = None
    c: Any = None
    uc: Any = None
    firstpass_steps: int = 0
    is_hr_pass: bool = False


@dataclass(repr=False)
class StableDiffusionProcessing(JobState, Conditioning):
    """One job. `init` readies what all batches share, `sample` makes one batch."""

    sd_model: Any = None
    prompt: Any = ""
    negative_prompt: Any = ""
    styles: list[str] | None = None
    width: int = 512
    height: int = 512
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    sampler_name: str | None = None
    scheduler: str | None = None
    denoising_strength: Any = None
    seed: Any = -1
    subseed: Any = -1
    subseed_strength: float = 0
    seed_resize_from_w: int = -1
    seed_resize_from_h: int = -1
    seed_enable_extras: bool = True
    eta: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmin: float | None = None
    s_tmax: float | None = None
    s_noise: float | None = None
    tiling: bool | None = None
    restore_faces: bool | None = None
    firstpass_image: Any = None
    override_settings: Any = None
    override_settings_restore_afterwards: bool = True
    disable_extra_networks: bool = False
    extra_generation_params: Any = None
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False

    enable_hr = False
    token_merging_ratio = 0.0
    token_merging_ratio_hr = 0.0
    # shared by all jobs, so that an unchanged prompt is not encoded again
    cached_uc: ClassVar[list] = empty_cache()
    cached_c: ClassVar[list] = empty_cache()

    def __post_init__(self) -> None:
        self.comments = {}
        for name, kind in (
            ("styles", list),
            ("extra_generation_params", dict),
            ("override_settings", dict),
            ("script_args", dict),
        ):
            if not getattr(self, name):
                setattr(self, name, kind())
        if not self.seed_enable_extras:
            self.subseed, self.subseed_strength = -1, 0
            self.seed_resize_from_h = self.seed_resize_from_w = 0

    def fill_fields_from_opts(self) -> None:
        """Sampler parameters that were left open."""
        vars(self).update({name: getattr(opts, name) for name in LEFT_OPEN if getattr(self, name) is None})
        self.s_tmax = self.s_tmax or float("inf")

    # -- scripts

    @property
    def scripts(self) -> Any:
        return self.scripts_value

    @scripts.setter
    def scripts(self, runner: Any) -> None:
        self._know(scripts_value=runner)

    @property
    def script_args(self) -> Any:
        return self.script_args_value

    @script_args.setter
    def script_args(self, values: Any) -> None:
        self._know(script_args_value=values)

    def _know(self, **given: Any) -> None:
        """Lets the scripts set themselves up as soon as both they and their arguments are known."""
        vars(self).update(given)
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.setup_scripts()

    def setup_scripts(self) -> None:
        self.scripts_setup_complete = True
        self.scripts.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        """A line for the user, shown under the image."""
        self.comments[text] = 1

    # -- prompts

    def setup_prompts(self) -> None:
        """One prompt and negative prompt per image of the job, styles applied."""
        count = self.batch_size * self.n_iter
        if isinstance(self.negative_prompt, list) and not isinstance(self.prompt, list):
            count = len(self.negative_prompt)
        prompts = one_each(self.prompt, count)
        negative = one_each(self.negative_prompt, len(prompts))
        if len(prompts) != len(negative):
            raise RuntimeError(
                f"there must be as many negative prompts as prompts, not {len(negative)} and {len(prompts)}"
            )
        self.all_prompts, self.all_negative_prompts = self.apply_styles(prompts, negative)
        self.main_prompt, self.main_negative_prompt = self.all_prompts[0], self.all_negative_prompts[0]

    def apply_styles(self, prompts: list[str], negative: list[str]) -> tuple[list[str], list[str]]:
        known, names = shared.prompt_styles, self.styles or []
        return (
            [known.apply_styles_to_prompt(text, names) for text in prompts],
            [known.apply_negative_styles_to_prompt(text, names) for text in negative],
        )

    def batch_of(self, values: list[Any]) -> list[Any]:
        """The part of a job-long list that belongs to the current batch."""
        first = self.iteration * self.batch_size
        return values[first : first + self.batch_size]

    def parse_extra_network_prompts(self) -> None:
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def activate_extra_networks(self, data: Any) -> None:
        """Switches on what the prompts of a pass name, unless the job has that disabled."""
        if self.disable_extra_networks:
            return
        with devices.autocast():
            extra_networks.activate(self, data)

    # -- a batch

    def setup_conds(self) -> None:
        """Conditionings of the current batch."""
        self.firstpass_steps = self.calls_of(self.sampler_name, self.steps)
        self.c, self.uc = self.conds_of(
            (self.prompts, self.negative_prompts),
            (self.width, self.height),
            ([self.cached_c], [self.cached_uc]),
            self.firstpass_steps,
            self.extra_network_data,
        )

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Before the first batch."""

    def make_rng(self, shape: Any) -> rng.ImageRNG:
        """Noise source of the current batch for latents of that shape [C, h, w]."""
        resize = (self.seed_resize_from_h, self.seed_resize_from_w)
        return rng.ImageRNG(shape, self.seeds, self.subseeds, self.subseed_strength, *resize)

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """Latents of one batch, or the images that a second pass makes of them."""
        samples, decoded = self.first_pass(conditioning, unconditional_conditioning)
        if not self.enable_hr:
            return samples
        return self.sample_hr_pass(samples, decoded, seeds, subseeds, subseed_strength, prompts)

    def first_pass(self, cond: Any, uncond: Any) -> tuple[Tensor | None, Tensor | None]:
        """(latents, None), or (None or latents, images) if a second pass wants images."""
        raise NotImplementedError

    def sample_hr_pass(self, samples: Any, decoded_samples: Any, *batch: Any) -> Any:
        raise NotImplementedError

    def tell_scripts_before_sampling(self, x: Tensor, noise: Tensor, cond: Any, uncond: Any) -> None:
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(p=self, x=x, noise=noise, c=cond, uc=uncond)

    def save_samples(self) -> bool:
        """Whether images of the current batch go to disk."""
        if self.do_not_save_samples or not opts.samples_save:
            return False
        return opts.save_incomplete_images or not (state.interrupted or state.skipped)

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        return (self.token_merging_ratio_hr if for_hr else 0) or self.token_merging_ratio

    def close(self) -> None:
        self.sampler = self.c = self.uc = None
        if not opts.persistent_cond_cache:
            for cache in (self.cached_c, self.cached_uc):
                cache[:] = empty_cache()


def _model_in_use(self: StableDiffusionProcessing) -> Any:
    return shared.sd_model


# The field of that name is accepted by the constructor and ignored: a job always uses the model that is
# loaded.
setattr(StableDiffusionProcessing, "sd_model", property(_model_in_use, lambda self, value: None))  # noqa: B010
