"""Windows numbered as a native picture, against the literal form: each patch, its window and the text turned anew."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention import local_positions
from scalediff.attention.batched_joint import least_joint_bytes
from scalediff.attention.local_positions import attend_locally
from scalediff.method.geometry import window_layout
from tests.attention.test_batched import Counted, shifts

DIM = 8
Grid = tuple[int, int]


def qkv(grid: Grid, text: int, *, batch: int = 2, heads: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, text + grid[0] * grid[1], heads, DIM)
    return [torch.randn(shape, generator=source).transpose(1, 2) for _ in range(3)]


def matrices(grid: Grid, text: int, *, samples: int = 1) -> Tensor:
    """No rotations: any 2 x 2 matrices, [samples, 1, text + H*W, D/2, 2, 2]."""
    source = torch.Generator().manual_seed(1)
    return torch.randn(samples, 1, text + grid[0] * grid[1], DIM // 2, 2, 2, generator=source)


def times(x: Tensor, table: Tensor, halves: bool) -> Tensor:
    """x [n, D] with each pair of channels times its matrix of `table` [n, D/2, 2, 2], in fp64."""
    x = x.double()
    pairs = x.unflatten(-1, (2, -1)).transpose(-1, -2) if halves else x.unflatten(-1, (-1, 2))
    done = (table.double() @ pairs[..., None])[..., 0]
    return (done.transpose(-1, -2) if halves else done).flatten(-2)


def literal(q, k, v, grid: Grid, window: Grid, *, text: int, table: Tensor, offset, halves: bool) -> Tensor:
    """Token by token for each sample, head and patch."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    offsets = [offset] * len(q) if isinstance(offset[0], int) else offset
    for b in range(len(q)):
        own = table[b if len(table) > 1 else 0, 0]
        places = own[text:].unflatten(0, grid)
        layout = window_layout(grid, window, offsets[b])
        for head in range(q.shape[1]):
            one_q, one_k, one_v = (t[b, head] for t in (q, k, v))
            parts = []
            for row in layout.rows:
                for column in layout.columns:
                    seen, asked = [], []
                    for y in range(row.key_start, row.key_start + layout.window[0]):
                        for x in range(column.key_start, column.key_start + layout.window[1]):
                            seen.append(
                                (text + y * grid[1] + x, places[y - row.key_start, x - column.key_start])
                            )
                    for y in range(row.start, row.stop):
                        for x in range(column.start, column.stop):
                            asked.append(
                                (text + y * grid[1] + x, places[y - row.key_start, x - column.key_start])
                            )
                    before = [(place, own[place]) for place in range(text)]
                    keys, queries = before + seen, before + asked
                    turned = [
                        times(t[[place for place, _ in some]], torch.stack([m for _, m in some]), halves)
                        for t, some in ((one_q, queries), (one_k, keys))
                    ]
                    values = one_v[[place for place, _ in keys]].double()
                    found = F.scaled_dot_product_attention(turned[0][None], turned[1][None], values[None])[0]
                    parts.append(layout.part_of_patches(row, column) * found[:text])
                    for (place, _), result in zip(asked, found[text:]):
                        out[b, head, place] = result
            out[b, head, :text] = torch.stack(parts).sum(0)
    return out


CASES = [
    ((16, 16), (8, 8), (0, 0), 1),
    ((16, 16), (8, 8), (3, 2), 9),
    ((9, 11), (8, 8), (1, 3), 9),  # ragged on all sides
    ((5, 5), (8, 8), (0, 0), 1),  # one window
    ((10, 14), (8, 6), [(0, 0), (3, 2)], 12),
]


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("backend", ["patches", "batched"])
@pytest.mark.parametrize(("grid", "window", "offset", "most"), CASES)
def test_both_ways_are_the_literal_form(
    monkeypatch, grid, window, offset, most, backend, samples, halves
) -> None:
    text = 3
    q, k, v = qkv(grid, text)
    before = [t.clone() for t in (q, k, v)]
    table = matrices(grid, text, samples=samples)
    expected = literal(q, k, v, grid, window, text=text, table=table, offset=offset, halves=halves)
    monkeypatch.setattr(local_positions, "backend_of", lambda *args, **facts: backend)
    attend = Counted()
    out = attend_locally(
        q, k, v, grid, window, text_length=text, table=table, halves=halves, offset=offset, attend=attend
    )
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v)))
    if backend == "batched":
        assert attend.calls <= most


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    window=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    text=st.integers(0, 7),
    room=st.sampled_from([None, 1, 2000, 20_000, 200_000]),
    data=st.data(),
)
def test_any_grid_offset_text_and_room_are_one_call_per_patch(
    grid, window, text, room, data: st.DataObject
) -> None:
    offset = data.draw(shifts(grid, window, batch=2))
    given = {"text_length": text, "table": matrices(grid, text), "offset": offset}
    with pytest.MonkeyPatch.context() as patch:
        q, k, v = qkv(grid, text)
        expected = attend_locally(q, k, v, grid, window, **given)
        patch.setattr(local_positions, "backend_of", lambda *args, **facts: "batched")
        out = attend_locally(q, k, v, grid, window, room=room, **given)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("megabytes", [900, 250, 120])
def test_memory_stays_within_the_room(monkeypatch, megabytes: int) -> None:
    grid, text, heads, dim = (128, 128), 64, 6, 64
    q, k, v = (
        torch.empty(2, heads, text + grid[0] * grid[1], dim, device="meta", dtype=torch.bfloat16)
        for _ in range(3)
    )
    table = torch.empty(1, 1, q.shape[2], dim // 2, 2, 2, device="meta")
    room = megabytes * 1_000_000

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.empty_like(q)

    monkeypatch.setattr(local_positions, "backend_of", lambda *args, **facts: "batched")
    with LiveBytes() as live:
        attend_locally(q, k, v, grid, (64, 64), text_length=text, table=table, attend=attend, room=room)
    least = least_joint_bytes(q, grid, (64, 64), (0, 0), text_length=text, turned=True, attend=attend)
    assert live.peak - q.element_size() * q.numel() <= max(room, least)


def test_what_the_rule_is_told(monkeypatch) -> None:
    seen = {}

    def rule(*args, **facts):
        seen.update(facts)
        return "patches"

    monkeypatch.setattr(local_positions, "backend_of", rule)
    grid, text = (8, 8), 2
    given = {"text_length": text, "table": matrices(grid, text), "exact": True, "choice": "host"}
    attend_locally(*qkv(grid, text), grid, (4, 4), **given)
    assert (seen["exact"], seen["choice"], seen["kernel_knows"]) == (True, "host", False)


def test_patch_by_patch_where_memory_does_not_suffice(monkeypatch) -> None:
    grid, text = (12, 12), 3
    q, k, v = qkv(grid, text)
    given = {"text_length": text, "table": matrices(grid, text)}
    expected = attend_locally(q, k, v, grid, (8, 8), **given)

    def full(*args, **more) -> Tensor:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(local_positions, "backend_of", lambda *args, **facts: "batched")
    monkeypatch.setattr(local_positions, "attend_placed", full)
    assert torch.equal(attend_locally(q, k, v, grid, (8, 8), **given), expected)


@pytest.mark.parametrize("shape", [(1, 1, 66, 4, 2, 2), (3, 1, 67, 4, 2, 2), (1, 67, 4, 2, 2)])
def test_a_table_of_another_shape_is_refused(shape) -> None:
    grid, text = (8, 8), 3
    with pytest.raises(ValueError, match="table must be"):
        attend_locally(*qkv(grid, text), grid, (4, 4), text_length=text, table=torch.zeros(shape))
