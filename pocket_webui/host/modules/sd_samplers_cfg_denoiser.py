"""Mirrors modules/sd_samplers_cfg_denoiser.py: classifier-free guidance around the model, with the script
hooks.

Batch order is that of the host: the rows of all conds (several per image with AND), then one uncond row per
image.
"""

from __future__ import annotations

from typing import Any

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
from modules.shared import opts, state

Conds = list[list[tuple[int, float]]]


def catenate_conds(conds: list[Any]) -> Any:
    if not isinstance(conds[0], dict):
        return torch.cat(conds)
    return {key: torch.cat([cond[key] for cond in conds]) for key in conds[0]}


def subscript_cond(cond: Any, a: int, b: int) -> Any:
    return {key: value[a:b] for key, value in cond.items()} if isinstance(cond, dict) else cond[a:b]


def pad_cond(tensor: Any, repeats: int, empty: Tensor) -> Any:
    """`tensor` [B, T, C] followed by `repeats` times the conditioning of the empty prompt."""
    if isinstance(tensor, dict):
        tensor["crossattn"] = pad_cond(tensor["crossattn"], repeats, empty)
        return tensor
    return torch.cat([tensor, empty.repeat(tensor.shape[0], repeats, 1)], dim=1)


def make_condition_dict(cond: Any, image_cond: Tensor) -> dict[str, Any]:
    text = cond if isinstance(cond, dict) else {"c_crossattn": [cond]}
    return {**text, "c_concat": [image_cond]}


