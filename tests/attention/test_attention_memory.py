"""Windowed attention within a number of bytes: what it takes is counted, and no result changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.log import log_once
from scalediff.attention.memory import Needs, Portion, is_fused, strip_needs
from scalediff.attention.rotary import axial_table
from scalediff.attention.strips import LEAST_QUERIES, Attend
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import window_layout

SDPA = F.scaled_dot_product_attention
GRID, WINDOW, TEXT = (24, 40), (16, 16), 20
AXES = (4, 14, 14)
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


def qkv(dtype: torch.dtype, *, batch: int = 2, heads: int = 4, text: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, text + GRID[0] * GRID[1], heads, sum(AXES))
    return [torch.randn(shape, generator=source).to(dtype).transpose(1, 2) for _ in range(3)]


def keeps_scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A kernel as hosts fall back to: fp32 copies, all scores, and their softmax in the type of v."""
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.softmax(dim=-1).to(v.dtype) @ v


def taken(attend: Attend | None, tensors: list[Tensor], room: int | None, **more: Any) -> tuple[Tensor, int]:
    """The result, and the bytes that it took beside q, k, v and itself."""
    call = joint_neighborhood_attention if "rope" in more else neighborhood_attention
    with LiveBytes() as live:
        out = call(*tensors, GRID, WINDOW, attend=attend, room=room, **more)
    return out, live.peak - out.numel() * out.element_size()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Lines of the log; each comes once in a process, so what earlier tests said is forgotten first."""
    log_once.cache_clear()
    caplog.set_level(logging.INFO, "scalediff")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("attend", [None, keeps_scores])
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("part", [0.6, 0.2, 0.05])
def test_what_is_taken_stays_within_the_room(
    joint: bool, attend: Attend | None, dtype: torch.dtype, part: float, logged: Callable[[], list[str]]
) -> None:
    more = {"text_length": TEXT, "rope": axial_table(GRID, AXES)} if joint else {}
    tensors = qkv(dtype, text=TEXT if joint else 0)
    expected, free = taken(attend, tensors, None, **more)
    room = int(part * free)
    out, bounded = taken(attend, tensors, room, **more)
    assert bounded < free
    assert bounded <= room or any("at least" in line for line in logged())
    assert not (logged() and part > 0.5)
    torch.testing.assert_close(out, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    roomy, _ = taken(attend, tensors, 10 * free, **more)
    assert torch.equal(roomy, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.preserve_format])
def test_fewer_heads_at_once_give_the_same_bits(layout: torch.memory_format) -> None:
    tensors = [t.clone(memory_format=layout) for t in qkv(torch.float32)]
    seen = []

    def noted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(tuple(q.shape[:3]))
        return SDPA(q, k, v)

    expected = neighborhood_attention(*tensors, GRID, WINDOW)
    _, free = taken(None, tensors, None)
    assert torch.equal(taken(None, tensors, free // 3)[0], expected)
    needs = strip_needs(window_layout(GRID, WINDOW), tensors[0].shape[-1], 4, fused=False)
    assert torch.equal(taken(noted, tensors, 4 * needs.all_queries)[0], expected)
    assert {shape[:2] for shape in seen} == {(2, 2)}, "two samples, two of four heads"
    seen.clear()
    taken(noted, tensors, needs.head + 70 * needs.query)
    assert {shape[:2] for shape in seen} == {(1, 1)}
    assert max(shape[2] for shape in seen) == LEAST_QUERIES


def test_the_least_is_taken_and_the_log_says_so_once(logged: Callable[[], list[str]]) -> None:
    tensors = qkv(torch.float32)
    expected = neighborhood_attention(*tensors, GRID, WINDOW, attend=keeps_scores)
    for _ in range(2):
        out, _ = taken(keeps_scores, tensors, 0)
        torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    (line,) = logged()
    assert "MB at least, more than the memory ceiling leaves" in line


def test_images_with_shifts_of_their_own_are_not_copied() -> None:
    tensors = qkv(torch.float32, batch=4)
    offsets = [(3, 5), (0, 2), (3, 5), (0, 2)]
    out, bytes_taken = taken(None, tensors, None, offset=offsets)
    for i, pair in enumerate(offsets):
        alone = neighborhood_attention(*(t[i : i + 1] for t in tensors), GRID, WINDOW, offset=pair)
        assert torch.equal(out[i : i + 1], alone)
    halves = (taken(None, [t[:2] for t in tensors], None, offset=pair)[1] for pair in offsets[:2])
    assert bytes_taken == max(halves)


@pytest.mark.parametrize(
    ("room", "portion"),
    [
        (10_000, (2, 20, None)),
        (5 + 40 * 110, (2, 20, None)),
        (5 + 40 * 110 - 1, (2, 10, None)),  # 19 of 20 heads would leave a piece of one
        (5 + 3 * 110, (2, 1, None)),
        (5 + 110, (1, 1, None)),
        (5 + 109, (1, 1, 64)),
        (0, (1, 1, 64)),
    ],
)
def test_what_runs_at_once(room: int, portion: tuple) -> None:
    needs = Needs(head=10, query=1, queries=100, fixed=5)
    assert Portion.of(needs, batch=2, heads=20, room=room) == Portion(*portion)
    pieces = list(Portion(*portion).pieces(2, 20))
    done = torch.zeros(2, 20)
    for piece in pieces:
        done[piece] += 1
    assert done.eq(1).all()


def test_where_nothing_fits_calls_are_not_made_small_in_vain() -> None:
    needs = Needs(head=10_000, query=1, queries=500)
    assert Portion.of(needs, batch=2, heads=20, room=0) == Portion(1, 1)
    assert Portion.of(needs, batch=2, heads=20, room=needs.least) == Portion(1, 1, LEAST_QUERIES)


def test_torch_is_asked_whether_it_keeps_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    q = qkv(torch.float32)[0]
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda q, k, v: 1, raising=False)
    assert is_fused(q, None)
    assert is_fused(q, SDPA)
    assert not is_fused(q, keeps_scores)
    for answer in (0, -1):
        monkeypatch.setattr(torch, "_fused_sdp_choice", lambda q, k, v, answer=answer: answer)
        assert not is_fused(q, None)
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda q, k: 1)  # another torch's
    assert not is_fused(q, None)
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    assert not is_fused(q, None)
