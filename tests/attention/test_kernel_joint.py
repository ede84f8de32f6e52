"""Text and image in our kernel against the loops, with angles in every form; see `test_kernel`."""

from __future__ import annotations

import pytest
import reference_joint
import torch
from torch import Tensor

from scalediff.attention import kernel, launch, turns
from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.kernel import KernelUnavailable, attend_joint, attend_windows, available
from scalediff.attention.rotary import axial_table

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 2e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}
GRID, WINDOW, TEXT, AXES = (5, 7), (4, 6), 3, (2, 4, 6)
DIM = sum(AXES)

pytestmark = pytest.mark.skipif(not available(DEVICE), reason="no Triton, or none for this card")


def qkv(
    grid=GRID, text: int = TEXT, *, batch: int = 1, heads: int = 1, dim: int = DIM, dtype=torch.float32
) -> list:
    source = torch.Generator().manual_seed(0)
    shape = (batch, text + grid[0] * grid[1], heads, dim)
    return [torch.randn(shape, generator=source).to(DEVICE, dtype).transpose(1, 2) for _ in range(3)]


def check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope,
    *,
    text: int = TEXT,
    grid=GRID,
    window=WINDOW,
    offset=(0, 0),
    **also,
):
    """`also`: for the reference, except what attend_joint takes too."""
    own = {name: also[name] for name in ("text_rope", "halves", "room") if name in also}
    out = attend_joint(q, k, v, grid, window, text_length=text, rope=rope, offset=offset, **own)
    for name in ("text_rope", "room"):
        also.pop(name, None)
    expected = reference_joint.joint_neighborhood_attention(
        *(t.cpu() for t in (q, k, v)), grid, window, text_length=text, offset=offset, **also
    )
    assert out.dtype == q.dtype
    assert out.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(out.cpu().double(), expected, atol=TOLERANCE[q.dtype], rtol=TOLERANCE[q.dtype])
    return out


def table_of(angles: list[list[float]], *, halves: bool = False) -> tuple[Tensor, Tensor]:
    """(cos, sin) [N, D/2] of a list of angles for each token, [N, D] by halves."""
    table = torch.tensor(angles, dtype=torch.float64)
    table = torch.cat([table, table], dim=-1) if halves else table
    return table.cos(), table.sin()


@pytest.mark.parametrize(
    ("axes", "dtype"),
    [
        (None, torch.float16),
        (AXES, torch.float32),
        (AXES, torch.float16),
        (AXES, torch.bfloat16),
        ((8, 12, 20), torch.float32),
        ((16, 56, 56), torch.bfloat16),
        ((32, 32, 32), torch.float16),
    ],
)
def test_equals_the_loops(axes, dtype):
    q, k, v = qkv(dim=sum(axes or AXES), dtype=dtype)
    rope = axial_table(GRID, axes, text_length=TEXT).to(DEVICE) if axes else None
    check(q, k, v, rope, axes=axes, offset=(1, 2))


@pytest.mark.parametrize(
    ("grid", "window", "offset", "text"),
    [
        ((6, 6), (4, 4), (2, 1), 2),  # a row of patches that is padding only: not part of the mean
        ((5, 4), (4, 4), (0, 0), 1),  # patches that share a window count each
        ((9, 6), (8, 6), (4, 3), 2),
        ((3, 9), (8, 8), (1, 4), 2),  # narrower than the window
        ((4, 4), (4, 4), (0, 0), 70),  # more text than a block of keys
        ((18, 17), (16, 16), (0, 0), 20),  # more queries than a block
    ],
)
def test_any_grid_and_any_text(grid, window, offset, text):
    q, k, v = qkv(grid, text)
    rope = axial_table(grid, AXES).to(DEVICE)
    check(q, k, v, rope, grid=grid, window=window, offset=offset, text=text, axes=AXES)


def test_samples_have_offsets_of_their_own():
    offsets = [(0, 0), (2, 1)]
    check(*qkv(batch=2), axial_table(GRID, AXES).to(DEVICE), offset=offsets, axes=AXES)


def test_heads_run_one_at_a_time_where_there_is_no_room():
    rope = axial_table(GRID, AXES).expand(-1, 2, -1, -1, -1, -1).contiguous().to(DEVICE)
    check(*qkv(heads=2), rope, axes=AXES, room=1)
    check(*qkv((3, 3), 0), None, grid=(3, 3), text=0, room=1)  # which takes nothing


