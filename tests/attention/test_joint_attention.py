"""Joint attention of text and image against the loops, and what must hold whatever the numbers are."""

from __future__ import annotations

import pytest
import reference_joint
import torch
import torch.nn.functional as F

from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.rotary import axial_table
from scalediff.attention.windows import neighborhood_attention

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
AXES = (2, 4, 6)
DIM = sum(AXES)


def qkv(
    grid: tuple[int, int], text: int, *, batch: int = 1, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    shape = (batch, 2, text + grid[0] * grid[1], DIM)
    return [torch.randn(shape, generator=source).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("axes", [None, AXES])
@pytest.mark.parametrize(
    ("batch", "grid", "window", "offset"),
    [
        (1, (8, 8), (4, 4), (0, 0)),
        (1, (9, 7), (4, 4), (1, 2)),  # ragged, and a column of patches that is padding only
        (2, (5, 11), (5, 6), (0, 3)),
        (2, (7, 9), (5, 3), (0, 0)),  # odd windows
        (3, (9, 7), (6, 4), [(0, 0), (3, 1), (2, 2)]),
        (2, (3, 12), (8, 8), (1, 4)),  # narrower than the window
    ],
)
def test_equals_the_loops(dtype, axes, batch, grid, window, offset):
    q, k, v = qkv(grid, 3, batch=batch, dtype=dtype)
    rope = axial_table(grid, axes, text_length=3) if axes else None
    out = joint_neighborhood_attention(q, k, v, grid, window, text_length=3, rope=rope, offset=offset)
    expected = reference_joint.joint_neighborhood_attention(
        q, k, v, grid, window, text_length=3, axes=axes, offset=offset
    )
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


TEXT = 3
TEXT_ANGLES = [[0.3 * token + 0.1 * pair * (token + 1) for pair in range(DIM // 2)] for token in range(TEXT)]


def table_of(angles: list[list[float]], *, twice: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """(cos, sin) [N, D/2] of a list of angles for each token; [N, D], one half after the other."""
    table = torch.tensor(angles, dtype=torch.float64)
    table = torch.cat([table, table], dim=-1) if twice else table
    return table.cos().float(), table.sin().float()


@pytest.mark.parametrize(
    ("halves", "twice", "form"),
    [
        (False, False, "apart"),
        (True, False, "apart"),
        (True, True, "apart"),
        (False, False, "one table"),
        (True, False, "functions"),
    ],
)
@pytest.mark.parametrize("ids", [(0, 0), (-2, -3)])  # from the corner, or from the middle of the canvas
def test_text_with_angles_of_its_own_equals_the_loops(halves, twice, form, ids):
    """The text keeps its angles and is moved by what the corner differs from the first image token."""
    grid, window = (5, 7), (4, 6)
    q, k, v = qkv(grid, TEXT, batch=2)
    places = [(ids[0] + row, ids[1] + column) for row in range(grid[0]) for column in range(grid[1])]
    image = [reference_joint.angles_at(*place, AXES) for place in places]
    rope, text_rope = table_of(image, twice=twice), table_of(TEXT_ANGLES, twice=twice)
    if form == "one table":
        rope = text_rope = table_of([*TEXT_ANGLES, *image])
    elif form == "functions":
        rope, text_rope = by_halves(*rope, grid), by_halves(*text_rope, grid)
    out = joint_neighborhood_attention(
        q, k, v, grid, window, text_length=TEXT, rope=rope, text_rope=text_rope, halves=halves, offset=(1, 0)
    )
    expected = reference_joint.joint_neighborhood_attention(
        q, k, v, grid, window, text_length=TEXT, axes=AXES, offset=(1, 0), ids=ids, text_angles=TEXT_ANGLES,
        halves=halves,
    )  # fmt: skip
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)


def by_halves(cos, sin, grid):
    """A host's function that turns half a head apart, by ids for the image and one after the other for text."""

    def rotate(x, ids):
        rows = ids[:, 0] * grid[1] + ids[:, 1] if len(cos) > TEXT else torch.arange(len(ids)) % TEXT
        first, second = x.chunk(2, dim=-1)
        c, s = cos[rows], sin[rows]
        return torch.cat([c * first - s * second, s * first + c * second], dim=-1)

    return rotate


def test_the_text_of_each_sample_has_its_own_angles():
    grid, window = (5, 4), (4, 4)
    q, k, v = qkv(grid, TEXT, batch=2)
    rope = axial_table(grid, AXES)
    own = torch.cat([axial_table((1, TEXT), AXES), axial_table((TEXT, 1), AXES)])
    out = joint_neighborhood_attention(
        q, k, v, grid, window, text_length=TEXT, rope=rope, text_rope=own, offset=[(0, 0), (1, 1)]
    )
    for i, offset in enumerate([(0, 0), (1, 1)]):
        alone = joint_neighborhood_attention(
            *(t[i : i + 1] for t in (q, k, v)), grid, window,
            text_length=TEXT, rope=rope, text_rope=own[i : i + 1], offset=offset,
        )  # fmt: skip
        torch.testing.assert_close(out[i : i + 1], alone, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(out[0], out[1], atol=1e-3)


@pytest.mark.parametrize("offset", [(0, 0), (2, 3)])
def test_one_window_is_plain_joint_attention_with_text_at_the_origin(offset):
    """Grid = window: every id as the model has it, text at (0, 0, 0), and one ordinary attention over all."""
    grid = (6, 8)
    q, k, v = qkv(grid, 4, batch=2)
    rope = axial_table(grid, AXES, text_length=4)
    out = joint_neighborhood_attention(q, k, v, grid, grid, text_length=4, rope=rope, offset=offset)

    def plain(x):
        pairs = x.reshape(*x.shape[:-1], -1, 1, 2)
        return (rope[..., 0] * pairs[..., 0] + rope[..., 1] * pairs[..., 1]).reshape(x.shape)

    expected = F.scaled_dot_product_attention(plain(q), plain(k), v)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_without_text_it_is_neighborhood_attention():
    q, k, v = qkv((9, 10), 0, batch=2)
    offsets = [(1, 0), (0, 2)]
    out = joint_neighborhood_attention(q, k, v, (9, 10), (4, 4), text_length=0, offset=offsets)
    assert torch.equal(out, neighborhood_attention(q, k, v, (9, 10), (4, 4), offset=offsets))


@pytest.mark.parametrize(
    ("offset", "patch", "corner"),
    [
        ((0, 0), (0, 0), (0, 0)),
        ((0, 0), (1, 2), (16, 48)),
        ((0, 0), (2, 1), (48, 16)),
        ((0, 0), (3, 3), (64, 64)),
        ((5, 20), (2, 1), (43, 0)),
    ],
)
def test_text_stands_at_the_corner_of_the_window_of_its_patch(offset, patch, corner):
    """FLUX at 2048 x 2048: the id that the text has while a given patch is computed."""
    grid, text = (128, 128), 1
    q, k, v = (torch.zeros(1, 1, text + 128 * 128, 2) for _ in range(3))

    def ids_as_values(x, ids):
        return ids.to(x.dtype)[None, None].expand_as(x).clone()

    corners = {}

    def note(queries, keys, values):
        first = queries[0, 0, text:].amin(0)
        corners[tuple(int(n) for n in first)] = (queries[0, 0, 0].tolist(), keys[0, 0, 0].tolist())
        return queries

    joint_neighborhood_attention(
        q, k, v, grid, (64, 64), text_length=text, rope=ids_as_values, offset=offset, attend=note
    )
    first_query = tuple(max(0, i * 32 - shift) for i, shift in zip(patch, offset))
    # patches that share a window are computed together, under the first one's corner
    key = max((c for c in corners if c[0] <= first_query[0] and c[1] <= first_query[1]), key=sum)
    assert corners[key] == (list(map(float, corner)), list(map(float, corner)))


def test_every_patch_sees_text_then_its_window():
    grid, window, text = (8, 8), (4, 4), 2
    q, k, v = qkv(grid, text)
    seen = []

    def note(queries, keys, values):
        assert torch.equal(keys[:, :, :text], k[:, :, :text])
        assert torch.equal(values[:, :, :text], v[:, :, :text])
        assert torch.equal(queries[:, :, :text], q[:, :, :text])
        seen.append((queries.shape[2], keys.shape[2]))
        return queries

    out = joint_neighborhood_attention(q, k, v, grid, window, text_length=text, attend=note)
    assert seen == [(text + 4, text + 16)] * 16
    torch.testing.assert_close(out, q)


def test_batch_rows_do_not_mix():
    """The official code pairs text and patches of different samples when there are two or more."""
    grid, text = (9, 7), 3
    q, k, v = qkv(grid, text, batch=3)
    offsets = [(0, 1), (2, 2), (0, 1)]
    rope = axial_table(grid, AXES)
    out = joint_neighborhood_attention(q, k, v, grid, (4, 4), text_length=text, rope=rope, offset=offsets)
    order = [2, 0, 1]
    moved = joint_neighborhood_attention(
        q[order],
        k[order],
        v[order],
        grid,
        (4, 4),
        text_length=text,
        rope=rope,
        offset=[offsets[i] for i in order],
    )
    torch.testing.assert_close(moved, out[order])
    for i in range(3):
        alone = joint_neighborhood_attention(
            *(t[i : i + 1] for t in (q, k, v)), grid, (4, 4), text_length=text, rope=rope, offset=offsets[i]
        )
        torch.testing.assert_close(alone, out[i : i + 1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("offset", "same_as"), [((2, 0), (0, 0)), ((0, 2), (0, 0)), ((2, 2), (0, 0))])
def test_patches_of_padding_only_do_not_enter_the_mean_of_the_text(offset, same_as):
    """A shift by a whole patch is no shift, for the text too."""
    q, k, v = qkv((8, 8), 3)
    out, expected = (
        joint_neighborhood_attention(q, k, v, (8, 8), (4, 4), text_length=3, offset=pair)
        for pair in (offset, same_as)
    )
    torch.testing.assert_close(out, expected)


def test_patches_that_share_a_window_count_each_in_the_mean():
    """An axis of 5 in windows of 4: patches at 0, 2 and 4 look at the keys from 0, 1 and 1."""
    q, k, v = qkv((5, 4), 1)
    out = joint_neighborhood_attention(q, k, v, (5, 4), (4, 4), text_length=1)
    kept = torch.arange(21)
    upper, lower = kept[:17], torch.cat([kept[:1], kept[5:]])
    per_window = [
        F.scaled_dot_product_attention(q[:, :, :1], k[:, :, keys], v[:, :, keys]) for keys in (upper, lower)
    ]
    torch.testing.assert_close(out[:, :, :1], (per_window[0] + 2 * per_window[1]) / 3)


def test_long_text_in_front_of_narrow_windows():
    """More text than rows above the window: the room for it must not reach into the window."""
    grid = (9, 5)
    q, k, v = qkv(grid, 21)
    rope = axial_table(grid, AXES)
    out = joint_neighborhood_attention(q, k, v, grid, (3, 3), text_length=21, rope=rope)
    expected = reference_joint.joint_neighborhood_attention(q, k, v, grid, (3, 3), text_length=21, axes=AXES)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)


def test_inputs_are_left_alone_and_may_be_views():
    grid = (6, 6)
    packed = torch.randn(2, 4 + 36, 3, 2, DIM)
    before = packed.clone()
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    rope = axial_table(grid, AXES)
    out = joint_neighborhood_attention(q, k, v, grid, (4, 4), text_length=4, rope=rope)
    assert torch.equal(packed, before)
    own = [t.contiguous() for t in (q, k, v)]
    torch.testing.assert_close(
        out, joint_neighborhood_attention(*own, grid, (4, 4), text_length=4, rope=rope)
    )
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_length": 4}, "tokens after the image"),
        ({"text_length": -1}, "at least 0"),
        ({"text_length": True}, "integer"),
        ({"grid": (6, 5)}, "tokens after the image"),
        ({"offset": [(0, 0)] * 3}, "one .top, left. pair"),
        ({"offset": (3, 0)}, "offset"),
        ({"window": (0, 4)}, "window"),
        ({"rope": axial_table((6, 7), AXES)}, "positions"),
        ({"rope": "none"}, "rope"),
        ({"text_rope": axial_table((1, 3), AXES)}, "text_rope says nothing"),
        (
            {"rope": axial_table((6, 6), AXES), "text_rope": axial_table((1, 4), AXES)},
            "have 3 positions, got 4",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    q, k, v = qkv((6, 6), 3)
    given = {"grid": (6, 6), "window": (4, 4), "text_length": 3, **change}
    with pytest.raises(ValueError, match=words):
        joint_neighborhood_attention(q, k, v, given.pop("grid"), given.pop("window"), **given)


def test_a_kernel_that_returns_another_size_is_noticed():
    q, k, v = qkv((6, 6), 3)
    with pytest.raises(RuntimeError):
        joint_neighborhood_attention(
            q, k, v, (6, 6), (4, 4), text_length=3, attend=lambda q, k, v: q[:, :, :1]
        )


def test_queries_are_halved_where_memory_does_not_suffice():
    grid, text = (32, 32), 5
    q, k, v = qkv(grid, text)
    seen = []

    def small(queries, keys, values):
        seen.append(queries.shape[2])
        if queries.shape[2] > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return F.scaled_dot_product_attention(queries, keys, values)

    out = joint_neighborhood_attention(q, k, v, grid, (24, 24), text_length=text, attend=small)
    expected = joint_neighborhood_attention(q, k, v, grid, (24, 24), text_length=text)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    assert seen[:2] == [149, 75]
    assert max(seen[1:]) <= 75
