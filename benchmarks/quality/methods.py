"""The methods that `benchmarks.quality` compares: a name, and what it changes in a job of the pocket WebUI.

What the product has no switch for (the paper's ablations, MultiDiffusion) replaces for a while what the cascade uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import unet_methods
from world.captions import Caption

NATIVE, STEPS, CFG, SAMPLER = 128, 20, 2.0, "DPM++ 2M"
FACTORS = (2, 4)
POOLED = 4  # tokens per side that stand for the whole canvas
Scope = Callable[[], AbstractContextManager[None]]

# The paper's recipe written out, so that it stays what it is whatever becomes of our defaults (3.2-3.4, App. A).
PAPER: dict[str, Any] = {
    "preset": "Custom",
    "tau": 400,
    "structure_strength": 1.0,
    "stage_factor": 2.0,
    "shift": False,
    "lfm_factor": 0.125,
    "sg_factor": 0.125,
    "window_multiple": 1.0,
    "negative_share": 1.0,
    "feature_reuse": 1,
    "hold": "Nothing",
    "keep_colours": False,
    "last_step_cut": 0,
}
# Free enough that objects do repeat: where an option against repetition can show what it does.
FREE: dict[str, Any] = {"tau": 700}
# What is cheaper, together
SAVINGS: dict[str, Any] = {"stage_steps": "8 4", "negative_share": 0.5, "feature_reuse": 2}


@contextmanager
def base_attention() -> Iterator[None]:
    """Global attention in place of windows: the row "Base" of the paper's Table 3."""
    with _windows_replaced(lambda unet: nullcontext()):
        yield


@contextmanager
def multi_diffusion() -> Iterator[None]:
    """The UNet sees native patches with 50 % overlap, averaged: the row "MultiDiffusion" of Table 3."""
    with _windows_replaced(patchwise):
        yield


@contextmanager
def no_mixing() -> Iterator[None]:
    """Without LFM the reference is the latent of the enlarged picture alone."""
    from scalediff.method import cascade

    def of_the_picture(
        low_from: Tensor, high_from: Tensor, factor: float, *, keep_mean: bool = False
    ) -> Tensor:
        return high_from

    mix = cascade.mix
    cascade.mix = of_the_picture
    try:
        yield
    finally:
        cascade.mix = mix


@contextmanager
def pooled_tokens() -> Iterator[None]:
    """Every window also sees the keys and values of the whole canvas, averaged into `POOLED` x `POOLED` tokens."""
    from scalediff.models import windowed_unet as windowed

    ordinary = windowed.neighborhood_attention

    def with_the_canvas(
        q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], window: Any, **how: Any
    ) -> Tensor:
        canvas = [_pooled(tokens, grid) for tokens in (k, v)]

        def attend(queries: Tensor, *seen: Tensor) -> Tensor:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(seen, canvas))
            return F.scaled_dot_product_attention(queries, keys, values)

        return ordinary(q, k, v, grid, window, **{**how, "attend": attend})

    windowed.neighborhood_attention = with_the_canvas
    try:
        yield
    finally:
        windowed.neighborhood_attention = ordinary


