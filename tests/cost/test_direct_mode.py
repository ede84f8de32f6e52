"""The one pass of Direct mode: its window, when there is nothing to do, and what it costs."""

from __future__ import annotations

import pytest

from scalediff.cost.plan import direct_work
from scalediff.cost.run import Run
from scalediff.cost.transformers import TransformerShape
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.planning import direct_plan, direct_window, why_not_direct

CONFIG = ScaleDiffConfig(enabled=True, mode="Direct")
NATIVE = (64, 64)
TINY_FLUX = TransformerShape.of_dimensions(double=1, single=2, width=8, text_tokens=4)


@pytest.mark.parametrize(
    ("canvas", "window"),
    [
        ((2048, 512), (64, 64)),  # a panorama: the native square, at full height
        ((512, 2048), (64, 64)),
        ((1024, 1024), (64, 64)),
        ((2048, 256), (64, 64)),  # lower than the native side: each layer cuts the window to its grid
        ((768, 512), (64, 64)),  # half as much again as the model knows
        ((512, 512), None),
        ((256, 256), None),
        ((640, 448), None),  # about the native area: the model knows such pictures
    ],
)
def test_the_window_is_the_native_square(canvas: tuple[int, int], window: tuple[int, int] | None) -> None:
    one_pass = direct_plan(NATIVE, canvas, steps=7)
    assert direct_window(NATIVE, one_pass, CONFIG) == window
    assert (why_not_direct(NATIVE, one_pass, CONFIG) is None) == (window is not None)
    (stage,) = one_pass.stages
    assert (stage.size, stage.latent_size, stage.steps) == (canvas, (canvas[1] // 8, canvas[0] // 8), 7)


def test_the_window_multiple_counts() -> None:
    one_pass = direct_plan(NATIVE, (2048, 512), steps=7)
    wider = ScaleDiffConfig(enabled=True, mode="Direct", window_multiple=1.5)
    assert direct_window(NATIVE, one_pass, wider) == (96, 96)


def test_nothing_to_do_names_sizes_and_the_way_out() -> None:
    reason = why_not_direct(NATIVE, direct_plan(NATIVE, (500, 256), steps=7), CONFIG)
    assert reason == (
        "the canvas of 496 x 256 is not larger than one attention window of 512 x 512; raise width or height"
    )


def test_the_work_is_compared_with_the_same_pass_under_ordinary_attention() -> None:
    """Counted by hand: 8 patches of 16 x 8 tokens each look at 256 + 4 keys, instead of 516 at 516."""
    one_pass = direct_plan((32, 32), (512, 256), steps=3)  # 16 x 32 tokens, windows of 16 x 16
    window = direct_window((32, 32), one_pass, CONFIG)
    cost = direct_work(one_pass, TINY_FLUX, Run(first_steps=3, cfg=False), window=window)
    blocks, calls = 3, 3
    patches = 2 * 4
    assert cost.plain.attention == 2 * blocks * 516**2 * 8 * calls
    assert cost.windowed.attention == 2 * blocks * (512 + patches * 4) * 260 * 8 * calls
    assert cost.windowed.linear == cost.plain.linear
    assert cost.ratio == cost.windowed.total / cost.plain.total < 1


def test_without_a_window_it_is_the_ordinary_pass() -> None:
    one_pass = direct_plan((32, 32), (256, 256), steps=3)
    assert direct_work(one_pass, TINY_FLUX, Run(first_steps=3), window=None).ratio == 1
