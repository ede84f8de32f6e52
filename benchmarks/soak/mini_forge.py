"""A small model behind a patcher, as Forge and its relatives keep it, for the campaign and the tests.

Mirrored, at lllyasviel/stable-diffusion-webui-forge dfdcbab6: backend/patcher/unet.py:25 `clone` deep-copies
model_options; backend/patcher/base.py:13 a replacement copies the dicts on its way, :170-178 their names;
backend/nn/unet.py:75-91 inner modifiers around each layer, :183-239 the block (keys (part, number, index),
else (part, number); q, k, v projected before a replacement is called), :316-322 block_index, :696-770 options
of a call; backend/modules/k_model.py:26 apply_model; backend/sampling/sampling_function.py:205-273 one call
for uncond and cond, uncond first, transformer_options copied, the wrapper. reForge 3b56b268 has the same,
save for the inner modifiers (ldm_patched/ldm/modules/diffusionmodules/openaimodel.py:869).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS, WIDTH, CONTEXT = 2, 8, 12


def attention_function(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, skip_reshape: bool = False
) -> Tensor:
    if not skip_reshape:
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class CrossAttention(nn.Module):
    def __init__(self, context: int = WIDTH) -> None:
        super().__init__()
        self.heads = HEADS
        self.to_q = nn.Linear(WIDTH, WIDTH, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, WIDTH, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        return self.to_out(attention_function(self.to_q(x), self.to_k(context), self.to_v(context), HEADS))


class BasicTransformerBlock(nn.Module):
    def __init__(self, context: int) -> None:
        super().__init__()
        self.disable_self_attn = False
        self.attn1, self.attn2 = CrossAttention(), CrossAttention(context)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, context: Tensor, options: dict[str, Any]) -> Tensor:
        extra = {key: value for key, value in options.items() if key not in ("patches", "patches_replace")}
        extra.update(n_heads=HEADS, dim_head=WIDTH // HEADS)
        n = k = v = self.norm1(x)
        for patch in options.get("patches", {}).get("attn1_patch", ()):
            n, k, v = patch(n, k, v, extra)
        block = options["block"]
        replace = options.get("patches_replace", {}).get("attn1", {})
        key = (*block, options["block_index"])
        key = key if key in replace else block
        if key in replace:
            n = replace[key](self.attn1.to_q(n), self.attn1.to_k(k), self.attn1.to_v(v), extra)
            n = self.attn1.to_out(n)
        else:
            n = self.attn1(n, k)
        x = x + n
        return x + self.attn2(self.norm2(x), context)


class SpatialTransformer(nn.Module):
    def __init__(self, depth: int, context: int) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(BasicTransformerBlock(context) for _ in range(depth))

    def forward(self, x: Tensor, context: Tensor, options: dict[str, Any]) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        for i, block in enumerate(self.transformer_blocks):
            options["block_index"] = i
            tokens = block(tokens, context, options)
        return tokens.transpose(1, 2).unflatten(2, x.shape[-2:])


class Downsample(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(WIDTH, WIDTH, 3, stride=2, padding=1)


class Upsample(nn.Module):
    def forward(self, x: Tensor, shape: torch.Size) -> Tensor:
        return F.interpolate(x, size=shape[-2:], mode="nearest")


class MiniUNet(nn.Module):
    """Two levels as in SDXL: depth 1 at half, depth 2 at a quarter of the latent's size."""

    def __init__(self, *, inner_modifiers: bool = True, context: int = CONTEXT) -> None:
        super().__init__()
        self.in_channels, self.inner_modifiers = 4, inner_modifiers
        seq = nn.Sequential
        self.input_blocks = nn.ModuleList(
            [
                seq(nn.Conv2d(4, WIDTH, 3, padding=1)),
                seq(Downsample()),
                seq(SpatialTransformer(1, context)),
                seq(Downsample()),
                seq(SpatialTransformer(2, context)),
            ]
        )
        self.middle_block = seq(nn.Identity(), SpatialTransformer(1, context))
        self.output_blocks = nn.ModuleList(
            [
                seq(SpatialTransformer(2, context)),
                seq(nn.Identity(), Upsample()),
                seq(SpatialTransformer(1, context)),
                seq(nn.Identity(), Upsample()),
                seq(nn.Conv2d(WIDTH, 4, 3, padding=1)),
            ]
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, transformer_options: dict[str, Any]
    ) -> Tensor:
        options, skips = transformer_options, []
        options["original_shape"] = list(x.shape)
        for i, block in enumerate(self.input_blocks):
            options["block"] = ("input", i)
            x = self._run(block, x, context, options, None)
            skips.append(x)
        options["block"] = ("middle", 0)
        x = self._run(self.middle_block, x, context, options, None)
        for i, block in enumerate(self.output_blocks):
            options["block"] = ("output", i)
            x = x + skips.pop()
            x = self._run(block, x, context, options, skips[-1].shape if skips else None)
        return x

    def _run(self, block: Any, x: Tensor, context: Tensor, options: dict, shape: Any) -> Tensor:
        modifiers = options.get("block_inner_modifiers", []) if self.inner_modifiers else []
        for i, layer in enumerate(block):
            for modifier in modifiers:
                x = modifier(x, "before", layer, i, block, options)
            if isinstance(layer, SpatialTransformer):
                x = layer(x, context, options)
            else:
                x = layer(x, shape) if isinstance(layer, Upsample) else layer(x)
            for modifier in modifiers:
                x = modifier(x, "after", layer, i, block, options)
        return x