def _pooled(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, heads, H*W, D] of `grid` as [B, heads, POOLED * POOLED, D]."""
    planes = tokens.transpose(2, 3).flatten(0, 1).unflatten(2, grid)
    pooled = F.adaptive_avg_pool2d(planes, POOLED).flatten(2)
    return pooled.unflatten(0, tokens.shape[:2]).transpose(2, 3)


def full_precision() -> AbstractContextManager[None]:
    """fp32 throughout, as the product runs on a processor: what bfloat16 changes, where the other rows have it."""
    return torch.autocast("cpu", enabled=False)


@contextmanager
def _windows_replaced(scope: Callable[[Any], AbstractContextManager[None]]) -> Iterator[None]:
    """`scope(unet)` in place of windowed attention in every stage."""
    from scalediff.hosts.select import host_class

    host = host_class()
    windows = host.windows

    @contextmanager
    def replaced(self: Any, stage: Any) -> Iterator[None]:
        self.rows.restart()
        with scope(self.unet()):
            yield

    host.windows = replaced  # type: ignore[method-assign]
    try:
        yield
    finally:
        host.windows = windows  # type: ignore[method-assign]


@contextmanager
def patchwise(unet: Any) -> Iterator[None]:
    """Every call of `unet` on a latent larger than native becomes the mean of calls on overlapping patches."""
    side, forward = unet.image_size, unet.forward

    def averaged(x: Tensor, timesteps: Tensor, context: Tensor, **more: Any) -> Tensor:
        def call(patches: Tensor) -> Tensor:
            count = len(patches) // len(x)
            times, texts = timesteps.repeat(count), context.repeat(count, 1, 1)
            return forward(patches, times, context=texts, **more).to(x.dtype)

        return unet_methods.patchwise(call, x, side=side)

    unet.forward = averaged
    try:
        yield
    finally:
        del unet.forward


@dataclass(frozen=True)
class Method:
    """`settings` of the script (None: the host's own pass), `request` on top of the common one.

    Texts in `request` may name parts of the caption: "{ground_colour} {ground}". A cascade's first stage is its
    result at 2x; other methods are run at each size.
    """

    key: str
    label: str
    settings: Mapping[str, Any] | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    ablation: Scope = nullcontext
    hires: bool = True

    @property
    def cascade(self) -> bool:
        return self.settings is not None

    def body(self, caption: Caption, seed: int, factor: int) -> dict[str, Any]:
        """Request of /sdapi/v1/txt2img for one picture at `factor` times the native size."""
        side = NATIVE if self.hires else NATIVE * factor
        body = native_body(caption, seed) | {"width": side, "height": side}
        if self.hires:
            body |= {"enable_hr": True, "hr_scale": factor, "hr_upscaler": "None"}
        if self.settings is not None:
            body["alwayson_scripts"] = {"ScaleDiff": {"args": [{"enabled": True, **self.settings}]}}
        words = {k: v.format(**vars(caption)) if isinstance(v, str) else v for k, v in self.request.items()}
        return body | words


def native_body(caption: Caption, seed: int) -> dict[str, Any]:
    """Request of the native picture that all methods start from."""
    return {
        "prompt": str(caption),
        "seed": seed,
        "steps": STEPS,
        "cfg_scale": CFG,
        "sampler_name": SAMPLER,
        "scheduler": "Automatic",
        "width": NATIVE,
        "height": NATIVE,
    }


def _paper(key: str, label: str, ablation: Scope = nullcontext, **changed: Any) -> Method:
    return Method(key, label, {**PAPER, **changed}, ablation=ablation)


def _preset(name: str) -> Method:
    return Method(name.lower(), f"our preset {name}", {"preset": name})


def _grounds(key: str, label: str, **changed: Any) -> Method:
    """The paper's recipe with a hires prompt that leaves the subject out."""
    return Method(key, label, {**PAPER, **changed}, request={"hr_prompt": "{ground_colour} {ground}"})


# In the order in which they are made: what matters most first.
METHODS: tuple[Method, ...] = (
    _paper("paper", "NPA + LFM + SG (the paper's recipe)"),
    Method("default", "our default", {}),
    _preset("Fast"),
    Method("direct", "direct", hires=False),
    Method("latent_hires", "latent hires fix", request={"hr_upscaler": "Latent", "denoising_strength": 0.6}),
    Method("rgb_hires", "RGB hires fix", request={"hr_upscaler": "Lanczos", "denoising_strength": 0.4}),
    _paper("base", "global + LFM + SG", base_attention),
    _paper("npa", "NPA", no_mixing, structure_strength=0.0),
    _paper("npa_lfm", "NPA + LFM", structure_strength=0.0),
    _paper("npa_sg", "NPA + SG", no_mixing),
    _paper("multidiffusion", "MultiDiffusion + LFM + SG", multi_diffusion),
    _paper("tau_300", "tau 300", tau=300),
    _paper("tau_500", "tau 500", tau=500),
    _paper("tau_600", "tau 600", tau=600),
    _paper("tau_700", "tau 700", tau=700),
    _paper("window_1.5", "window x 1.5", window_multiple=1.5),
    _paper("window_2", "window x 2", window_multiple=2.0),
    _paper("shift", "random shift", shift=True),
    _paper("lfm_0.0625", "LFM cut-off 0.0625", lfm_factor=0.0625),
    _paper("lfm_0.25", "LFM cut-off 0.25", lfm_factor=0.25),
    _paper("sg_0.0625", "SG cut-off 0.0625", sg_factor=0.0625),
    _paper("sg_0.25", "SG cut-off 0.25", sg_factor=0.25),
    _paper("stage_tau_400_300", "tau 400, then 300", stage_tau="400 300"),
    _paper("stage_tau_600_400", "tau 600, then 400", stage_tau="600 400"),
    _paper("stage_tau_400_600", "tau 400, then 600", stage_tau="400 600"),
    _preset("Detail"),
    _preset("Balanced"),
    _preset("Faithful"),
    _grounds("prompt", "stage prompt without subject"),
    _paper("free_hold", "tau 700, hold the subject", **FREE, hold="Subject"),
    _paper("free_stages", "tau 700, then 600", **FREE, stage_tau="700 600"),
    _grounds("free_prompt", "tau 700, stage prompt without subject", **FREE),
    Method(
        "free_close",
        "tau 700, stage prompt 'a close-up of'",
        {**PAPER, **FREE},
        request={"hr_prompt": "a close-up of a {colour} {object} over {ground_colour} {ground}"},
    ),
    _paper("free_pooled", "tau 700, windows also see the pooled canvas", pooled_tokens, **FREE),
    _paper("free_window_2", "tau 700, window x 2", **FREE, window_multiple=2.0),
    _paper("negative_0.5", "negative prompt in half of the steps", negative_share=0.5),
    _paper("reuse_2", "deep features every second step", feature_reuse=2),
    _paper("steps_8_4", "8 steps, then 4 in place of 8", stage_steps="8 4"),
    _paper("steps_4_4", "4 steps in each stage in place of 8", stage_steps="4 4"),
    _paper(
        "savings", "all three: 8 and 4 steps, negative prompt in half, deep features every second", **SAVINGS
    ),
    _paper("cut_1", "each stage without its last step", last_step_cut=1),
    _paper("fp32", "fp32 in place of bfloat16", full_precision),
)


def find(keys: str | None) -> tuple[Method, ...]:
    """The methods of a comma-separated list of keys, all of them for None; ValueError for an unknown key."""
    if not keys:
        return METHODS
    known = {method.key: method for method in METHODS}
    unknown = [key for key in keys.split(",") if key not in known]
    if unknown:
        raise ValueError(f"unknown method {', '.join(unknown)}; known are {', '.join(known)}")
    return tuple(known[key] for key in keys.split(","))
