"""Hints of ControlNet have the size of the stage that looks at them, and are as before afterwards.

The stand-in for Automatic1111's is `benchmarks.soak.hints.Unit`. That for Forge's keeps them as its built-in ControlNet
does (`scripts/controlnet.py` at dfdcbab6), and reads them before each sampler call.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.soak.hints import Unit, adding
from scalediff.hosts.webui.control import fitted

CELL = 8
PICTURE = Image.fromarray(np.full((64, 64, 3), 120, np.uint8))


@pytest.fixture
def controlled(host: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Unit], None]:
    """Hooks a unit into a job as the extension does: kept by a script, read by another forward on the UNet."""

    def hook(p: Any, unit: Any) -> None:
        unet = host.model.model.diffusion_model

        monkeypatch.setattr(unet, "forward", adding(unet, unit))
        network = SimpleNamespace(control_params=[unit])
        monkeypatch.setattr(p.scripts.alwayson_scripts[0], "latest_network", network, raising=False)

    return hook


def hint(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))


def sizes(unit: Unit) -> list[tuple[tuple[int, int], bool]]:
    """What was shown, without repeats."""
    return [shown for i, shown in enumerate(unit.shown) if i == 0 or unit.shown[i - 1] != shown]


def test_every_stage_of_txt2img_is_shown_a_hint_of_its_size(host: Any, controlled: Any) -> None:
    p = host.txt2img(True, hr_scale=4.0, steps=3)
    unit = Unit(hint(64), hint(256))
    first, last = unit.hint_cond, unit.hr_hint_cond
    controlled(p, unit)
    with_hint = host.run(p).pixels[0]
    assert sizes(unit) == [((64, 64), False), ((128, 128), True), ((256, 256), True)]
    assert unit.hint_cond is first
    assert unit.hr_hint_cond is last
    assert with_hint.shape == (256, 256, 3)


def test_every_stage_of_img2img_is_shown_a_hint_of_its_size(host: Any, controlled: Any) -> None:
    p = host.img2img(True, init_images=[PICTURE], width=256, height=256, steps=3)
    unit = Unit(hint(256), None)
    before = unit.hint_cond
    controlled(p, unit)
    host.run(p)
    assert sizes(unit) == [((128, 128), False), ((256, 256), False)]
    assert unit.hint_cond is before


def test_hints_are_back_after_an_error_in_a_stage(host: Any, controlled: Any) -> None:
    p = host.txt2img(True, hr_scale=4.0, steps=3)
    unit = Unit(hint(64), hint(256))
    last = unit.hr_hint_cond
    choose = unit.choose

    def failing(height: int) -> Tensor:
        if height == 128:
            raise RuntimeError("injected")
        return choose(height)

    unit.choose = failing  # type: ignore[method-assign]
    controlled(p, unit)
    with pytest.raises(RuntimeError, match="injected"):
        host.run(p)
    assert unit.hr_hint_cond is last
    assert unit.used_hint_cond is None, "the next pass chooses anew"


def test_an_embedding_is_left_alone(host: Any, controlled: Any) -> None:
    p = host.txt2img(True, hr_scale=4.0, steps=3)
    embedding = torch.zeros(1, 4, 16)
    unit = SimpleNamespace(
        hint_cond=embedding, hr_hint_cond=None, choose=lambda height: torch.zeros(1, 1, 1, 1)
    )
    controlled(p, unit)
    host.run(p)
    assert vars(unit).keys() == {"hint_cond", "hr_hint_cond", "choose"}
    assert unit.hint_cond is embedding


def test_a_hint_of_the_right_size_is_not_touched(host: Any, controlled: Any) -> None:
    p = host.txt2img(True, hr_scale=2.0, steps=3)
    unit = Unit(hint(64), hint(128))
    controlled(p, unit)
    host.run(p)
    assert sizes(unit) == [((64, 64), False), ((128, 128), True)]
    assert unit.used_hint_cond is unit.hr_hint_cond


@pytest.mark.parametrize("second_pass", [True, False], ids=["txt2img", "img2img"])
def test_hints_that_are_read_before_a_sampler_call_have_the_size_of_its_stage(
    host: Any, monkeypatch: pytest.MonkeyPatch, second_pass: bool
) -> None:
    big = {"width": 256, "height": 256, "init_images": [PICTURE]}
    p = host.txt2img(True, hr_scale=4.0, steps=3) if second_pass else host.img2img(True, steps=3, **big)
    names = [f"{kind}{end}" for kind in ("control_cond", "control_mask") for end in ("", "_for_hr_fix")]
    kept = {name: hint(256 if name.endswith("fix") or not second_pass else 64) for name in names}
    unit, read = SimpleNamespace(**kept), []
    monkeypatch.setattr(p.scripts.alwayson_scripts[0], "current_params", {0: unit}, raising=False)
    prepare = p.scripts.process_before_every_sampling

    def reading(p: Any, **kwargs: Any) -> None:
        end = "_for_hr_fix" if p.is_hr_pass else ""
        read.append([getattr(unit, name + end).shape[-1] for name in ("control_cond", "control_mask")])
        prepare(p, **kwargs)

    monkeypatch.setattr(p.scripts, "process_before_every_sampling", reading)
    host.run(p)
    assert read == [[64, 64]] * second_pass + [[128, 128], [256, 256]]
    assert all(getattr(unit, name) is before for name, before in kept.items())


def test_fitting_keeps_lines_and_means() -> None:
    lines = torch.zeros(1, 3, 64, 48)
    lines[..., 21, :] = 1.0
    thin = fitted(lines, (24, 32))
    assert thin.shape == (1, 3, 32, 24)
    assert set(thin.unique().tolist()) == {0.0, 1.0}
    assert thin[..., 10, :].all()
    grey = hint(64)
    smaller = fitted(grey, (32, 32))
    torch.testing.assert_close(smaller.mean(), grey.mean(), atol=5e-3, rtol=0)
    assert smaller.std() < grey.std(), "reduced with antialiasing"
