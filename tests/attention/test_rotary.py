"""Every form in which a host may hold its angles turns tokens the same way."""

from __future__ import annotations

import math
import weakref

import pytest
import reference_joint
import torch

from scalediff.attention import rotary
from scalediff.attention.rotary import axial_table, rotation

GRID, AXES, TEXT = (5, 4), (2, 4, 6), 3
DIM = sum(AXES)


def literal(x: torch.Tensor, place: tuple[int, int] | None = None) -> torch.Tensor:
    """Image tokens turned one by one, all by `place` if one is given."""
    out = torch.empty_like(x, dtype=torch.float64)
    for b in range(x.shape[0]):
        for token in range(x.shape[2]):
            row, column = place or divmod(token, GRID[1])
            out[b, :, token] = reference_joint.turned(x[b, :, token].double(), row, column, AXES)
    return out


def forms() -> dict[str, object]:
    matrices = axial_table(GRID, AXES, text_length=TEXT)
    cos, sin = matrices[0, 0, :, :, 0, 0], matrices[0, 0, :, :, 1, 0]

    def by_function(x, ids):
        out = torch.empty_like(x)
        for token, (row, column) in enumerate(ids.tolist()):
            for b in range(x.shape[0]):
                out[b, :, token] = reference_joint.turned(x[b, :, token], row, column, AXES)
        return out

    return {
        "matrices": matrices,
        "matrices of the image only": matrices[:, :, TEXT:],
        "matrices without batch": matrices[0, 0],
        "matrices per sample": matrices[:, 0].expand(2, -1, -1, -1, -1),
        "cos and sin": (cos, sin),
        "cos and sin twice": (cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)),
        "complex": torch.complex(cos, sin),
        "function": by_function,
    }


@pytest.mark.parametrize("form", forms())
def test_all_forms_turn_alike(form):
    x = torch.randn(2, 3, GRID[0] * GRID[1], DIM)
    before = x.clone()
    turn = rotation(forms()[form], grid=GRID, text_length=TEXT, dim=DIM)
    torch.testing.assert_close(turn.image(x).double(), literal(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turn.at(x, 4, 2).double(), literal(x, (4, 2)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turn.take(slice(1, 2)).image(x[1:]), turn.image(x)[1:])
    assert torch.equal(x, before)


def test_samples_keep_their_own_table():
    tables = torch.cat([axial_table(GRID, AXES), axial_table(GRID, AXES, theta=50.0)])
    x = torch.randn(2, 1, GRID[0] * GRID[1], DIM)
    turn = rotation(tables, grid=GRID, text_length=0, dim=DIM)
    second = rotation(tables[1:], grid=GRID, text_length=0, dim=DIM)
    assert torch.equal(turn.take(slice(1, 2)).image(x[1:]), second.image(x[1:]))
    assert not torch.equal(turn.take(slice(0, 1)).image(x[1:]), second.image(x[1:]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_turned_in_fp32(dtype):
    x = torch.randn(1, 2, GRID[0] * GRID[1], DIM).to(dtype)
    turn = rotation(axial_table(GRID, AXES), grid=GRID, text_length=0, dim=DIM)
    assert torch.equal(turn.image(x), turn.image(x.float()).to(dtype))


def test_chunks_do_not_change_the_result(monkeypatch):
    x = torch.randn(2, 3, GRID[0] * GRID[1], DIM)
    turn = rotation(axial_table(GRID, AXES), grid=GRID, text_length=0, dim=DIM)
    whole = turn.image(x)
    monkeypatch.setattr(rotary, "CHUNK_ELEMENTS_CPU", 7 * 2 * 3 * DIM)
    assert torch.equal(turn.image(x), whole)


def test_a_table_is_prepared_once(monkeypatch):
    """All layers of a model call are given the same table."""
    prepared = []
    prepare = rotary._from_table
    monkeypatch.setattr(rotary, "_from_table", lambda rope, **kw: prepared.append(1) or prepare(rope, **kw))
    x = torch.randn(1, 2, GRID[0] * GRID[1], DIM)
    table = axial_table(GRID, AXES)

    def turned(rope, **changed):
        return rotation(rope, **{"grid": GRID, "text_length": 0, "dim": DIM, **changed}).image(x)

    first = turned(table)
    assert torch.equal(turned(table), first)
    assert len(prepared) == 1
    table.copy_(axial_table(GRID, AXES, theta=50.0))  # written to: not the same table any more
    assert torch.equal(turned(table), turned(table.clone()))
    assert not torch.equal(turned(table), first)
    with pytest.raises(ValueError, match="positions"):
        turned(table, text_length=1, grid=(5, 5))


def test_no_table_is_kept_alive():
    table = axial_table(GRID, AXES)
    rotation(table, grid=GRID, text_length=0, dim=DIM).image(torch.randn(1, 2, GRID[0] * GRID[1], DIM))
    gone = weakref.ref(table)
    assert rotary._latest._made is not None
    del table
    assert gone() is None
    assert rotary._latest._made is None


def test_a_table_of_double_precision_keeps_it():
    rows = torch.arange(GRID[0] * GRID[1], dtype=torch.float64)[:, None] * torch.rand(DIM // 2).double()
    table = (rows.cos(), rows.sin())
    turn = rotation(table, grid=GRID, text_length=0, dim=DIM)
    x = torch.randn(1, 2, GRID[0] * GRID[1], DIM, dtype=torch.float64)
    turn.image(x.float())
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.complex(*table)
    torch.testing.assert_close(turn.image(x), torch.view_as_real(pairs).flatten(-2), rtol=1e-12, atol=1e-12)


def test_no_tokens_stay_no_tokens():
    turn = rotation(axial_table(GRID, AXES), grid=GRID, text_length=0, dim=DIM)
    assert turn.at(torch.zeros(2, 3, 0, DIM), 1, 1).shape == (2, 3, 0, DIM)


def test_table_holds_the_ids_of_text_and_image():
    table = axial_table((3, 300), (2, 2, 2), text_length=2)
    assert table.shape == (1, 1, 2 + 900, 3, 2, 2)
    torch.testing.assert_close(table[0, 0, 0], torch.eye(2).expand(3, 2, 2))
    row, column = table[0, 0, 2 + 300 + 299, 1], table[0, 0, 2 + 300 + 299, 2]
    assert row[1, 0].item() == pytest.approx(math.sin(1), abs=1e-6)
    # bf16 ids would make 300 of 299 here
    assert column[0, 0].item() == pytest.approx(math.cos(299), abs=1e-6)


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        (axial_table((5, 5), AXES), "positions"),
        (torch.zeros(20, 5, 2, 2), "matrices"),
        (torch.zeros(20, DIM), "matrices"),
        ((torch.zeros(20, DIM), torch.zeros(20, 6)), "one shape"),
        ((torch.zeros(20, 5), torch.zeros(20, 5)), "angles"),
        ((torch.rand(20, DIM), torch.rand(20, DIM)), "twice"),
        (torch.zeros(1, 1, 1, 20, 6, 2, 2), "too many axes"),
        (3, "callable"),
    ],
)
def test_other_shapes_are_refused(rope, words):
    with pytest.raises(ValueError, match=words):
        rotation(rope, grid=GRID, text_length=TEXT, dim=DIM)


@pytest.mark.parametrize("axes", [(2, 4), (1, 4, 6), (2, -2, 4)])
def test_axes_must_be_three_even_counts(axes):
    with pytest.raises(ValueError, match="axes"):
        axial_table(GRID, axes)
