"""Deep features between steps: what runs when, how close it stays, and that nothing stays behind."""

from typing import Any

import pytest
import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from mini_unet import mini_unet
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scalediff.cost.counts import model_work
from scalediff.cost.run import Run
from scalediff.models.feature_reuse import FeatureReuse, deep_blocks


@pytest.fixture(scope="module")
def unet() -> UNetModel:
    torch.manual_seed(0)
    made = UNetModel(
        image_size=16,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_res_blocks=1,
        attention_resolutions=[2, 4],
        channel_mult=[1, 1, 2],
        num_head_channels=16,
        use_spatial_transformer=True,
        context_dim=8,
        use_checkpoint=False,
        legacy=False,
    ).eval()
    for parameter in made.parameters():  # ldm starts its last layers at zero
        torch.nn.init.normal_(parameter, std=0.05)
    return made


class Steps:
    """Stands in for the host's counter of evaluations."""

    now = 0


def inputs(seed: int = 1, batch: int = 2) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 4, 20, 16, generator=generator)
    return x, torch.full((batch,), 300), torch.randn(batch, 3, 8, generator=generator)


def call(unet: UNetModel, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return unet(x, timesteps=t, context=context)


def counted(blocks: list[torch.nn.Module]) -> list[int]:
    """Calls of the first layer of each block: a block that is left out runs none."""
    counts = [0] * len(blocks)

    def hook(index: int) -> Any:
        def count(*_: Any) -> None:
            counts[index] += 1

        return count

    for index, block in enumerate(blocks):
        next(block.children()).register_forward_pre_hook(hook(index))
    return counts


def test_deep_blocks_of_an_ldm_unet(unet: UNetModel) -> None:
    """Level 2 of 3: the step down to it, its block, the middle, and back up to stride 2."""
    deep = deep_blocks(unet)
    expected = [unet.input_blocks[4], unet.input_blocks[5], unet.middle_block, *unet.output_blocks[:2]]
    assert deep == expected
    assert len(deep_blocks(unet, 2)) == 4 + 1 + 4
    assert deep_blocks(unet, 16) == []
    assert deep_blocks(torch.nn.Linear(1, 1)) == []


def test_every_other_evaluation_skips_the_deep_blocks(unet: UNetModel) -> None:
    counts = counted(deep_blocks(unet))
    steps = Steps()
    with FeatureReuse(unet, every=2, step=lambda: steps.now) as reuse:
        for steps.now in range(1, 6):
            call(unet, *inputs())
            call(unet, *inputs(seed=2))  # the negative prompt, apart
    assert counts == [6] * 5
    assert (reuse.calls, reuse.reused) == (10, 4)


def test_the_same_input_gives_the_same_output(unet: UNetModel) -> None:
    """Deep features of an equal call are exact, and the two calls of an evaluation keep theirs apart."""
    steps = Steps()
    first, second = inputs(), inputs(seed=2)
    plain = call(unet, *first), call(unet, *second)
    assert not torch.equal(*plain)
    with FeatureReuse(unet, every=3, step=lambda: steps.now):
        for steps.now in range(1, 4):
            assert torch.equal(call(unet, *first), plain[0])
            assert torch.equal(call(unet, *second), plain[1])


def test_a_neighbouring_input_comes_close_but_not_exactly(unet: UNetModel) -> None:
    steps = Steps()
    x, t, context = inputs()
    moved = x + 0.02 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    before, plain = call(unet, x, t, context), call(unet, moved, t, context)
    with FeatureReuse(unet, every=2, step=lambda: steps.now):
        steps.now = 1
        call(unet, x, t, context)
        steps.now = 2
        reused = call(unet, moved, t, context)
    assert not torch.equal(reused, plain)
    assert (reused - plain).norm() < (before - plain).norm()


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_counted_work_is_what_torch_counts(unet: UNetModel, every: int) -> None:
    """Over a stage of five evaluations, of which the first three make both predictions."""
    steps, run = Steps(), Run(first_steps=5, negative_share=0.6, reuse_every=every)
    with (
        # a host that was booted before runs attention by torch's kernel: only the one of plain products is counted
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        FeatureReuse(unet, every=every, step=lambda: steps.now) as reuse,
    ):
        for steps.now in range(1, 6):
            call(unet, *inputs(batch=2 if steps.now <= 3 else 1))
    plain, reused = (model_work(unet, (20, 16), text_tokens=3, reused=kind) for kind in (False, True))
    assert reuse.reused_rows == run.reusing_calls(5)
    assert run.calls(5) == 3 * 2 + 2
    work = plain * (run.calls(5) - reuse.reused_rows) + reused * reuse.reused_rows
    assert work.total == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    assert reused.total < 0.8 * plain.total
    assert reused.calls == plain.calls == 1


def test_predictions_made_apart_each_keep_their_features(unet: UNetModel) -> None:
    """The prompt's call is the first of an evaluation, and goes on reusing when the other one is left out."""
    steps, run = Steps(), Run(first_steps=6, paired=False, negative_share=0.5, reuse_every=4)
    with FeatureReuse(unet, every=4, step=lambda: steps.now) as reuse:
        for steps.now in range(1, 7):
            for _ in range(2 if steps.now <= 3 else 1):
                call(unet, *inputs(batch=1))
    assert reuse.reused_rows == run.reusing_calls(6) == 2 + 2 + 1 + 1


def test_another_batch_runs_in_full(unet: UNetModel) -> None:
    """The negative prompt may be left out from some step on: kept features are those of more rows."""
    steps = Steps()
    single = inputs(batch=1)
    plain = call(unet, *single)
    with FeatureReuse(unet, every=2, step=lambda: steps.now) as reuse:
        steps.now = 1
        call(unet, *inputs())
        steps.now = 2
        assert torch.equal(call(unet, *single), plain)
    assert reuse.reused == 0


def test_undone_after_an_error(unet: UNetModel) -> None:
    def forwards() -> list[Any]:
        return [module.__dict__.get("forward") for module in unet.modules()]

    before = forwards()
    reuse = FeatureReuse(unet, every=2, step=lambda: 1)
    with pytest.raises(KeyboardInterrupt), reuse:  # noqa: PT012
        assert forwards() != before
        call(unet, *inputs())
        raise KeyboardInterrupt
    assert forwards() == before
    assert not reuse._kept


def test_off_and_out_of_reach_leave_everything_alone(unet: UNetModel) -> None:
    before = dict(unet.__dict__)
    with FeatureReuse(unet, every=1, step=lambda: 1):
        assert unet.__dict__ == before
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        FeatureReuse(unet, every=0, step=lambda: 1)
    apart, x = mini_unet(), torch.randn(1, 4, 16, 16)  # runs the layers of its blocks itself
    plain = apart(x, torch.zeros(1, 1, 12))
    steps = Steps()
    with FeatureReuse(apart, every=2, step=lambda: steps.now):
        for steps.now in (1, 2):
            assert torch.equal(apart(x, torch.zeros(1, 1, 12)), plain)