TEXT_ANGLES = [[0.3 * token + 0.1 * pair * (token + 1) for pair in range(DIM // 2)] for token in range(TEXT)]


# ids from the corner, or from the middle of the canvas
@pytest.mark.parametrize(("halves", "ids"), [(True, (0, 0)), (False, (-2, -3))])
def test_text_with_angles_of_its_own(ids, halves):
    """The text keeps its angles and is moved by what the corner differs from the first image token."""
    q, k, v = qkv()
    places = [(ids[0] + row, ids[1] + column) for row in range(GRID[0]) for column in range(GRID[1])]
    rope = table_of([reference_joint.angles_at(*place, AXES) for place in places], halves=halves)
    check(
        q, k, v, rope, text_rope=table_of(TEXT_ANGLES, halves=halves), axes=AXES, ids=ids, offset=(1, 0),
        text_angles=TEXT_ANGLES, halves=halves,
    )  # fmt: skip


def test_own_angles_of_the_first_image_token_are_no_angles_of_its_own():
    q, k, v = qkv()
    rope = axial_table(GRID, AXES, text_length=TEXT).to(DEVICE)
    plain, own = (
        attend_joint(q, k, v, GRID, WINDOW, text_length=TEXT, rope=rope, text_rope=text_rope)
        for text_rope in (None, rope[:, :, :TEXT])
    )
    torch.testing.assert_close(own, plain)


@pytest.mark.parametrize("halves", [False, True])
def test_agrees_with_the_way_patch_by_patch(halves):
    """Which runs where the kernel does not: the same table with the text's rows in front for both."""
    q, k, v = qkv()
    places = [reference_joint.angles_at(row, column, AXES) for row in range(5) for column in range(7)]
    rope = table_of([*TEXT_ANGLES, *places])
    more = {
        "text_length": TEXT,
        "rope": rope,
        "text_rope": rope,
        "halves": halves,
        "offset": (2, 1),
    }
    out = attend_joint(q, k, v, GRID, WINDOW, **more)
    slow = joint_neighborhood_attention(q, k, v, GRID, WINDOW, choice="patches", **more)
    torch.testing.assert_close(out, slow, atol=2e-5, rtol=2e-5)


def forms() -> dict[str, object]:
    matrices = axial_table(GRID, AXES, text_length=TEXT).to(DEVICE)
    cos, sin = matrices[0, 0, :, :, 0, 0], matrices[0, 0, :, :, 1, 0]

    def by_function(x, ids):
        rows = (ids[:, 0] * GRID[1] + ids[:, 1] + TEXT).long()
        return torch.stack([cos[rows] * x[..., 0::2] - sin[rows] * x[..., 1::2],
                            sin[rows] * x[..., 0::2] + cos[rows] * x[..., 1::2]], dim=-1).flatten(-2)  # fmt: skip

    def by_halves(x, ids):
        rows = (ids[:, 0] * GRID[1] + ids[:, 1] + TEXT).long()
        first, second = x.chunk(2, dim=-1)
        return torch.cat(
            [cos[rows] * first - sin[rows] * second, sin[rows] * first + cos[rows] * second], dim=-1
        )

    return {
        "matrices of the image only": matrices[:, :, TEXT:],
        "matrices without batch": matrices[0, 0],
        "matrices in bf16": matrices.bfloat16(),
        "matrices for each sample": matrices.expand(2, -1, -1, -1, -1, -1).contiguous(),
        "matrices for each head": matrices.expand(2, 2, -1, -1, -1, -1).contiguous(),
        "cos and sin": (cos, sin),
        "cos and sin twice": (cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)),
        "complex": torch.complex(cos, sin),
        "function": by_function,
        "halves: matrices": matrices,
        "halves: cos and sin twice": (cos.repeat(1, 2), sin.repeat(1, 2)),
        "halves: function": by_halves,
    }


def table(form, *, text_rope=None) -> Tensor:
    said = form == "halves: matrices"
    made = turns.turns_of(
        forms()[form],
        text_rope,
        grid=GRID,
        text_length=TEXT,
        dim=DIM,
        halves=said,
        device=torch.device(DEVICE),
    )
    assert made.halves == form.startswith("halves")
    return made.table


@pytest.mark.parametrize("form", forms())
def test_all_forms_of_angles_are_one_table(form):
    expected = table("matrices of the image only")
    assert expected.shape == (4, 1, 1, TEXT + GRID[0] * GRID[1], DIM // 2)
    close = 1e-2 if "bf16" in form else 1e-6
    torch.testing.assert_close(table(form), expected.expand_as(table(form)), atol=close, rtol=close)


@pytest.mark.parametrize(
    "form", ["matrices for each sample", "matrices for each head", "halves: cos and sin twice"]
)
def test_tables_of_every_shape_turn_alike(form):
    q, k, v = qkv(batch=1 if form.startswith("halves") else 2, heads=2 if "head" in form else 1)
    expected = reference_joint.joint_neighborhood_attention(
        *(t.cpu() for t in (q, k, v)),
        GRID,
        WINDOW,
        text_length=TEXT,
        axes=AXES,
        halves=form.startswith("halves"),
    )
    out = attend_joint(q, k, v, GRID, WINDOW, text_length=TEXT, rope=forms()[form])
    torch.testing.assert_close(out.cpu().double(), expected, atol=2e-5, rtol=2e-5)


def test_half_precision_is_turned_in_fp32():
    """Neighbouring pairs of 16 bits are read as words: the same numbers as one by one."""
    q, k, _ = qkv(heads=3, dim=40, dtype=torch.bfloat16)
    table = turns.turns_of(
        axial_table(GRID, (8, 12, 20)),
        None,
        grid=GRID,
        text_length=TEXT,
        dim=40,
        halves=False,
        device=q.device,
    ).table
    turned = kernel._turned(q, k, table, halves=False)
    exact = kernel._turned(q.float(), k.float(), table, halves=False)
    for half, full in zip(turned, exact):
        # the interpreter cuts bits off where a GPU rounds
        torch.testing.assert_close(half.float(), full, atol=0, rtol=2**-7)
        assert torch.equal(half[:, :, :TEXT], full[:, :, :TEXT].bfloat16())  # the text is not turned at all


def test_inputs_are_left_alone_and_may_be_views():
    packed = torch.randn(1, TEXT + 35, 3, 2, DIM, device=DEVICE)
    before = packed.clone()
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    check(q, k, v, axial_table(GRID, AXES).to(DEVICE), axes=AXES)
    assert torch.equal(packed, before)


def test_without_text_it_is_windowed_attention():
    q, k, v = qkv(text=0)
    joint = attend_joint(q, k, v, GRID, WINDOW, text_length=0, offset=(1, 1))
    torch.testing.assert_close(joint, attend_windows(q, k, v, GRID, WINDOW, offset=(1, 1)))


def test_a_table_is_made_once_and_not_kept_alive(monkeypatch):
    made = []
    make = turns._made
    monkeypatch.setattr(turns, "_made", lambda *args: made.append(1) or make(*args))
    q, k, v = qkv()
    table = axial_table(GRID, AXES).to(DEVICE)
    first, second = (attend_joint(q, k, v, GRID, WINDOW, text_length=TEXT, rope=table) for _ in range(2))
    assert torch.equal(first, second)
    assert len(made) == 1
    table.copy_(axial_table(GRID, AXES, theta=50.0))
    assert not torch.equal(attend_joint(q, k, v, GRID, WINDOW, text_length=TEXT, rope=table), first)
    del table
    assert turns._latest._made is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_length": 4}, "tokens after the image"),
        ({"text_length": True}, "integer"),
        ({"offset": [(0, 0)] * 3}, "one .top, left. pair"),
        ({"offset": (3, 0)}, "offset"),
        ({"rope": axial_table((6, 7), AXES)}, "positions"),
        ({"rope": "none"}, "rope"),
        ({"text_rope": axial_table((1, 3), AXES)}, "without rope"),
        ({"rope": axial_table(GRID, AXES), "text_rope": axial_table((1, 2), AXES)}, "text_rope"),
        ({"rope": lambda x, ids: x.cumsum(-1)}, "pairs of channels"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    q, k, v = qkv()
    given = {"grid": GRID, "window": WINDOW, "text_length": TEXT, **change}
    with pytest.raises(ValueError, match=words):
        attend_joint(q, k, v, given.pop("grid"), given.pop("window"), **given)


def test_triton_of_torch_2_1_is_never_asked_to_compile_it(monkeypatch):
    monkeypatch.setattr(launch, "_triton_version", lambda: (2, 1))
    with pytest.raises(KernelUnavailable, match=r"Triton 2\.1"):
        attend_joint(*qkv(), GRID, WINDOW, text_length=TEXT)
