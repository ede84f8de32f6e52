"""The host's refiner: past a share of a pass's steps another checkpoint goes on.

As Automatic1111 1.10.1 does it (modules/sd_samplers_common.py:158, sd_samplers_cfg_denoiser.py:111), which the pocket
lacks. It is asked for in each denoiser call, and may not act while a stage of ours runs.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest import mock

SWITCH_AT = 0.4


def refined(p: Any, name: str, problems: list[str], stack: ExitStack) -> None:
    """Inside the `stack` the job `p` switches to the checkpoint `name`; adds to `problems` what goes wrong."""
    from modules import sd_models, sd_samplers_cfg_denoiser

    info = sd_models.get_closet_checkpoint_match(name)
    p.refiner_checkpoint_info, p.refiner_switch_at = info, SWITCH_AT
    denoiser = sd_samplers_cfg_denoiser.CFGDenoiser
    real = denoiser.forward

    def forward(self: Any, x: Any, sigma: Any, **given: Any) -> Any:
        if _is_due(self):
            if _windowed(self.p.sd_model):
                problems.append("the refiner was loaded in the middle of a stage")
            _switch(self, given)
        return real(self, x, sigma, **given)

    def check() -> None:
        if p.refiner_checkpoint_info is not info:
            problems.append("the job's refiner was lost")

    stack.callback(check)
    stack.enter_context(mock.patch.object(denoiser, "forward", forward))


def _is_due(denoiser: Any) -> bool:
    wanted = getattr(denoiser.p, "refiner_checkpoint_info", None)
    if wanted is None or denoiser.p.sd_model.sd_checkpoint_info is wanted:
        return False
    return denoiser.step >= (denoiser.total_steps or 1) * denoiser.p.refiner_switch_at


def _switch(denoiser: Any, given: dict[str, Any]) -> None:
    from modules import sd_models

    p = denoiser.p
    sd_models.reload_model_weights(info=p.refiner_checkpoint_info)
    p.setup_conds()
    denoiser.model_wrap = None
    given["cond"], given["uncond"] = p.c, p.uc
    if p.is_hr_pass:
        p.calculate_hr_conds()
        given["cond"], given["uncond"] = p.hr_c, p.hr_uc
    denoiser.sampler.sampler_extra_args.update(cond=given["cond"], uncond=given["uncond"])


def _windowed(model: Any) -> bool:
    """Whether windows lie on the model: on its layers, or in its patcher."""
    layers = (module for name, module in model.named_modules() if name.endswith("attn1"))
    patcher = getattr(getattr(model, "forge_objects", None), "unet", None)
    options = getattr(patcher, "model_options", {"transformer_options": {}})
    replaced = "patches_replace" in options["transformer_options"] or "model_function_wrapper" in options
    return replaced or any("forward" in vars(layer) for layer in layers)
