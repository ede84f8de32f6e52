"""Text and image in few calls: the image's bits are those of one call per patch, within the memory allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention import joint
from scalediff.attention.batched_joint import attend_joint_batched, least_joint_bytes
from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.rotary import axial_table, rotation
from tests.attention.test_batched import Counted, shifts

AXES = (2, 2, 4)
DIM = sum(AXES)


def qkv(grid: tuple[int, int], text: int, *, batch: int = 2, heads: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, text + grid[0] * grid[1], heads, DIM)
    return [torch.randn(shape, generator=source).transpose(1, 2) for _ in range(3)]


def turned_by(x: Tensor, ids: Tensor) -> Tensor:
    """A host's own function: it turns the first pair of channels by the row, the last by the column."""
    out = x.clone()
    for pair, angle in ((slice(0, 2), ids[:, 0]), (slice(DIM - 2, DIM), ids[:, 1])):
        cos, sin = (angle * 0.3).cos()[:, None], (angle * 0.3).sin()[:, None]
        a, b = x[..., pair].split(1, dim=-1)
        out[..., pair] = torch.cat([cos * a - sin * b, sin * a + cos * b], dim=-1)
    return out


def ropes(kind: str, grid: tuple[int, int], text: int) -> dict[str, Any]:
    """Arguments of joint attention for one form of positions."""
    table = axial_table(grid, AXES, text_length=text)
    if kind == "none":
        return {}
    if kind == "function":
        return {"rope": turned_by}
    if kind == "own text":  # ids that run on, as Qwen numbers its text
        own = axial_table((1, text), AXES) if text else table[:, :, :0]
        return {"rope": table, "text_rope": own, "halves": True}
    if kind == "each sample":
        return {"rope": torch.cat([table, axial_table(grid, AXES, theta=50.0, text_length=text)])}
    return {"rope": table}


def by_patches_and_batched(
    grid: tuple[int, int], window: tuple[int, int], text: int, kind: str, **more: Any
) -> tuple[Tensor, Tensor]:
    q, k, v = qkv(grid, text)
    given = ropes(kind, grid, text)
    expected = joint_neighborhood_attention(
        q, k, v, grid, window, text_length=text, offset=more.get("offset", (0, 0)), **given
    )
    before = [t.clone() for t in (q, k, v)]
    turn = rotation(grid=grid, text_length=text, dim=DIM, **given) if given else None
    out = attend_joint_batched(q, k, v, grid, window, text_length=text, rotation=turn, **more)
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v)))
    assert out.stride() == expected.stride()
    return expected, out


@pytest.mark.parametrize("kind", ["table", "none", "function", "own text", "each sample"])
@pytest.mark.parametrize(
    ("grid", "window", "offset", "most"),
    [
        ((32, 32), (8, 8), (0, 0), 1),
        ((32, 32), (8, 8), (3, 4), 4),
        ((17, 21), (16, 16), (5, 3), 9),  # ragged on all sides
        ((10, 10), (16, 16), (0, 0), 1),  # one window
        ((20, 14), (8, 6), [(0, 0), (3, 2)], 12),
    ],
)
def test_the_image_is_bit_identical_to_one_call_per_patch(grid, window, offset, most, kind) -> None:
    attend = Counted()
    expected, out = by_patches_and_batched(grid, window, 5, kind, offset=offset, attend=attend)
    assert torch.equal(out[:, :, 5:], expected[:, :, 5:])
    torch.testing.assert_close(out[:, :, :5], expected[:, :, :5], rtol=1e-5, atol=1e-6)
    assert attend.calls <= most


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    window=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    text=st.integers(0, 7),
    room=st.sampled_from([None, 1, 2000, 20_000, 200_000]),
    data=st.data(),
)
def test_any_grid_offset_text_and_room(grid, window, text, room, data: st.DataObject) -> None:
    offset = data.draw(shifts(grid, window, batch=2))
    expected, out = by_patches_and_batched(grid, window, text, "table", offset=offset, room=room)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("megabytes", [None, 900, 250, 80])
def test_memory_stays_within_the_room(megabytes: int | None) -> None:
    grid, text, heads, dim = (128, 128), 64, 6, 64
    shape = (2, heads, text + grid[0] * grid[1], dim)
    q, k, v = (torch.empty(shape, device="meta", dtype=torch.bfloat16) for _ in range(3))
    room = None if megabytes is None else megabytes * 1_000_000
    turn = rotation(
        axial_table(grid, (16, 24, 24), text_length=text).to("meta"),
        grid=grid,
        text_length=text,
        dim=dim,
        device="meta",
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.empty_like(q)

    def scores(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept = torch.empty(*q.shape[:3], k.shape[2], device="meta", dtype=torch.float32)
        del kept
        return torch.empty_like(q)

    for kernel in (attend, scores):
        if kernel is scores and room is None:
            continue
        with LiveBytes() as live:
            attend_joint_batched(
                q, k, v, grid, (64, 64), text_length=text, rotation=turn, attend=kernel, room=room
            )
        taken = live.peak - q.element_size() * q.numel()
        least = least_joint_bytes(q, grid, (64, 64), (0, 0), text_length=text, turned=True, attend=kernel)
        assert taken <= (16 * q.element_size() * q.numel() if room is None else max(room, least))
        if kernel is attend and room is not None:
            assert least <= room


def test_text_keeps_its_place_where_windows_of_one_corner_are_joined() -> None:
    """The border patches of a grid barely longer than its window see the same keys and count as two."""
    expected, out = by_patches_and_batched((12, 9), (8, 8), 4, "table")
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_returns_another_size_is_noticed() -> None:
    q, k, v = qkv((8, 8), 2)
    with pytest.raises(RuntimeError):
        attend_joint_batched(q, k, v, (8, 8), (4, 4), text_length=2, attend=lambda q, k, v: v[:, :, :1])


def test_queries_are_halved_where_memory_does_not_suffice() -> None:
    q, k, v = qkv((32, 32), 6)
    seen = []

    def small(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(q.shape[2])
        if q.shape[2] > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return F.scaled_dot_product_attention(q, k, v)

    out = attend_joint_batched(q, k, v, (32, 32), (24, 24), text_length=6, attend=small)
    expected = joint_neighborhood_attention(q, k, v, (32, 32), (24, 24), text_length=6)
    torch.testing.assert_close(out, expected)
    assert seen[:2] == [150, 75]


def test_joint_attention_goes_this_way_where_the_rule_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"text_length": 5, "rope": axial_table((16, 16), AXES, text_length=5)}
    q, k, v = qkv((16, 16), 5)
    expected = joint_neighborhood_attention(q, k, v, (16, 16), (8, 8), **given)
    monkeypatch.setattr(joint, "backend_of", lambda *args, **facts: "batched")
    attend = Counted()
    out = joint_neighborhood_attention(q, k, v, (16, 16), (8, 8), attend=attend, **given)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert attend.calls == 1

    def full(*args: Any, **more: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(joint, "attend_joint_batched", full)
    assert torch.equal(joint_neighborhood_attention(q, k, v, (16, 16), (8, 8), **given), expected)
