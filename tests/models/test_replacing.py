"""Life of a replaced forward or global: undo, foreign wrappers, exceptions, memory."""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import types
import weakref

import pytest
import torch
from torch import nn

from scalediff.models.replacing import Replacing, put_by_others


class Double(nn.Module):
    def forward(self, x: int, scale: int = 2) -> int:
        return x * scale


def adding(amount: int):
    return lambda previous, x, *args, **kwargs: previous(x, *args, **kwargs) + amount


def wrap(module: nn.Module, amount: int):
    """What another extension does: remember the present forward and put its own on top."""
    below = module.forward
    module.forward = lambda *args, **kwargs: below(*args, **kwargs) + amount  # type: ignore[method-assign]
    return module.__dict__["forward"]


def test_replaces_inside_and_restores_outside() -> None:
    module = Double()
    with Replacing([(module, "forward", adding(1))]) as patch:
        assert patch.active
        assert module(5) == 11
        assert module(5, scale=3) == 16
    assert not patch.active
    assert "forward" not in module.__dict__
    assert module(5) == 10


def test_many_modules_at_once() -> None:
    modules = [Double() for _ in range(5)]
    with Replacing([(module, "forward", adding(i)) for i, module in enumerate(modules)]):
        assert [module(1) for module in modules] == [2, 3, 4, 5, 6]
    assert not any("forward" in module.__dict__ for module in modules)


