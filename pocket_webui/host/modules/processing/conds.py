"""Part of what mirrors modules/processing.py: what a job's model calls are conditioned on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from modules import devices, prompt_parser, sd_samplers, shared
from modules.shared import opts


def txt2img_image_conditioning(sd_model: Any, x: Tensor, width: int, height: int) -> Tensor:
    """The placeholder [B, 5, 1, 1] that models without image conditioning are given."""
    return x.new_zeros(x.shape[0], 5, 1, 1)


def empty_cache() -> list:
    """[parameters, result] of `get_conds_with_caching`."""
    return [None, None]


class Conditioning:
    """Base of jobs: conditionings of their prompts, made once as long as nothing they depend on changes."""

    sd_model: Any
    width: int
    height: int

    def txt2img_image_conditioning(
        self, x: Tensor, width: int | None = None, height: int | None = None
    ) -> Tensor:
        return txt2img_image_conditioning(self.sd_model, x, width or self.width, height or self.height)

    def img2img_image_conditioning(
        self,
        source_image: Tensor,
        latent_image: Tensor,
        image_mask: Any = None,
        round_image_mask: bool = True,
    ) -> Tensor:
        """Placeholder, as in txt2img: the pocket model is conditioned on text only."""
        return txt2img_image_conditioning(self.sd_model, latent_image, self.width, self.height)

    def cached_params(
        self,
        required_prompts: Any,
        steps: int,
        extra_network_data: Any,
        hires_steps: int | None = None,
        use_old_scheduling: bool = False,
    ) -> tuple:
        """What conditionings depend on, apart from the model's weights changing under a script."""
        timing = (steps, hires_steps, use_old_scheduling)
        model = (shared.sd_model.sd_checkpoint_info, extra_network_data)
        text = (required_prompts, opts.emphasis, opts.CLIP_stop_at_last_layers)
        return (*text, *timing, *model, self.width, self.height)

    def get_conds_with_caching(
        self,
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[list],
        extra_network_data: Any,
        hires_steps: int | None = None,
    ) -> Any:
        """function(model, prompts, steps, hires_steps, old scheduling), or its result in one of the `caches`.

        A cache is [parameters, result]; a new result goes into the first one.
        """
        old = opts.use_old_scheduling
        params = self.cached_params(required_prompts, steps, extra_network_data, hires_steps, old)
        for known, result in caches:
            if known == params:
                return result
        with devices.autocast():
            result = function(shared.sd_model, required_prompts, steps, hires_steps, old)
        caches[0][:] = [params, result]
        return result

    def conds_of(
        self, prompts: tuple[list[str], list[str]], size: tuple[int, int], caches: tuple, *args: Any
    ) -> tuple[Any, Any]:
        """(cond, uncond) of (prompts, negative prompts) at a size in pixels.

        `caches`: lists of caches for either. `args`: steps and extra networks for `get_conds_with_caching`.
        """
        steps, data, *hires = args
        made = []
        for texts, known, function, negative in (
            (prompts[1], caches[1], prompt_parser.get_learned_conditioning, True),
            (prompts[0], caches[0], prompt_parser.get_multicond_learned_conditioning, False),
        ):
            wanted = prompt_parser.SdConditioning(
                texts, is_negative_prompt=negative, width=size[0], height=size[1]
            )
            made.append(self.get_conds_with_caching(function, wanted, steps, known, data, *hires))
        uncond, cond = made
        return cond, uncond

    def calls_of(self, sampler_name: str | None, steps: int) -> int:
        """Model calls that so many steps of a sampler make."""
        config = sd_samplers.find_sampler_config(sampler_name)
        return config.total_steps(steps) if config else steps
