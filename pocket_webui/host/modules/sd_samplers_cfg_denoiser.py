"""Mirrors modules/sd_samplers_cfg_denoiser.py: classifier-free guidance around the model, with the script
hooks.

Batch order is that of the host: the rows of all conds (several per image with AND), then one uncond row per
image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from modules import prompt_parser, sd_samplers_common, shared
from modules.script_callbacks import (
    AfterCFGCallbackParams,
    CFGDenoisedParams,
    CFGDenoiserParams,
    cfg_after_cfg_callback,
    cfg_denoised_callback,
    cfg_denoiser_callback,
)
from modules.scripts.base import MaskBlendArgs
from modules.shared import opts, state

Conds = list[list[tuple[int, float]]]


class _Rows(NamedTuple):
    """What the model is called with, apart from text: one row per call of an image with one prompt."""

    x: Tensor
    sigma: Tensor
    image_cond: Tensor

    def part(self, start: int | None, end: int | None) -> _Rows:
        return _Rows(*(tensor[start:end] for tensor in self))


class CFGDenoiser(torch.nn.Module):
    """What a sampler calls as its model. Returns x0 or eps, whatever `inner_model` returns.

    `step` counts calls; `steps` is the number of sampler steps and `total_steps` of calls that are expected.
    """

    mask_before_denoising = False
    need_last_noise_uncond = False
    cond_scale_miltiplier = 1.0  # spelled as in the host; DDIM CFG++ sets it

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self.sampler = sampler
        self.model_wrap: Any = None
        self.p: Any = None
        self.mask: Any = None
        self.nmask: Any = None
        self.init_latent: Any = None
        self.steps: int | None = None
        self.total_steps: int | None = None
        self.step = 0
        self.padded_cond_uncond = self.padded_cond_uncond_v0 = False
        self.last_noise_uncond: Tensor | None = None

    @property
    def inner_model(self) -> Any:
        raise NotImplementedError

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        return x_out

    def combine_denoised(self, x_out: Tensor, conds_list: Conds, uncond: Any, cond_scale: float) -> Tensor:
        """uncond + sum over conds of weight * scale * (cond - uncond), per image."""
        base = x_out[-uncond.shape[0] :]
        guided = []
        for own, conds in zip(base, conds_list):
            image = own
            for row, weight in conds:
                image = image + (x_out[row] - own) * (weight * cond_scale)
            guided.append(image)
        return torch.stack(guided)

    # -- lengths of prompts

    def _even_out(self, text: Tensor, uncond: Tensor) -> tuple[Tensor, Tensor]:
        """Both [*, T, C] at one length T, if settings want that and they are not."""
        differ = text.shape[1] != uncond.shape[1]
        self.padded_cond_uncond_v0 = differ and opts.pad_cond_uncond_v0
        self.padded_cond_uncond = differ and opts.pad_cond_uncond and not self.padded_cond_uncond_v0
        if self.padded_cond_uncond_v0:
            # the older way: the last token of uncond is repeated, or what is too much cut off
            last = torch.arange(text.shape[1], device=uncond.device).clamp(max=uncond.shape[1] - 1)
            return text, uncond[:, last]
        if self.padded_cond_uncond:
            length = max(text.shape[1], uncond.shape[1])
            return _pad(text, length), _pad(uncond, length)
        return text, uncond

    # -- one call

    def _blend(self, latent: Tensor, sigma: Tensor) -> Tensor:
        """Original content where the mask protects it."""
        blended = latent * self.nmask + self.init_latent * self.mask
        if self.p.scripts is None:
            return blended
        args = MaskBlendArgs(
            latent, self.nmask, self.init_latent, self.mask, blended, denoiser=self, sigma=sigma
        )
        self.p.scripts.on_mask_blend(self.p, args)
        return args.blended_latent

    def _skips_uncond(self, sigma: Tensor, s_min_uncond: float) -> bool:
        """Whether settings leave the negative prompt out of this call; what took effect goes into
        infotext."""
        early, every = opts.skip_early_cond, opts.s_min_uncond_all
        taken: dict[str, Any] = {}
        if early and self.total_steps and self.step / self.total_steps <= early:
            taken["Skip Early CFG"] = early
        elif 0 < s_min_uncond > sigma[0] and (every or self.step % 2):
            taken["NGMS"] = s_min_uncond
            if every:
                taken["NGMS all steps"] = every
        self.p.extra_generation_params.update(taken)
        return bool(taken)

    def _run_model(self, rows: _Rows, texts: list[tuple[Tensor, int]]) -> Tensor:
        """Output for all rows. Texts of one length come together, each with the rows per call it is cut
        into."""
        outputs = []
        for text, size in texts:
            for piece in text.split(size):
                ours, rows = rows.part(None, len(piece)), rows.part(len(piece), None)
                cond = {"c_crossattn": [piece], "c_concat": [ours.image_cond]}
                outputs.append(self.inner_model(ours.x, ours.sigma, cond=cond))
        return torch.cat(outputs)

    def _predict(self, rows: _Rows, text: Tensor, uncond: Tensor | None, images: int) -> Tensor:
        """In one call where lengths agree and opts.batch_cond_uncond allows, else in parts of as many rows as
        there are images. `uncond` is None where its rows are left out."""
        if uncond is not None and text.shape[1] != uncond.shape[1]:
            size = 2 * images if opts.batch_cond_uncond else images
            return self._run_model(rows, [(text, size), (uncond, images)])
        every = text if uncond is None else torch.cat([text, uncond])
        return self._run_model(rows, [(every, len(every) if opts.batch_cond_uncond else images)])

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        uncond: Any,
        cond: Any,
        cond_scale: float,
        s_min_uncond: float,
        image_cond: Tensor,
    ) -> Tensor:
        """Guided prediction for `x` [B, C, h, w] at `sigma` [B] (a timestep in CFGDenoiserTimesteps)."""
        if state.interrupted or state.skipped:
            raise sd_samplers_common.InterruptedException
        composition, text = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        images = len(composition)
        if self.mask is not None and self.mask_before_denoising:
            x = self._blend(x, sigma)
        owners = [i for i, conds in enumerate(composition) for _ in conds] + list(range(images))
        progress = (state.sampling_step, state.sampling_steps)
        params = CFGDenoiserParams(
            *(x[owners], image_cond[owners], sigma[owners], *progress, text),
            prompt_parser.reconstruct_cond_batch(uncond, self.step),
            self,
        )
        cfg_denoiser_callback(params)
        rows = _Rows(params.x, params.sigma, params.image_cond)
        text, uncond = self._even_out(params.text_cond, params.text_uncond)
        firsts = [conds[0][0] for conds in composition]
        if self._skips_uncond(sigma, s_min_uncond):
            rows, cond_scale = rows.part(None, -images), 1.0
            x_out = self._predict(rows, text, None, images)
            x_out = torch.cat([x_out, x_out[firsts]])  # the cond output stands in for the uncond one
        else:
            x_out = self._predict(rows, text, uncond, images)
            cond_scale *= self.cond_scale_miltiplier
        cfg_denoised_callback(CFGDenoisedParams(x_out, *progress, self.inner_model))
        if self.need_last_noise_uncond:
            self.last_noise_uncond = x_out[-images:].clone()
        guided = self.combine_denoised(x_out, composition, uncond, cond_scale)
        if self.mask is not None and not self.mask_before_denoising:
            guided = self._blend(guided, sigma)
        self._store_preview(rows.x, x_out, guided, rows=firsts, sigma=sigma)
        after = AfterCFGCallbackParams(guided, *progress)
        cfg_after_cfg_callback(after)
        self.step += 1
        return after.x

    def _store_preview(
        self, x_in: Tensor, x_out: Tensor, denoised: Tensor, *, rows: list[int], sigma: Tensor
    ) -> None:
        """Keeps the cond prediction for interrupts, and what opts.live_preview_content names for previews."""
        images = len(rows)
        self.sampler.last_latent = preview = self.get_pred_x0(x_in[rows], x_out[rows], sigma)
        if opts.live_preview_content == "Negative prompt":
            preview = self.get_pred_x0(x_in[-images:], x_out[-images:], sigma)
        elif opts.live_preview_content != "Prompt":
            preview = self.get_pred_x0(x_in[rows], denoised, sigma)
        sd_samplers_common.store_latent(preview)


def _pad(text: Tensor, length: int) -> Tensor:
    """`text` [B, T, C] filled up with the conditioning of the empty prompt."""
    empty = shared.sd_model.cond_stage_model_empty_prompt
    repeats = (length - text.shape[1]) // empty.shape[1]
    return torch.cat([text, empty.repeat(len(text), repeats, 1)], dim=1)
