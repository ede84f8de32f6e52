"""Several replacements of one function, undone in any order and from several threads: none is left behind."""

from __future__ import annotations

import functools
import itertools
import random
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_vae import small_vae
from torch import nn

from scalediff.models.replacing import Replacing, is_replaced
from scalediff.vae.tiled import TiledVAE

ORDERS = list(itertools.permutations("ABC"))


class Trace(nn.Module):
    def forward(self) -> str:
        return ""


def host_function() -> str:
    return ""


class Place:
    """A module's forward or a Python module's global, and what of it is left in the holder."""

    def __init__(self, kind: str) -> None:
        self.holder: Any = Trace() if kind == "forward" else types.ModuleType("host")
        self.name = kind
        if kind != "forward":
            self.holder.attention = host_function

    def __call__(self) -> str:
        return getattr(self.holder, self.name)()

    def replacing(self, letter: str) -> Replacing:
        return Replacing([(self.holder, self.name, lambda previous: letter + previous())])

    def is_clean(self) -> bool:
        found = vars(self.holder).get(self.name)
        return found is (None if self.name == "forward" else host_function)

    def wrap(self, letter: str) -> Callable[[], str]:
        """What another extension does: remember the present function and put its own on top."""
        below = getattr(self.holder, self.name)

        @functools.wraps(below)  # copies our mark too
        def theirs() -> str:
            return letter + below()

        setattr(self.holder, self.name, theirs)
        return theirs


@pytest.fixture(params=["forward", "attention"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


@pytest.mark.parametrize("order", ORDERS)
def test_undone_in_any_order_nothing_is_left(place: Place, order: tuple[str, ...]) -> None:
    parts = {letter: place.replacing(letter) for letter in "ABC"}
    for part in parts.values():
        part.__enter__()
    left = "CBA"
    assert place() == left
    for letter in order:
        parts[letter].undo()
        left = left.replace(letter, "")
        assert place() == left
        assert is_replaced(place.holder, place.name) == bool(left)
    assert place.is_clean()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("under", range(4))
def test_a_foreign_wrapper_between_them_stays(place: Place, order: tuple[str, ...], under: int) -> None:
    parts = {letter: place.replacing(letter) for letter in "ABC"}
    theirs = None
    for i, part in enumerate(parts.values()):
        if i == under:
            theirs = place.wrap("f")
        part.__enter__()
    theirs = theirs or place.wrap("f")
    left = place()
    assert sorted(left) == ["A", "B", "C", "f"]
    for letter in order:
        parts[letter].undo()
        left = left.replace(letter, "")
        assert place() == left
    assert vars(place.holder)[place.name] is theirs
    assert place() == "f"


def test_one_that_comes_after_another_has_left_from_below(place: Place) -> None:
    a, b, c = (place.replacing(letter) for letter in "ABC")
    a.__enter__()
    b.__enter__()
    a.undo()
    c.__enter__()
    b.undo()
    a.__enter__()
    assert place() == "AC"
    c.undo()
    a.undo()
    assert place.is_clean()


def test_a_released_link_that_was_put_back_goes_with_the_next_undo(place: Place) -> None:
    with place.replacing("A"):
        with place.replacing("B"):
            stale = getattr(place.holder, place.name)
        setattr(place.holder, place.name, stale)  # somebody had kept it
        assert place() == "A"
        assert is_replaced(place.holder, place.name)
    assert place.is_clean()


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence(place: Place, seed: int) -> None:
    """A list is the model of the chain: newest first."""
    source, parts = random.Random(seed), {letter: place.replacing(letter) for letter in "ABCDE"}
    chain: list[str] = []
    for _ in range(100):
        letter = source.choice("ABCDE")
        if letter in chain:
            parts[letter].undo()
            chain.remove(letter)
        else:
            parts[letter].__enter__()
            chain.insert(0, letter)
        assert place() == "".join(chain)
    for letter in chain:
        parts[letter].undo()
    assert place.is_clean()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """All at once; an exception in one of them is raised here."""
    start, errors = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            start.wait(10)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def test_two_threads_out_of_step(place: Place) -> None:
    a_is_in, b_is_in, a_is_out = (threading.Event() for _ in range(3))

    def work(number: int) -> None:
        if number == 0:
            with place.replacing("A"):
                a_is_in.set()
                assert b_is_in.wait(10)
            a_is_out.set()
        else:
            assert a_is_in.wait(10)
            with place.replacing("B"):
                b_is_in.set()
                assert a_is_out.wait(10)

    in_threads(2, work)
    assert place.is_clean()


def test_many_threads_at_once(place: Place) -> None:
    def work(number: int) -> None:
        for _ in range(300):
            with place.replacing(str(number)):
                assert str(number) in place()

    in_threads(4, work)
    assert place.is_clean()


def test_two_threads_that_decode_at_once_leave_no_forward() -> None:
    vae = small_vae()
    latents = [torch.randn(1, vae.decoder.conv_in.in_channels, 30, 16) for _ in range(2)]
    turns, results, expected = threading.Barrier(2), {}, {}

    def together(done: int, total: int) -> None:
        if expected:
            turns.wait(20)  # tile by tile, so that neither ever runs alone

    def work(number: int) -> None:
        with torch.no_grad():
            results[number] = vae.decoder(latents[number])

    with torch.no_grad(), TiledVAE(vae, lambda part, size: 24, report=together):
        expected.update(enumerate([vae.decoder(latent) for latent in latents]))
        in_threads(2, work)
        inside = [name for name, module in vae.named_modules() if "forward" in vars(module)]
    assert inside == ["encoder", "decoder"]
    assert [name for name, module in vae.named_modules() if "forward" in vars(module)] == []
    for number, result in results.items():
        torch.testing.assert_close(result, expected[number])
