"""Our kernel against the loops: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scalediff.attention import kernel, launch
from scalediff.attention.kernel import KernelUnavailable, attend_windows, available
from scalediff.attention.patches import patches_of
from scalediff.method.geometry import query_spans, window_starts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}

needs_triton = pytest.mark.skipif(not available(DEVICE), reason="no Triton, or none for this card")


def qkv(
    grid: tuple[int, int],
    *,
    batch: int = 1,
    heads: int = 1,
    dim: int = 32,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """As models lay them out: views [B, heads, tokens, D] of [B, tokens, heads * D]."""
    source = torch.Generator().manual_seed(0)
    shape = (batch, grid[0] * grid[1], heads, dim)
    return [torch.randn(shape, generator=source).to(DEVICE, dtype).transpose(1, 2) for _ in range(3)]


def check(q: Tensor, k: Tensor, v: Tensor, grid, window, offset=(0, 0)) -> Tensor:
    out = attend_windows(q, k, v, grid, window, offset=offset)
    expected = reference.neighborhood_attention(*(t.cpu() for t in (q, k, v)), grid, window, offset=offset)
    assert out.dtype == q.dtype
    assert out.shape == q.shape
    assert out.transpose(1, 2).is_contiguous()
    assert (out.cpu().double() - expected).abs().max() <= TOLERANCE[q.dtype]
    return out


@needs_triton
@pytest.mark.parametrize("dim", [32, 40, 64, 80, 96, 128, 160])
def test_every_head_dimension_equals_the_loops(dim: int) -> None:
    check(*qkv((5, 6), dim=dim), (5, 6), (4, 6), (1, 2))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [40, 64, 160])
def test_half_precision_equals_the_loops(dim: int, dtype: torch.dtype) -> None:
    check(*qkv((5, 6), dim=dim, dtype=dtype), (5, 6), (4, 6), (1, 2))


@needs_triton
@pytest.mark.parametrize(
    ("grid", "window", "offset"),
    [
        ((8, 8), (4, 4), (0, 0)),
        ((13, 11), (8, 8), (0, 0)),  # ragged last patches
        ((12, 5), (8, 8), (0, 0)),  # one axis narrower than its window
        ((11, 10), (6, 4), (3, 1)),  # a row of patches that is padding only
        ((9, 16), (7, 8), (0, 4)),
        ((4, 4), (8, 8), (0, 0)),
        ((7, 1), (2, 3), (1, 0)),
        ((18, 20), (16, 16), (5, 0)),  # more queries and keys than a block
    ],
)
def test_every_grid_equals_the_loops(grid: tuple, window: tuple, offset: tuple) -> None:
    check(*qkv(grid, dim=16), grid, window, offset)


@needs_triton
@settings(max_examples=5, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    window=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    dim=st.integers(1, 24),
    data=st.data(),
)
def test_any_shape_equals_the_loops(
    height: int, width: int, window: tuple[int, int], dim: int, data: st.DataObject
) -> None:
    tops, lefts = (max(1, min(w, n) // 2) for w, n in zip(window, (height, width)))
    offset = (data.draw(st.integers(0, tops)), data.draw(st.integers(0, lefts)))
    if height * width // (tops * lefts) > 12:
        window = (max(4, window[0]), max(4, window[1]))
        offset = (min(offset[0], tops), min(offset[1], lefts))
    check(*qkv((height, width), dim=dim), (height, width), window, offset)


@needs_triton
def test_samples_heads_and_their_own_offsets() -> None:
    grid, window, offsets = (7, 6), (6, 4), [(0, 0), (3, 1), (0, 2)]
    q, k, v = qkv(grid, batch=3, dim=16)
    out = check(q, k, v, grid, window, offsets)
    alone = attend_windows(q[1:2], k[1:2], v[1:2], grid, window, offset=offsets[1])
    assert torch.equal(out[1:2], alone)


@needs_triton
@pytest.mark.parametrize("gap", [8, 3])  # strides of whole 16 bytes, and others
def test_parts_of_wider_tensors_are_read_where_they_lie(gap: int) -> None:
    """q, k and v of one projection, with something between them."""
    grid, heads, dim = (5, 6), 2, 32
    packed = torch.randn(1, 30, 3 * heads * dim + gap, device=DEVICE).half()
    before = packed.clone()
    q, k, v = (
        packed[..., i * heads * dim : (i + 1) * heads * dim].unflatten(2, (heads, dim)).transpose(1, 2)
        for i in range(3)
    )
    check(q, k, v, grid, (4, 4), (1, 1))
    assert torch.equal(packed, before)


@needs_triton
def test_channels_that_do_not_lie_side_by_side() -> None:
    q, k, v = (t.transpose(2, 3).contiguous().transpose(2, 3) for t in qkv((6, 6), dim=16))
    assert q.stride(-1) != 1
    check(q, k, v, (6, 6), (4, 4))


@needs_triton
def test_offsets_beyond_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path for windows over more than 2^31 elements, on a small one."""
    monkeypatch.setattr(launch, "INT32", 1)
    check(*qkv((6, 6), dim=16), (6, 6), (4, 4))


@needs_triton
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (5, 5)}, "grid must be"),
        ({"k": torch.zeros(1, 2, 15, 8)}, "must share one shape"),
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
        attend_windows(q, k, v, grid, window, **arguments)


