"""The training loop: it ends by the clock, saves as it goes, and goes on where it stopped."""

import itertools

import pytest
import torch
from torch import nn

from training import loop as loop_module
from training.budget import fitted
from training.loop import Loop, Plan


@pytest.fixture(autouse=True)
def one_second_per_look(monkeypatch):
    """A clock that advances by a second each time it is read."""
    clock = itertools.count()
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: float(next(clock)))


def a_loop(out) -> Loop:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    solvers = [torch.optim.SGD([model.weight], lr=9.0), torch.optim.Adam([model.bias], lr=9.0)]
    loop = Loop(model, solvers, out)
    loop.resume()
    return loop


def error_of(model: nn.Module) -> torch.Tensor:
    """Of a fixed regression."""
    x = torch.arange(12.0).view(4, 3) / 12
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def run(
    loop: Loop, steps: int, *, fail_at: int | None = None, seconds: float = 1e6
) -> list[tuple[float, float]]:
    """Train; the share and rate that each step was given."""
    looked = []

    def loss_of(batch: int) -> torch.Tensor:
        if loop.step == fail_at:
            raise KeyboardInterrupt
        return error_of(loop.model)

    def rate_at(share: float, step: int) -> float:
        looked.append((share, 0.1 + 0.01 * step))
        return looked[-1][1]

    loop.train(Plan(seconds, (2,), rate_at, steps), loss_of)
    return looked


def test_it_ends_with_its_seconds_and_every_step_knows_the_share_and_sets_the_rate(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    looked = run(loop, 10**9, seconds=50)
    shares = [share for share, rate in looked[::2]]  # a rate for each of two solvers
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.1
    assert 0.9 < shares[-1] < 1
    assert {group["lr"] for solver in loop.solvers for group in solver.param_groups} == {looked[-1][1]}
    assert torch.load(tmp_path / "net.pt")["seconds"] >= 50


def test_it_learns(tmp_path):
    losses = []
    for steps in (1, 30):
        loop = a_loop(tmp_path / f"{steps}.pt")
        run(loop, steps)
        losses.append(error_of(loop.model).item())
    assert losses[1] < losses[0] / 2


def test_two_runs_are_one_run_to_the_last_bit(tmp_path):
    run(a_loop(tmp_path / "whole.pt"), 8)
    for steps in (3, 8):
        run(a_loop(tmp_path / "part.pt"), steps)
    one, other = torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "part.pt")
    assert one["step"] == other["step"] == 8
    for kept in ("model", "average"):
        assert all(torch.equal(one[kept][name], other[kept][name]) for name in one[kept])


def test_a_killed_run_leaves_its_last_save_whole(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    with pytest.raises(KeyboardInterrupt):  # the clock ticks a few times a step: a save each twenty or so
        run(loop, 10**9, fail_at=100)
    saved = torch.load(tmp_path / "net.pt")
    assert 50 < saved["step"] < 100
    assert 0 < saved["seconds"] < 500
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
    again = a_loop(tmp_path / "net.pt")
    assert (again.step, again.spent) == (saved["step"], saved["seconds"])
    assert torch.equal(again.model.weight, saved["model"]["weight"])


def test_averaged_weights_lag_behind(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    start = loop.model.weight.detach().clone()
    run(loop, 1)  # a single step: the mean keeps (1 + 1) / (20 + 1) of the start
    expected = start.lerp(loop.model.weight.detach(), 1 - 2 / 21)
    torch.testing.assert_close(loop.averaged["weight"], expected)


def test_only_the_first_process_writes(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    loop.rank = 1
    run(loop, 4)
    assert loop.step == 4
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    with pytest.raises(FloatingPointError, match="resume"):
        loop.train(
            Plan(1e6, (2,), lambda share, step: 0.1, 100), lambda batch: error_of(loop.model) * float("nan")
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seconds_of", "minutes", "expected"),
    [
        (lambda batch: 1.0, 1e9, 16),  # free: the largest
        (lambda batch: float(batch), 1e9, 2),  # twice the time: no gain
        (lambda batch: 1.0, 1.0, 2),  # too few steps in the time
        (lambda batch: 1.0 if batch < 8 else 100.0, 1e9, 4),
    ],
)
def test_the_batch_grows_while_that_pays(seconds_of, minutes, expected):
    assert fitted((2, 4, 8, 16), seconds_of, 60 * minutes)[0] == expected


def test_the_batch_ends_with_the_memory():
    def seconds_of(batch: int) -> float:
        if batch > 4:
            raise torch.OutOfMemoryError
        return 1.0

    assert fitted((2, 4, 8), seconds_of, 1e9)[0] == 4


def test_a_run_fits_its_batch_with_steps_that_count(tmp_path):
    loop, asked = a_loop(tmp_path / "net.pt"), []

    def loss_of(batch: int) -> torch.Tensor:
        asked.append(batch)
        return error_of(loop.model)

    loop.train(Plan(500.0, (2, 4), lambda share, step: 0.1), loss_of)
    assert asked[:8] == [2, 2, 2, 2, 4, 4, 4, 4]
    assert loop.step == len(asked)
    assert torch.load(tmp_path / "net.pt")["batch"] == loop.batch == asked[-1]


def test_a_batch_that_the_time_ends_in_is_not_taken(tmp_path):
    loop = a_loop(tmp_path / "net.pt")
    loop.train(Plan(30.0, (2, 4, 8), lambda share, step: 0.1), lambda batch: error_of(loop.model))
    assert loop.batch == 2
