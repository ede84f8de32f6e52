"""Counted work: the published figures, torch's own counter, and the plan built from it."""

from __future__ import annotations

import estimate_models
import pytest
import torch
from mini_unet import mini_unet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scalediff.cost.counts import Work, model_work, unet_work, vae_work
from scalediff.cost.plan import plan_work
from scalediff.cost.run import Run
from scalediff.cost.tiled_vae import tiled_work
from scalediff.cost.times import SIZES_KEPT, StepTimes, duration
from scalediff.cost.transformers import TransformerShape
from scalediff.method.cascade import plan_stages
from scalediff.models.inspection import inspect
from scalediff.models.windowed_unet import WindowedAttention

FLUX = TransformerShape.of_dimensions(double=19, single=38, width=3072, text_tokens=256)
SDXL_WINDOW = (128, 128)


@pytest.fixture(scope="module")
def sdxl() -> nn.Module:
    return estimate_models.sdxl_unet()


@pytest.fixture(scope="module")
def vae() -> nn.Module:
    return estimate_models.kl_vae()


def tera(work: Work) -> float:
    return work.total / 1e12


def multiplied(attend_q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two matrix products, which torch's counter sees."""
    return (attend_q @ k.transpose(-1, -2)) @ v


def counted(function, *args) -> float:
    """Multiply-adds that torch itself counts while the function runs."""
    with FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops() / 2


# --- the published counts


@pytest.mark.parametrize(
    ("cells", "everywhere", "windowed"), [(128, 3.38, 3.38), (256, 17.95, 13.44), (512, 143.9, 53.7)]
)
def test_sdxl_counts(sdxl: nn.Module, cells: int, everywhere: float, windowed: float) -> None:
    assert tera(model_work(sdxl, (cells, cells))) == pytest.approx(everywhere, rel=0.01)
    assert tera(model_work(sdxl, (cells, cells), SDXL_WINDOW)) == pytest.approx(windowed, rel=0.01)


@pytest.mark.parametrize(
    ("cells", "window", "shares"),
    [
        (128, None, (56.7, 24.0, 8.2, 11.1)),
        (256, SDXL_WINDOW, (57.0, 24.1, 7.7, 11.2)),
        (512, None, (21.3, 9.0, 2.8, 66.9)),
        (512, SDXL_WINDOW, (57.1, 24.2, 7.5, 11.2)),
    ],
)
def test_sdxl_shares(sdxl: nn.Module, cells: int, window: tuple | None, shares: tuple) -> None:
    work = model_work(sdxl, (cells, cells), window)
    assert [100 * macs / work.total for macs in work.macs.values()] == pytest.approx(shares, abs=0.1)


@pytest.mark.parametrize(
    ("cells", "everywhere", "windowed"), [(128, 34.7, 34.7), (256, 204, 139), (512, 1941, 550)]
)
def test_flux_counts(cells: int, everywhere: float, windowed: float) -> None:
    assert tera(model_work(FLUX, (cells, cells))) == pytest.approx(everywhere, rel=0.01)
    assert tera(model_work(FLUX, (cells, cells), (128, 128))) == pytest.approx(windowed, rel=0.01)


def test_flux_weights_are_about_twelve_billion() -> None:
    assert pytest.approx(11.9e9, rel=0.02) == FLUX.parameters


# --- torch's own counter


@pytest.mark.parametrize("cells", [(128, 128), (136, 72)])
def test_equals_what_torch_counts(sdxl: nn.Module, cells: tuple[int, int]) -> None:
    expected = counted(estimate_models.call, sdxl, cells)
    # the harness feeds the embedding in, so its three layers run in the count alone
    assert unet_work(sdxl, cells).total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cells", [(256, 256), (264, 136)])
def test_equals_what_torch_counts_with_windows(sdxl: nn.Module, cells: tuple[int, int]) -> None:
    layers = inspect(sdxl)
    with WindowedAttention(layers, SDXL_WINDOW, attend=multiplied) as windowed:
        expected = counted(estimate_models.call, sdxl, cells)
    assert windowed.calls == 70
    assert model_work(sdxl, cells, SDXL_WINDOW).total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_vae_equals_what_torch_counts(vae: nn.Module, half: str) -> None:
    part, cells = getattr(vae, half), (40, 24)
    scale, channels = (8, 3) if half == "encoder" else (1, 4)
    picture = torch.empty(1, channels, cells[0] * scale, cells[1] * scale, device="meta")
    assert vae_work(part, cells).total == pytest.approx(counted(part, picture), rel=1e-6)


def test_odd_sides_are_counted_as_the_network_rounds_them() -> None:
    unet = mini_unet()
    x, context = torch.zeros(1, 4, 23, 14), torch.zeros(1, 77, 12)
    with WindowedAttention(inspect(unet), (8, 8), attend=multiplied):
        expected = counted(unet, x, context)
    # its cross-attention runs torch's fused kernel, which the counter misses on a CPU
    cross = model_work(unet, (23, 14), (8, 8), text_tokens=77)
    fused = sum(2 * 77 * 8 * side for side in (5 * 2 * 12 * 7, (5 * 10 + 10) * 6 * 4))
    assert cross.total - fused == pytest.approx(expected, rel=1e-9)


# --- other networks


class DiffusersLike(nn.Module):
    """Blocks under diffusers' names, made of the mini UNet's layers."""

    def __init__(self) -> None:
        super().__init__()
        source = mini_unet(depths=(1, 1), blocks=1)
        inputs, outputs = source.input_blocks, source.output_blocks
        self.conv_in, self.conv_out = inputs[0][0], source.out
        self.down_blocks = nn.ModuleList(
            [_block(resnets=[inputs[1]], downsamplers=[inputs[2][0]]), _block(resnets=[inputs[3]])]
        )
        self.mid_block = _block(resnets=[source.middle_block[0], source.middle_block[2]])
        self.mid_block.attentions = nn.ModuleList([source.middle_block[1]])
        self.up_blocks = nn.ModuleList(
            [
                _block(resnets=[outputs[0], outputs[1][:2]], upsamplers=[outputs[1][2]]),
                _block(resnets=[outputs[2], outputs[3]]),
            ]
        )
        # ldm keeps residual block and transformer in one sequence, diffusers in two lists
        for block in (*self.down_blocks, *self.up_blocks):
            block.attentions = nn.ModuleList(pair[1] for pair in block.resnets)
            block.resnets = nn.ModuleList(pair[0] for pair in block.resnets)


def _block(**lists: list[nn.Module]) -> nn.Module:
    block = nn.Module()
    for name, parts in lists.items():
        setattr(block, name, nn.ModuleList(parts))
    return block


def test_diffusers_names_give_the_same_count() -> None:
    ldm = model_work(mini_unet(depths=(1, 1), blocks=1), (32, 24), (16, 16))
    assert model_work(DiffusersLike(), (32, 24), (16, 16)) == ldm


def test_a_network_without_known_blocks_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Linear has no UNet blocks"):
        model_work(nn.Linear(2, 2), (8, 8))


def test_sizes_below_one_cell_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 cell"):
        model_work(FLUX, (0, 8))


# --- the plan


PLAN = plan_stages((1024, 1024), (4096, 4096), steps=20)


def test_plan_adds_up(sdxl: nn.Module, vae: nn.Module) -> None:
    plan = plan_work(PLAN, sdxl, Run(first_steps=50), vae=vae)
    assert [part.sampling.calls for part in plan.stages] == [40, 40]
    assert plan.first.calls == 100
    assert tera(plan.stages[0].sampling) == pytest.approx(40 * 13.44, rel=0.01)
    assert tera(plan.stages[1].sampling) == pytest.approx(40 * 53.7, rel=0.01)
    # 71 % of a whole run's sampling is the last stage's
    sampling = plan.first + plan.stages[0].sampling + plan.stages[1].sampling
    assert plan.stages[1].sampling.total / sampling.total == pytest.approx(0.71, abs=0.01)
    around = vae_work(vae.encoder, (256, 256)) + vae_work(vae.decoder, (256, 256))
    assert plan.stages[0].vae.macs == around.macs


def test_plan_scales_with_guidance_evaluations_and_images(sdxl: nn.Module, vae: nn.Module) -> None:
    one = plan_work(PLAN, sdxl, Run(first_steps=20, cfg=False), vae=vae)
    many = plan_work(PLAN, sdxl, Run(first_steps=20, evaluations=2, images=3), vae=vae)
    assert many.stages[0].sampling.calls == 2 * 2 * 3 * one.stages[0].sampling.calls
    assert many.stages[1].vae.total == 3 * one.stages[1].vae.total


def test_window_follows_the_base_picture(sdxl: nn.Module) -> None:
    wide = plan_stages((1216, 832), (2432, 1664), steps=10)
    estimated = plan_work(wide, sdxl, Run(first_steps=20)).stages[0].sampling
    assert estimated == model_work(sdxl, (208, 304), (104, 152)) * 20


def test_tiles_spare_the_vae_its_attention_over_everything(vae: nn.Module) -> None:
    whole, tiled = vae_work(vae.decoder, (512, 512)), tiled_work(vae.decoder, (512, 512), 128)
    assert tiled.attention == whole.attention / 4  # windows of 256 x 256
    assert 2 * whole.conv < tiled.conv < 4 * whole.conv
    assert tiled_work(vae.decoder, (48, 48), 64) == vae_work(vae.decoder, (48, 48))


def test_an_empty_plan_costs_nothing(sdxl: nn.Module) -> None:
    plan = plan_stages((1024, 1024), (1024, 1024), steps=20)
    assert plan_work(plan, sdxl, Run(first_steps=50)).ratio == 0


def test_flux_plan_needs_no_model() -> None:
    estimated = plan_work(PLAN, FLUX, Run(first_steps=30, cfg=False))
    assert estimated.ratio == pytest.approx((20 * 138.6 + 20 * 549.6) / (30 * 34.73), rel=0.01)
    assert estimated.weights == 2 * FLUX.parameters


@pytest.mark.parametrize("wrong", [{"first_steps": 0}, {"first_steps": 9, "images": 0}])
def test_a_run_without_steps_or_images_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        Run(**wrong)


# --- measured times


def test_measured_times_give_seconds(sdxl: nn.Module) -> None:
    times, run = StepTimes(), Run(first_steps=50)
    assert plan_work(PLAN, sdxl, run, times=times, key="a").seconds is None
    one = model_work(sdxl, (256, 256), SDXL_WINDOW)
    for seconds in (2.0, 1.0, 90.0):  # the first call of a process is slow: the median does not mind
        times.record("a", (256, 256), one, seconds)
    estimated = plan_work(PLAN, sdxl, run, times=times, key="a")
    assert estimated.seconds == pytest.approx(40 * 2.0 * (1 + 53.7 / 13.44), rel=0.01)
    assert plan_work(PLAN, sdxl, run, times=times, key="b").seconds is None


def test_times_of_the_nearest_size_count() -> None:
    times, work = StepTimes(), Work(linear=10)
    times.record("a", (64, 64), work, 1.0)
    times.record("a", (256, 256), work, 3.0)
    assert times.seconds("a", (100, 100), work) == 1.0
    assert times.seconds("a", (200, 200), work * 2) == 6.0


def test_times_forget_the_oldest_and_ignore_nonsense() -> None:
    times, work = StepTimes(), Work(linear=10)
    times.record("x", (8, 8), work, 0.0)
    times.record("x", (8, 8), Work(), 1.0)
    times.record("x", (8, 8), work, float("nan"))
    assert times.seconds("x", (8, 8), work) is None
    for i in range(17):
        times.record(f"model {i}", (8, 8), work, 1.0)
    assert times.seconds("model 0", (8, 8), work) is None
    assert times.seconds("model 16", (8, 8), work) == 1.0
    for _ in range(21):
        times.record("model 16", (8, 8), work, 5.0)
    assert times.seconds("model 16", (8, 8), work) == 5.0


def test_times_keep_the_latest_sizes_only() -> None:
    """A server that is asked for all sizes holds no more of them than it is worth."""
    times, work = StepTimes(), Work(linear=10)
    for side in range(1, 2701):
        times.record("a", (side, side), work, float(side))
        times.record("a", (8, 8), work, 8.0)  # used all the time
    assert sum(map(len, times._rates.values())) == SIZES_KEPT
    assert times.seconds("a", (2700, 2700), work) == 2700.0
    assert times.seconds("a", (9, 9), work) == 8.0
    assert times.seconds("a", (2000, 2000), work) == 2670.0  # the nearest that is left


def test_the_vae_has_a_rate_of_its_own_once_it_was_measured() -> None:
    times, work = StepTimes(), Work(conv=10)
    assert times.vae_seconds("a", (8, 8), work) is None
    times.record("a", (8, 8), work, 1.0)
    assert times.vae_seconds("a", (8, 8), work * 3) == 3.0
    times.record_vae("a", (8, 8), work, 4.0)
    assert times.vae_seconds("a", (8, 8), work * 3) == 12.0
    assert times.seconds("a", (8, 8), work * 3) == 3.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (45.4, "45 s"), (59.9, "1 min"), (203, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