def test_the_class_forward_is_looked_up_at_call_time(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Double()
    with Replacing([(module, "forward", adding(1))]):
        monkeypatch.setattr(Double, "forward", lambda self, x: x * 100)
        assert module(5) == 501


def test_an_existing_instance_forward_is_chained_and_put_back() -> None:
    module = Double()
    theirs = wrap(module, 10)
    with Replacing([(module, "forward", adding(1))]):
        assert module(5) == 21
    assert module.__dict__["forward"] is theirs
    assert module(5) == 20


def test_a_foreign_wrapper_on_top_stays_and_ours_becomes_a_pass_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    modules = [Double(), Double()]
    with (
        caplog.at_level(logging.INFO, logger="scalediff"),
        Replacing([(m, "forward", adding(1)) for m in modules]),
    ):
        theirs = [wrap(module, 100) for module in modules]
        assert modules[0](5) == 111
    assert [module.__dict__["forward"] for module in modules] == theirs
    assert modules[0](5) == 110
    assert [record.message for record in caplog.records] == [
        "2 x Double.forward was wrapped or reset by somebody else; left as it is"
    ]


def test_a_stale_pass_through_keeps_the_chain_below_it() -> None:
    module = Double()
    wrap(module, 10)
    with Replacing([(module, "forward", adding(1))]):
        wrap(module, 100)
    assert module(5) == 120


def test_stale_wrappers_do_not_pile_up() -> None:
    module = Double()
    for _ in range(50):
        with Replacing([(module, "forward", adding(1))]):
            ours = module.__dict__["forward"]
            wrap(module, 100)
        # they put back what they had found: our inert function
        module.forward = ours  # type: ignore[method-assign]
        assert module(5) == 10
    with Replacing([(module, "forward", adding(1))]) as patch:
        assert module(5) == 11
        assert patch._installed[0][1].below is None
    assert "forward" not in module.__dict__


def test_a_foreign_removal_is_respected() -> None:
    module = Double()
    with Replacing([(module, "forward", adding(1))]):
        del module.forward
        assert module(5) == 10
    assert "forward" not in module.__dict__


def test_middle_of_the_chain_can_leave_first() -> None:
    module = Double()
    lower, upper = Replacing([(module, "forward", adding(1))]), Replacing([(module, "forward", adding(100))])
    with upper:
        pass  # entering and leaving before it is needed must not matter
    lower.__enter__()
    upper.__enter__()
    assert module(5) == 111
    lower.undo()
    assert module(5) == 110
    upper.undo()
    assert module(5) == 10
    with Replacing([(module, "forward", adding(1))]):
        assert module(5) == 11
    assert module(5) == 10


def test_entering_and_leaving_twice() -> None:
    module = Double()
    patch = Replacing([(module, "forward", adding(1))])
    with patch, patch:
        assert module(5) == 11
    patch.undo()
    assert "forward" not in module.__dict__
    with patch:
        assert module(5) == 11
    assert module(5) == 10


class Interrupted(BaseException):
    """Hosts interrupt with exceptions that are no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, Interrupted])
def test_any_exception_restores(error: type[BaseException]) -> None:
    module = Double()

    def fail(previous, x):
        raise error("inside")

    with pytest.raises(error), Replacing([(module, "forward", fail)]):
        module(5)
    assert "forward" not in module.__dict__
    assert module(5) == 10


def test_a_failure_while_entering_undoes_the_first_half() -> None:
    module = Double()
    patch = Replacing([(module, "forward", adding(1)), (None, "forward", adding(1))])  # type: ignore[list-item]
    with pytest.raises((TypeError, AttributeError)):
        patch.__enter__()
    assert "forward" not in module.__dict__
    assert not patch.active


def test_a_stale_wrapper_holds_nothing_of_ours() -> None:
    class Settings:
        amount = 1

    module, settings = Double(), Settings()
    with Replacing(
        [(module, "forward", lambda previous, x, held=settings: previous(x) + held.amount)]
    ) as patch:
        wrap(module, 100)
        assert module(5) == 111
    watch = weakref.ref(settings)
    del settings, patch
    gc.collect()
    assert watch() is None
    assert module(5) == 110


def test_the_patch_does_not_keep_the_module_alive() -> None:
    module = Double()
    with Replacing([(module, "forward", adding(1))]):
        stale = module.forward
    watch = weakref.ref(module)
    del module
    gc.collect()
    assert watch() is None
    with pytest.raises(RuntimeError, match="does not exist any more"):
        stale(5)


def test_signature_is_that_of_the_class_forward() -> None:
    module = Double()
    plain = inspect.signature(module.forward)
    with Replacing([(module, "forward", adding(1))]):
        assert inspect.signature(module.forward) == plain


# globals of a Python module


def module_with(**names) -> types.ModuleType:
    module = types.ModuleType("host")
    module.__dict__.update(names)
    return module


def test_a_replacement_is_given_the_previous_function_and_every_argument():
    host = module_with(attention=lambda a, b=0: ("host", a, b))
    with Replacing([(host, "attention", lambda previous, *args, **kw: ("ours", previous(*args, **kw)))]):
        assert host.attention(1, b=2) == ("ours", ("host", 1, 2))
    assert host.attention(1, b=2) == ("host", 1, 2)


def test_a_global_entered_and_left_twice():
    def function():
        return "host"

    host = module_with(f=function)
    replacing = Replacing([(host, "f", lambda previous: "our " + previous())])
    with replacing, replacing:
        assert host.f() == "our host"
        assert replacing.active
    replacing.undo()
    assert host.f is function
    assert not replacing.active


def test_a_half_finished_entry_is_undone():
    def function():
        return "host"

    host = module_with(f=function)
    replacing = Replacing([(host, name, lambda previous: "ours") for name in ("f", "missing")])
    with pytest.raises(AttributeError), replacing:
        pytest.fail("the module has no such function")
    assert host.f is function
    assert "missing" not in host.__dict__


def test_all_modules_that_hold_the_function_are_replaced():
    def function():
        return "host"

    flux, chroma = module_with(f=function), module_with(f=function)
    with Replacing([(held, "f", lambda previous: "our " + previous()) for held in (flux, chroma)]):
        assert flux.f() == chroma.f() == "our host"
    assert flux.f is chroma.f is function


def test_somebody_elses_wrapper_stays_and_ours_inside_it_goes_quiet(caplog):
    host = module_with(f=lambda: "host")
    with caplog.at_level(logging.INFO, logger="scalediff"):
        with Replacing([(host, "f", lambda previous: "our " + previous())]):
            ours = host.f

            def theirs():
                return "their " + ours()

            host.f = theirs
            assert host.f() == "their our host"
        assert host.f is theirs
    assert host.f() == "their host"
    assert "host.f was wrapped or reset by somebody else" in caplog.text


def test_stale_globals_do_not_pile_up():
    host = module_with(f=lambda: "host")
    with Replacing([(host, "f", lambda previous: "first " + previous())]):
        stale = host.f
    host.f = stale  # somebody kept ours and put it back later
    with Replacing([(host, "f", lambda previous: "second " + previous())]):
        assert host.f() == "second host"
    assert host.f() == "host"


class TestWhoseForwardItIs:
    def test_the_own_one_is_nobodys(self) -> None:
        module = Double()
        assert put_by_others(module) is None
        assert put_by_others(nn.Conv2d(1, 1, 1), "_conv_forward") is None
        with Replacing([(module, "forward", adding(1))]), Replacing([(module, "forward", adding(2))]):
            assert put_by_others(module) is None
        module.forward = module.forward  # type: ignore[method-assign]  # what is left when they take theirs back
        assert put_by_others(module) is None

    def test_somebodys_lies_on_the_module_or_below_ours(self) -> None:
        module = Double()
        wrap(module, 1)
        with Replacing([(module, "forward", adding(1))]):
            assert str(put_by_others(module)).endswith("wrap.<locals>.<lambda>")

    def test_somebodys_lies_on_the_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spaces: dict = {"__name__": "their_extension", "functools": functools, "own": nn.Linear.forward}
        exec("@functools.wraps(own)\ndef theirs(self, x):\n    return own(self, x)", spaces)
        monkeypatch.setattr(nn.Linear, "forward", spaces["theirs"])
        assert put_by_others(nn.Linear(1, 1)) is not None

    def test_a_decorator_of_torchs_is_nobodys(self) -> None:
        class Quiet(nn.Module):
            @torch.no_grad()
            def forward(self, x: int) -> int:
                return x

        assert put_by_others(Quiet()) is None
