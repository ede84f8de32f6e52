"""The training loop: it ends by the clock, saves as it goes, and goes on where it stopped."""

import itertools

import pytest
import torch
from torch import nn

from training import loop as loop_module
from training.loop import Loop


@pytest.fixture(autouse=True)
def one_second_per_look(monkeypatch):
    """A clock that advances by a second each time it is read."""
    clock = itertools.count()
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: float(next(clock)))


def a_loop(out, *, averaged=False, save_every=100) -> Loop:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()} if averaged else None
    solvers = [torch.optim.SGD([model.weight], lr=9.0), torch.optim.Adam([model.bias], lr=9.0)]
    return Loop(model, solvers, out, save_every=save_every, averaged=weights)


def error_of(model: nn.Module) -> torch.Tensor:
    """Of a fixed regression."""
    x = torch.arange(12.0).view(4, 3) / 12
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def run(loop: Loop, seconds: float, *, fail_at: int | None = None) -> list[tuple[float, float]]:
    """Train; the share and rate that each step was given."""
    looked = []

    def loss_of(step: int) -> tuple[torch.Tensor, float]:
        if step == fail_at:
            raise KeyboardInterrupt
        loss = error_of(loop.model)
        return loss, loss.item()

    def rate_at(share: float, step: int) -> float:
        looked.append((share, 0.1 + 0.01 * step))
        return looked[-1][1]

    loop.train(seconds / 60, loss_of, rate_at)
    return looked


def test_it_ends_with_its_minutes_and_every_step_knows_the_share_and_sets_the_rate(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    looked = run(loop, 5)
    assert [share for share, _ in looked] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5])
    assert loop.step == 4
    assert {group["lr"] for solver in loop.solvers for group in solver.param_groups} == {looked[-1][1]}
    assert torch.load(tmp_path / "net.pt")["seconds"] == 5


def test_it_learns(tmp_path):
    losses = []
    for seconds in (2, 60):
        loop = a_loop(tmp_path / f"{seconds}.pt")
        run(loop, seconds)
        losses.append(error_of(loop.model).item())
    assert losses[1] < losses[0] / 2


def test_two_runs_are_one_run_to_the_last_bit(tmp_path):
    whole = a_loop(tmp_path / "whole.pt", averaged=True)
    run(whole, 9)
    for seconds in (4, 10):  # each run ends with a look at the clock: 3 steps, then 5
        part = a_loop(tmp_path / "part.pt", averaged=True)
        part.resume()
        run(part, seconds)
    one, other = torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "part.pt")
    assert one["step"] == other["step"] == 8
    for kept in ("model", "average"):
        assert all(torch.equal(one[kept][name], other[kept][name]) for name in one[kept])


def test_a_killed_run_leaves_its_last_save_whole(tmp_path):
    loop = a_loop(tmp_path / "net.pt", save_every=2)
    with pytest.raises(KeyboardInterrupt):
        run(loop, 100, fail_at=5)
    saved = torch.load(tmp_path / "net.pt")
    assert saved["step"] == 4
    assert 0 < saved["seconds"] < 100
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
    again = a_loop(tmp_path / "net.pt")
    again.resume()
    assert again.step == 4
    assert again.spent == saved["seconds"]
    assert torch.equal(again.model.weight, saved["model"]["weight"])


def test_averaged_weights_lag_behind(tmp_path):
    loop = a_loop(tmp_path / "net.pt", averaged=True)
    start = loop.model.weight.detach().clone()
    run(loop, 2)  # a single step: the mean keeps (1 + 1) / (20 + 1) of the start
    expected = start.lerp(loop.model.weight.detach(), 1 - 2 / 21)
    torch.testing.assert_close(loop.averaged["weight"], expected)


def test_only_the_first_process_writes(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    loop.rank = 1
    run(loop, 5)
    assert loop.step == 4
    assert not list(tmp_path.iterdir())