@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    window=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    data=st.data(),
)
def test_patches_are_those_with_queries(grid: tuple, window: tuple, data: st.DataObject) -> None:
    offset = tuple(data.draw(st.integers(0, max(1, min(w, n) // 2))) for n, w in zip(grid, window))
    patches = patches_of(grid, window, (offset,))
    assert (patches.rows, patches.columns) == tuple(
        len(query_spans(n, w, offset=shift)) for n, w, shift in zip(grid, window, offset)
    )
    starts = window_starts(grid[0], window[0], offset=offset[0])
    assert len(starts) == patches.first_row + patches.rows


def test_channels_come_in_powers_of_two() -> None:
    assert [launch.parts_of(dim) for dim in (8, 16, 32, 40, 64, 80, 96, 128, 160)] == [
        (16, 0), (16, 0), (32, 0), (32, 16), (64, 0), (64, 16), (64, 32), (128, 0), (128, 32)
    ]  # fmt: skip
    assert all(sum(launch.parts_of(dim)) >= dim for dim in range(1, 161))


@pytest.mark.parametrize("dim", [40, 64, 96, 160])
def test_blocks_take_ever_less_shared_memory(dim: int) -> None:
    for dtype in TOLERANCE:
        sizes = [b.keys * b.stages for b in launch.blocks_for(dim, dtype, queries=1024)]
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == len(sizes)


def test_smaller_blocks_where_shared_memory_does_not_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfResources(Exception):  # noqa: N818 - Triton's name
        pass

    tried = []

    def run(blocks: launch.Blocks) -> None:
        tried.append(blocks.stages)
        if blocks.stages == 3:
            raise OutOfResources

    monkeypatch.setattr(launch, "_fitting", {})
    q = torch.empty(1, 1, 4, 64, dtype=torch.float16)
    for _ in range(2):
        launch.run_in_blocks("any", q, 1024, run)
    assert tried == [3, 2, 2]


def test_what_the_kernel_does_not_know_is_unavailable() -> None:
    assert not available("meta")
    assert not available(DEVICE, torch.float64)
    assert not available(DEVICE, torch.float16, 512)
    q = torch.zeros(1, 1, 16, 8, device=DEVICE, dtype=torch.float64)
    with pytest.raises(KernelUnavailable, match=r"8 channels in torch\.float64"):
        attend_windows(q, q, q, (4, 4), (4, 4))
    q = torch.zeros(1, 1, 16, 8, device=DEVICE, requires_grad=True)
    with pytest.raises(KernelUnavailable, match="gradients"):
        attend_windows(q, q, q, (4, 4), (4, 4))


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == "triton" else found(name))
    launch._obstacle.cache_clear()
    try:
        assert not available(DEVICE)
        q = torch.zeros(1, 1, 16, 8, device=DEVICE)
        with pytest.raises(KernelUnavailable, match=r"Triton is not installed|needs a GPU"):
            attend_windows(q, q, q, (4, 4), (4, 4))
    finally:
        launch._obstacle.cache_clear()


def test_a_kernel_that_fails_is_told_once_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launch, "_failed", {})
    monkeypatch.setattr(launch, "_obstacle", lambda *kind: "")
    kernel._plan.cache_clear()
    tried = []

    def fail(*args: object) -> None:
        tried.append(1)
        raise RuntimeError("Failed to find C compiler\nand more")

    monkeypatch.setattr(kernel, "run_in_blocks", fail)
    q = torch.zeros(1, 1, 16, 8, device=DEVICE)
    with caplog.at_level(logging.INFO, "scalediff"):
        for _ in range(2):
            with pytest.raises(KernelUnavailable, match="C compiler"):
                attend_windows(q, q, q, (4, 4), (4, 4))
    assert len(tried) <= 1
    assert len(caplog.messages) == 1
    assert not available(q.device, q.dtype, 8)
    assert available(q.device, torch.float16, 8)


@needs_triton
def test_a_call_of_a_known_kind_is_planned_once_and_fails_as_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scalediff.attention import window_kernel

    q, k, v = qkv((8, 8), heads=2)
    first = attend_windows(q, k, v, (8, 8), (4, 4))
    planned = kernel._plan.cache_info().misses
    assert torch.equal(attend_windows(q, k, v, (8, 8), (4, 4)), first)
    assert kernel._plan.cache_info().misses == planned
    dense = [t.contiguous() for t in (q, k, v)]  # other strides are another kind
    torch.testing.assert_close(attend_windows(*dense, (8, 8), (4, 4)), first)
    assert kernel._plan.cache_info().misses == planned + 1
    q.requires_grad_()
    with pytest.raises(KernelUnavailable, match="gradients"):
        attend_windows(q, k, v, (8, 8), (4, 4))

    class Broken:
        def __getitem__(self, grid: object):
            raise RuntimeError("no device any more")

    monkeypatch.setattr(launch, "_failed", {})
    monkeypatch.setattr(window_kernel, "windows", Broken())
    for _ in range(2):
        with torch.no_grad(), pytest.raises(KernelUnavailable, match="no device any more"):
            attend_windows(q, k, v, (8, 8), (4, 4))
    kernel._plan.cache_clear()


def test_triton_is_not_imported_with_the_package() -> None:
    code = (
        "import sys, scalediff.attention.kernel, scalediff.attention.batched; print('triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