class CFGDenoiser(torch.nn.Module):
    """What a sampler calls as its model. Returns x0 or eps, whatever `inner_model` returns.

    `step` counts calls; `steps` is the number of sampler steps and `total_steps` of calls that are expected.
    """

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
        self.image_cfg_scale: float | None = None
        self.padded_cond_uncond = False
        self.padded_cond_uncond_v0 = False
        self.cond_scale_miltiplier = 1.0  # spelled as in the host; DDIM CFG++ sets it
        self.need_last_noise_uncond = False
        self.last_noise_uncond: Tensor | None = None
        self.mask_before_denoising = False

    @property
    def inner_model(self) -> Any:
        raise NotImplementedError

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        return x_out

    def update_inner_model(self) -> None:
        """After the model was exchanged in the middle of a pass."""
        self.model_wrap = None
        cond, uncond = self.p.get_conds()
        self.sampler.sampler_extra_args["cond"] = cond
        self.sampler.sampler_extra_args["uncond"] = uncond

    def combine_denoised(self, x_out: Tensor, conds_list: Conds, uncond: Any, cond_scale: float) -> Tensor:
        """uncond + sum over conds of weight * scale * (cond - uncond), per image."""
        base = x_out[-uncond.shape[0] :]
        denoised = base.clone()
        for i, conds in enumerate(conds_list):
            for row, weight in conds:
                denoised[i] += (x_out[row] - base[i]) * (weight * cond_scale)
        return denoised

    def pad_cond_uncond(self, cond: Any, uncond: Any) -> tuple[Any, Any]:
        """Fills the shorter of the two with empty prompts."""
        empty = shared.sd_model.cond_stage_model_empty_prompt
        missing = (cond.shape[1] - uncond.shape[1]) // empty.shape[1]
        self.padded_cond_uncond = missing != 0
        if missing < 0:
            return pad_cond(cond, -missing, empty), uncond
        return cond, pad_cond(uncond, missing, empty) if missing else uncond

    def pad_cond_uncond_v0(self, cond: Any, uncond: Any) -> tuple[Any, Any]:
        """Repeats the last token of uncond, or cuts it, to the length of cond."""
        text = uncond["crossattn"] if isinstance(uncond, dict) else uncond
        self.padded_cond_uncond_v0 = text.shape[1] != cond.shape[1]
        missing = max(cond.shape[1] - text.shape[1], 0)
        text = torch.cat([text, text[:, -1:].repeat(1, missing, 1)], dim=1)[:, : cond.shape[1]]
        if isinstance(uncond, dict):
            uncond["crossattn"] = text
            return cond, uncond
        return cond, text

    def _blend(self, latent: Tensor, sigma: Tensor) -> Tensor:
        """Original content where the mask protects it."""
        blended = latent * self.nmask + self.init_latent * self.mask
        if self.p.scripts is None:
            return blended
        from modules import scripts

        args = scripts.MaskBlendArgs(
            latent, self.nmask, self.init_latent, self.mask, blended, denoiser=self, sigma=sigma
        )
        self.p.scripts.on_mask_blend(self.p, args)
        return args.blended_latent

    def _skips_uncond(self, sigma: Tensor, s_min_uncond: float) -> bool:
        """Whether settings leave the negative prompt out of this call; what took effect goes into
        infotext."""
        params = self.p.extra_generation_params
        early = opts.skip_early_cond
        if early != 0.0 and self.total_steps and self.step / self.total_steps <= early:
            params["Skip Early CFG"] = early
            return True
        if (self.step % 2 or opts.s_min_uncond_all) and s_min_uncond > 0 and sigma[0] < s_min_uncond:
            params["NGMS"] = s_min_uncond
            if opts.s_min_uncond_all:
                params["NGMS all steps"] = opts.s_min_uncond_all
            return True
        return False

    def _pad(self, tensor: Any, uncond: Any) -> tuple[Any, Any]:
        self.padded_cond_uncond = self.padded_cond_uncond_v0 = False
        if tensor.shape[1] == uncond.shape[1]:
            return tensor, uncond
        if opts.pad_cond_uncond_v0:
            return self.pad_cond_uncond_v0(tensor, uncond)
        if opts.pad_cond_uncond:
            return self.pad_cond_uncond(tensor, uncond)
        return tensor, uncond

    def _call(self, x: Tensor, sigma: Tensor, cond: Any, image_cond: Tensor) -> Tensor:
        return self.inner_model(x, sigma, cond=make_condition_dict(cond, image_cond))

    def _run_model(
        self,
        x: Tensor,
        sigma: Tensor,
        image_cond: Tensor,
        *,
        tensor: Any,
        uncond: Any | None,
        batch_size: int,
    ) -> Tensor:
        """Output for all rows: in one call where lengths agree and opts.batch_cond_uncond allows, else in
        parts.

        `uncond` is None where its rows are left out.
        """
        count = x.shape[0]
        if uncond is None or tensor.shape[1] == uncond.shape[1]:
            cond = tensor if uncond is None else catenate_conds([tensor, uncond])
            size = count if opts.batch_cond_uncond else batch_size
            bounds = [(a, min(a + size, count)) for a in range(0, count, size)]
            parts = [
                self._call(x[a:b], sigma[a:b], subscript_cond(cond, a, b), image_cond[a:b]) for a, b in bounds
            ]
            return torch.cat(parts)
        size = batch_size * 2 if opts.batch_cond_uncond else batch_size
        rows = tensor.shape[0]
        bounds = [(a, min(a + size, rows)) for a in range(0, rows, size)]
        parts = [
            self._call(x[a:b], sigma[a:b], subscript_cond(tensor, a, b), image_cond[a:b]) for a, b in bounds
        ]
        last = uncond.shape[0]
        return torch.cat([*parts, self._call(x[-last:], sigma[-last:], uncond, image_cond[-last:])])

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
        conds_list, tensor = prompt_parser.reconstruct_multicond_batch(cond, self.step)
        uncond = prompt_parser.reconstruct_cond_batch(uncond, self.step)
        if self.mask_before_denoising and self.mask is not None:
            x = self._blend(x, sigma)

        batch_size = len(conds_list)
        owners = [i for i, conds in enumerate(conds_list) for _ in conds] + list(range(batch_size))
        params = CFGDenoiserParams(
            x[owners],
            image_cond[owners],
            sigma[owners],
            state.sampling_step,
            state.sampling_steps,
            tensor,
            uncond,
            self,
        )
        cfg_denoiser_callback(params)
        x_in, image_cond_in, sigma_in = params.x, params.image_cond, params.sigma
        tensor, uncond = params.text_cond, params.text_uncond

        skip_uncond = self._skips_uncond(sigma, s_min_uncond)
        if skip_uncond:
            x_in, sigma_in, image_cond_in = (
                x_in[:-batch_size],
                sigma_in[:-batch_size],
                image_cond_in[:-batch_size],
            )
        tensor, uncond = self._pad(tensor, uncond)
        x_out = self._run_model(
            x_in,
            sigma_in,
            image_cond_in,
            tensor=tensor,
            uncond=None if skip_uncond else uncond,
            batch_size=batch_size,
        )
        firsts = [conds[0][0] for conds in conds_list]
        if skip_uncond:
            x_out = torch.cat([x_out, x_out[firsts]])  # the cond output stands in for the uncond one
        cfg_denoised_callback(
            CFGDenoisedParams(x_out, state.sampling_step, state.sampling_steps, self.inner_model)
        )
        if self.need_last_noise_uncond:
            self.last_noise_uncond = x_out[-uncond.shape[0] :].clone()
        scale = 1.0 if skip_uncond else cond_scale * self.cond_scale_miltiplier
        denoised = self.combine_denoised(x_out, conds_list, uncond, scale)
        if not self.mask_before_denoising and self.mask is not None:
            denoised = self._blend(denoised, sigma)
        self._store_preview(x_in, x_out, denoised, rows=firsts, sigma=sigma)

        after = AfterCFGCallbackParams(denoised, state.sampling_step, state.sampling_steps)
        cfg_after_cfg_callback(after)
        self.step += 1
        return after.x

    def _store_preview(
        self, x_in: Tensor, x_out: Tensor, denoised: Tensor, *, rows: list[int], sigma: Tensor
    ) -> None:
        """Keeps the cond prediction for interrupts, and what opts.live_preview_content names for previews."""
        batch_size = len(rows)
        self.sampler.last_latent = self.get_pred_x0(x_in[rows], x_out[rows], sigma)
        if opts.live_preview_content == "Prompt":
            preview = self.sampler.last_latent
        elif opts.live_preview_content == "Negative prompt":
            preview = self.get_pred_x0(x_in[-batch_size:], x_out[-batch_size:], sigma)
        else:
            preview = self.get_pred_x0(x_in[rows], denoised, sigma)
        sd_samplers_common.store_latent(preview)