class Prediction:
    """backend/modules/k_prediction.py:107-158 as far as it is read."""

    prediction_type = "epsilon"

    def __init__(self) -> None:
        self.sigmas = torch.linspace(0.01, 10, 1000)

    def set_sigmas(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas.float()

    def sigma(self, timestep: Tensor) -> Tensor:
        return self.sigmas[timestep.round().long()]


class KModel(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = network
        self.predictor = Prediction()

    def apply_model(self, x: Tensor, t: Tensor, c_crossattn: Tensor, transformer_options: dict) -> Tensor:
        return self.diffusion_model(x, t, context=c_crossattn, transformer_options=transformer_options)


class Patcher:
    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.model_options: dict[str, Any] = {"transformer_options": {}}

    def clone(self) -> Patcher:
        twin = Patcher(self.model)
        twin.model_options = copy.deepcopy(self.model_options)
        return twin

    def memory_required(self, shape: list[int]) -> float:
        return float(shape[0] * shape[2] * shape[3])

    def set_memory_peak_estimation_modifier(self, modifier: Callable) -> None:
        self.model_options["memory_peak_estimation_modifier"] = modifier

    def set_model_unet_function_wrapper(self, wrapper: Callable) -> None:
        self.model_options["model_function_wrapper"] = wrapper

    def set_model_attn1_patch(self, patch: Callable) -> None:
        self.model_options["transformer_options"].setdefault("patches", {}).setdefault(
            "attn1_patch", []
        ).append(patch)

    def set_model_attn1_replace(
        self, patch: Callable, block: str, number: int, transformer_index: int | None = None
    ) -> None:
        options = dict(self.model_options["transformer_options"])
        replace = dict(options.get("patches_replace", {}))
        replace["attn1"] = dict(replace.get("attn1", {}))
        key = (block, number) if transformer_index is None else (block, number, transformer_index)
        replace["attn1"][key] = patch
        options["patches_replace"] = replace
        self.model_options = {**self.model_options, "transformer_options": options}

    def add_block_inner_modifier(self, modifier: Callable) -> None:
        self.model_options["transformer_options"].setdefault("block_inner_modifiers", []).append(modifier)


def engine(network: nn.Module, **flags: Any) -> SimpleNamespace:
    """What the host calls sd_model."""
    return SimpleNamespace(forge_objects=SimpleNamespace(unet=Patcher(KModel(network))), **flags)


def call(unet: Patcher, x: Tensor, timestep: Tensor, context: Tensor, rows: list[int]) -> Tensor:
    """The model's answer, through the wrapper where there is one. `rows`: 1 for uncond, 0 for cond, in their order."""
    options = {**unet.model_options["transformer_options"], "cond_or_uncond": rows}
    c = {"c_crossattn": context, "transformer_options": options}
    wrapper = unet.model_options.get("model_function_wrapper")
    if wrapper is not None:
        return wrapper(unet.model.apply_model, {"input": x, "timestep": timestep, "c": c})
    return unet.model.apply_model(x, timestep, **c)


def sample_once(unet: Patcher, x: Tensor, context: Tensor) -> Tensor:
    """One denoiser call: uncond and cond rows in one model call."""
    both = torch.cat([torch.zeros_like(context), context])
    return call(unet, torch.cat([x, x]), torch.ones(2 * len(x)), both, [1, 0])
