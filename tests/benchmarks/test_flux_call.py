"""The ways of the FLUX benchmark compute the same thing, on cores alone and on diffusers' transformer."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import flux_call
from benchmarks.attention_methods import rotated
from benchmarks.flux_call import FLUX, NARROW, Carrier, call_inputs, measure, predicted
from benchmarks.flux_methods import (
    METHODS,
    JointProcessor,
    attending,
    gather_core,
    image_ids,
    windows_core,
)
from scalediff.attention.rotary import axial_table
from scalediff.cost.counts import transformer_work
from scalediff.cost.transformers import TransformerShape

TEXT, DIM, AXES = 5, 16, (4, 6, 6)
SMALL = Carrier(heads=2, dim=32, side=8, text=6, text_width=24, pooled=12, double=2, single=3)


def tokens(side: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(side)
    q, k, v = torch.randn(3, 2, 3, TEXT + side * side, DIM).unbind(0)
    return q, k, v


def table(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin) as diffusers hands them over, each angle twice."""
    matrices = axial_table((side, side), AXES, text_length=TEXT)[0, 0]
    return matrices[..., 0, 0].repeat_interleave(2, -1), matrices[..., 1, 0].repeat_interleave(2, -1)


@pytest.mark.parametrize("side", [8, 16, 24])
def test_gather_and_windows_compute_the_same(side: int) -> None:
    inputs, angles = tokens(side), table(side)
    expected = windows_core((side, side), (8, 8))(*inputs, angles)
    actual = gather_core((side, side), (8, 8))(*inputs, angles)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("core", [windows_core, gather_core])
def test_at_the_native_size_both_are_global_attention(core) -> None:
    (q, k, v), angles = tokens(8), table(8)
    expected = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v)
    torch.testing.assert_close(core((8, 8), (8, 8))(q, k, v, angles), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(windows_core((8, 8), (8, 8))(q, k, v, angles), expected, rtol=1e-4, atol=1e-5)


def test_larger_canvases_are_not_global_attention() -> None:
    (q, k, v), angles = tokens(16), table(16)
    whole = F.scaled_dot_product_attention(rotated(q, angles), rotated(k, angles), v)
    assert not torch.allclose(windows_core((16, 16), (8, 8))(q, k, v, angles), whole, atol=1e-2)


def test_the_processor_hands_text_and_image_to_their_own_projections() -> None:
    plain = dict.fromkeys(("norm_q", "norm_k", "norm_added_q", "norm_added_k"), nn.Identity())
    names = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    layers = {name: nn.Linear(8, 8) for name in names}
    attn = SimpleNamespace(heads=2, to_out=[nn.Linear(8, 8)], **layers, **plain)
    image, text = torch.randn(1, 4, 8), torch.randn(1, 3, 8)
    processor = JointProcessor(lambda q, k, v, angles: v)
    seen, told = processor(attn, image, text, image_rotary_emb=table(8))
    torch.testing.assert_close(seen, attn.to_out[0](attn.to_v(image)))
    torch.testing.assert_close(told, attn.to_add_out(attn.add_v_proj(text)))
    torch.testing.assert_close(processor(attn, image, image_rotary_emb=table(8)), attn.to_v(image))
    assert processor.calls == 2
    with pytest.raises(ValueError, match="mask"):
        processor(attn, image, attention_mask=torch.ones(1), image_rotary_emb=table(8))


def test_a_gpu_with_less_memory_gets_fewer_blocks_in_the_same_proportion() -> None:
    assert FLUX.within(80 * 2**30) == FLUX
    small = FLUX.within(16 * 2**30)
    assert 0 < small.double < FLUX.double
    assert small.single == pytest.approx(2 * small.double, abs=1)
    assert replace(small, double=19, single=38) == FLUX
    shape = TransformerShape.of_dimensions(small.double, small.single, small.heads * small.dim)
    assert 2 * shape.parameters < 16 * 2**30
    assert FLUX.within(0).double == FLUX.within(0).single == 1


def test_the_narrow_carrier_divides_its_work_as_flux_does() -> None:
    shares = []
    for carrier in (NARROW, FLUX):
        shape = TransformerShape.of_dimensions(19, 38, carrier.heads * carrier.dim, text_tokens=carrier.text)
        home = (carrier.side * 2,) * 2
        works = [transformer_work(shape, (home[0] * 4,) * 2, window) for window in (None, home)]
        shares.append([work.attention / work.total for work in works])
    assert shares[0] == pytest.approx(shares[1], abs=0.003)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("diffusers")
    return SMALL.build()


@torch.no_grad()
def test_whole_model_at_the_native_size(model) -> None:
    inputs, grid = call_inputs(model, SMALL, 8), (8, 8)
    expected = model(**inputs).sample
    matrices = axial_table(grid, model.config.axes_dims_rope, text_length=SMALL.text)
    own_table = windows_core(grid, grid)
    cores = {
        "windows": own_table,
        "rotary of ours": lambda q, k, v, _: own_table(q, k, v, matrices),
        "gather": gather_core(grid, grid),
    }
    for name, core in cores.items():
        with attending(model, core) as processor:
            torch.testing.assert_close(model(**inputs).sample, expected, rtol=1e-3, atol=1e-5, msg=name)
        assert processor.calls == SMALL.double + SMALL.single
    with METHODS["MultiDiffusion"](model, grid, grid):
        torch.testing.assert_close(model(**inputs).sample, expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(model(**inputs).sample, expected)  # everything is put back


@torch.no_grad()
def test_measures_every_method(model) -> None:
    row = measure(model, SMALL, 2, list(METHODS), rounds=1)
    assert not row["failed"]
    assert set(row["seconds"]) == set(row["peak_bytes"]) == set(METHODS)
    assert set(row["ratios"]) == set(METHODS) - {"ours"}
    counts = predicted(model, SMALL, 16)
    assert counts["MultiDiffusion"] == 9 * predicted(model, SMALL, 8)["direct"]
    assert counts["ours"] < counts["direct"]


def test_ids_are_told_apart_on_large_canvases() -> None:
    ids = image_ids((300, 2))
    assert ids.shape == (600, 3)
    assert len(ids.unique(dim=0)) == 600
    assert ids[3].tolist() == [0, 1, 1]


def test_real_counts_are_those_of_flux() -> None:
    """Counted from the layers by hand: 204 and 139 TMAC at 2048x2048, 1941 and 550 at 4096x4096."""
    meta = SimpleNamespace(
        transformer_blocks=range(19), single_transformer_blocks=range(38), inner_dim=FLUX.heads * FLUX.dim
    )
    found = {side: flux_call.predicted(meta, FLUX, side) for side in (128, 256)}
    assert found[128]["direct"] / 1e12 == pytest.approx(204, rel=0.01)
    assert found[128]["ours"] / 1e12 == pytest.approx(139, rel=0.01)
    assert found[256]["direct"] / 1e12 == pytest.approx(1941, rel=0.01)
    assert found[256]["ours"] / 1e12 == pytest.approx(550, rel=0.01)
