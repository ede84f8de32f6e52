"""The fast attention against the loops, per dtype, and its algebraic identities."""

from __future__ import annotations

import pytest
import reference
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scalediff.attention.windows import neighborhood_attention

TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def qkv(
    grid: tuple[int, int], *, batch: int = 1, heads: int = 2, dim: int = 8, seed: int = 0
) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    shape = (batch, heads, grid[0] * grid[1], dim)
    return [torch.randn(shape, generator=source) for _ in range(3)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("grid", "window", "offset"),
    [
        ((16, 16), (8, 8), (0, 0)),
        ((13, 11), (8, 8), (0, 0)),  # ragged last patches
        ((12, 5), (8, 8), (0, 0)),  # one axis narrower than its window
        ((15, 10), (6, 4), (3, 1)),
        ((9, 16), (7, 8), (0, 4)),
        ((4, 4), (8, 8), (0, 0)),
        ((7, 1), (2, 3), (1, 0)),
    ],
)
def test_equals_the_loops(dtype: torch.dtype, grid: tuple, window: tuple, offset: tuple) -> None:
    q, k, v = (t.to(dtype) for t in qkv(grid, batch=2))
    out = neighborhood_attention(q, k, v, grid, window, offset=offset)
    expected = reference.neighborhood_attention(q, k, v, grid, window, offset=offset)
    assert out.dtype == dtype
    assert out.shape == q.shape
    assert (out.double() - expected).abs().max() <= TOLERANCE[dtype]


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    window=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    data=st.data(),
)
def test_any_grid_equals_the_loops(
    height: int, width: int, window: tuple[int, int], data: st.DataObject
) -> None:
    tops, lefts = (max(1, min(w, n) // 2) for w, n in zip(window, (height, width)))
    offset = (data.draw(st.integers(0, tops)), data.draw(st.integers(0, lefts)))
    q, k, v = qkv((height, width), heads=1, dim=4)
    out = neighborhood_attention(q, k, v, (height, width), window, offset=offset)
    expected = reference.neighborhood_attention(q, k, v, (height, width), window, offset=offset)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


def test_one_window_is_plain_attention_in_one_call() -> None:
    q, k, v = qkv((8, 8))
    calls = []

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        calls.append([q.shape[2], k.shape[2], v.shape[2]])
        return F.scaled_dot_product_attention(q, k, v)

    out = neighborhood_attention(q, k, v, (8, 8), (8, 8), attend=attend)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v))
    assert calls == [[64, 64, 64]]


def test_every_call_sees_one_full_window() -> None:
    q, k, v = qkv((20, 12))
    queries = 0

    def attend(q_part: torch.Tensor, k_part: torch.Tensor, v_part: torch.Tensor) -> torch.Tensor:
        nonlocal queries
        queries += q_part.shape[2]
        assert k_part.shape[2] == v_part.shape[2] == 8 * 8
        return F.scaled_dot_product_attention(q_part, k_part, v_part)

    neighborhood_attention(q, k, v, (20, 12), (8, 8), attend=attend)
    assert queries == 20 * 12


def test_samples_are_independent_and_permuting_them_commutes() -> None:
    q, k, v = qkv((12, 10), batch=3)
    order = [2, 0, 1]
    whole = neighborhood_attention(q, k, v, (12, 10), (8, 6))
    swapped = neighborhood_attention(q[order], k[order], v[order], (12, 10), (8, 6))
    assert torch.equal(swapped, whole[order])
    alone = neighborhood_attention(q[1:2], k[1:2], v[1:2], (12, 10), (8, 6))
    torch.testing.assert_close(alone[0], whole[1])


def test_an_offset_for_each_sample() -> None:
    offsets = [(0, 0), (3, 1), (0, 0), (4, 3)]
    q, k, v = qkv((12, 10), batch=4)
    out = neighborhood_attention(q, k, v, (12, 10), (8, 6), offset=offsets)
    for i, offset in enumerate(offsets):
        part = neighborhood_attention(
            q[i : i + 1], k[i : i + 1], v[i : i + 1], (12, 10), (8, 6), offset=offset
        )
        torch.testing.assert_close(out[i : i + 1], part)
    torch.testing.assert_close(
        out.double(),
        reference.neighborhood_attention(q, k, v, (12, 10), (8, 6), offset=offsets),
        atol=1e-5,
        rtol=0,
    )


def test_a_transposed_view_as_the_models_make_it() -> None:
    tokens = [torch.randn(2, 12 * 10, 3, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    q, k, v = (t.transpose(1, 2) for t in tokens)
    out = neighborhood_attention(q, k, v, (12, 10), (8, 6))
    expected = neighborhood_attention(q.contiguous(), k.contiguous(), v.contiguous(), (12, 10), (8, 6))
    torch.testing.assert_close(out, expected)


def test_gradients_reach_every_token() -> None:
    q, k, v = (t.requires_grad_() for t in qkv((10, 10)))
    neighborhood_attention(q, k, v, (10, 10), (4, 4)).square().sum().backward()
    for t in (q, k, v):
        assert t.grad is not None
        assert t.grad.abs().sum(dim=(0, 1, 3)).min() > 0


def test_the_arguments_are_left_alone() -> None:
    q, k, v = qkv((10, 10))
    before = [t.clone() for t in (q, k, v)]
    neighborhood_attention(q, k, v, (10, 10), (4, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (5, 5)}, "grid must be"),
        ({"k": torch.zeros(1, 2, 15, 8)}, "must share one shape"),
        ({"v": torch.zeros(1, 1, 16, 8)}, "must share one shape"),
        ({"q": torch.zeros(2, 16, 8)}, "must share one shape"),
        ({"window": (0, 4)}, "window must be an integer of at least 1"),
        ({"offset": (3, 0)}, "offset must be an integer from 0 to 2, got 3"),
        ({"offset": [(0, 0), (1, 1)]}, "offset must be one"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    arguments = (
        {name: torch.zeros(1, 2, 16, 8) for name in "qkv"} | {"grid": (4, 4), "window": (4, 4)} | change
    )
    q, k, v, grid, window = (arguments.pop(name) for name in ("q", "k", "v", "grid", "window"))
    with pytest.raises(ValueError, match=message):
        neighborhood_attention(q, k, v, grid, window, **arguments)


def test_a_kernel_that_returns_another_shape_is_refused() -> None:
    q, k, v = qkv((8, 8))
    with pytest.raises(RuntimeError):
        neighborhood_attention(q, k, v, (8, 8), (4, 4), attend=lambda q, k, v: v[:, :, :1])
