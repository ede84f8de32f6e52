"""Random stages on a host with a patcher: others' patches, weights changed as by a LoRA, and an error at any call."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from test_patcher_stage import Runner, inputs, sample, stage  # noqa: F401

from benchmarks.soak import mini_forge

STAGES = 60
ERRORS = (RuntimeError, torch.cuda.OutOfMemoryError, ValueError, KeyboardInterrupt)
PATCHES = {
    "none": lambda unet: None,
    "modifier": lambda unet: unet.add_block_inner_modifier(lambda x, *rest: x * 1.01),
    "replacement": lambda unet: unet.set_model_attn1_replace(lambda q, *rest: q, "middle", 0),
    "patch": lambda unet: unet.set_model_attn1_patch(lambda q, k, v, extra: (q, k * 1.1, v)),
    "wrapper": lambda unet: unet.set_model_unet_function_wrapper(
        lambda apply, given: apply(given["input"], given["timestep"], **given["c"])
    ),
}


def left(stage: Any, kernel: Any) -> dict[str, Any]:  # noqa: F811
    """What a stage may not change."""
    network = stage.sd_model.forge_objects.unet.model.diffusion_model
    return {
        "after LoRA": repr(stage.after_lora.unet.model_options),
        "forwards": [name for name, module in network.named_modules() if "forward" in vars(module)],
        "sigmas": stage.sd_model.forge_objects.unet.model.predictor.sigmas.clone(),
        "kernel": mini_forge.attention_function is kernel,
    }


def run(stage: Any, calls: int, error: type[BaseException] | None) -> type | None:  # noqa: F811
    """One stage of three model calls, `error` before one of the network's or a layer's; what was raised."""
    network = stage.sd_model.forge_objects.unet.model.diffusion_model
    count = iter(range(10**6))

    def fail(*_: Any) -> None:
        if next(count) == calls and error is not None:
            raise error("soak")

    handles = [module.register_forward_pre_hook(fail) for module in network.modules()]
    try:
        with stage.host.installed():
            stage.host.before_sampling(inputs()[0], torch.zeros(1))
            with stage.host.windows(stage.first):
                for _ in range(3):
                    sample(stage)
    except BaseException as raised:
        return type(raised)
    finally:
        for handle in handles:
            handle.remove()
    return None


def test_random_stages_leave_nothing_behind(stage, monkeypatch):  # noqa: F811
    plain, kernel = sample(stage), mini_forge.attention_function
    failed = 0
    for number in range(STAGES):
        source = random.Random(number)
        name = source.choice(list(PATCHES))
        stage.p.scripts = Runner(PATCHES[name])
        error = source.choice((*ERRORS, None))
        with ExitStack() as stack:
            if source.random() < 0.3:  # a LoRA that the host has merged for this job
                weight = stage.after_lora.unet.model.diffusion_model.input_blocks[0][0].weight
                stack.callback(weight.data.copy_, weight.data.clone())
                weight.data.mul_(1.5)
            before = left(stage, kernel)
            raised = run(stage, source.randrange(150), error)
            after = left(stage, kernel)
        assert raised in (None, error), (number, name, error)
        assert stage.host.windowed_now()[0] == 0, (number, name, error)
        failed += raised is not None
        assert torch.equal(before.pop("sigmas"), after.pop("sigmas")), (number, name, error)
        assert before == after, (number, name, error)
        stage.sd_model.forge_objects.unet = stage.after_lora.unet
        assert torch.equal(sample(stage), plain), (number, name, error)
    assert 10 < failed < STAGES


@pytest.mark.parametrize("name", PATCHES)
def test_the_same_stage_makes_the_same_bits(stage, name):  # noqa: F811
    stage.p.scripts = Runner(PATCHES[name])
    found = []
    for _ in range(2):
        stage.host.before_sampling(inputs()[0], torch.zeros(1))
        with stage.host.windows(stage.first):
            found.append(sample(stage))
    assert torch.equal(*found)
