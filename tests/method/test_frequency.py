"""Low-pass, mixing and the bicubic enlargement: vectors V6 and V7, and the loops."""

from __future__ import annotations

import pytest
import reference
import torch

from scalediff.method.frequency import low_pass, means, mix, upsample_latent, with_means

COLUMNS = [0, 1, 2, 4, 8, 12, 16, 31, 32, 55, 60, 63]
V6 = {
    1 / 8: [4.26786, 4.26786, 4.26786, 4.71987, 8.33594, 12, 16, 31, 32, 54.66406, 58.73214, 58.73214],
    1 / 4: [1.89286, 1.89286, 2.34375, 4.14732, 8, 12, 16, 31, 32, 55, 59.75446, 61.10714],
}
V7_ROW = [0.0, 1, 0, 0, 2, 4, 1, 3]
V7 = [-0.105469, 0.261719, 0.878906, 0.878906, 0.261719, -0.175781, -0.246094, 0.382812]
V7 += [1.335938, 2.769531, 3.933594, 3.460938, 1.539062, 1.136719, 2.441406, 3.210938]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("factor", "expected"), V6.items())
def test_vector_v6_ramp(factor: float, expected: list[float], dtype: torch.dtype) -> None:
    ramp = torch.arange(64, dtype=dtype).expand(64, 64)[None, None]
    low = low_pass(ramp, factor)
    for row in (0, 17, 63):
        torch.testing.assert_close(
            low[0, 0, row, COLUMNS].double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0
        )


def test_vector_v6_impulse() -> None:
    impulse = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    impulse[0, 0, 20, 20] = 1
    coarse, fine = (low_pass(impulse, factor)[0, 0] for factor in (1 / 8, 1 / 4))
    assert float(coarse[20, 20]) == pytest.approx(0.0121775, abs=5e-8)
    assert coarse.max() == coarse[20, 20]
    assert float(coarse[20, 28]) == pytest.approx(0.0008082, abs=5e-8)
    assert float(fine[20, 20]) == pytest.approx(0.0176392, abs=5e-8)
    assert float(fine[21, 21]) == pytest.approx(0.0220337, abs=5e-8)
    assert fine.max() == fine[21, 21]
    assert float(fine[20, 28]) == 0
    for low in (coarse, fine):
        assert float(low.sum()) == pytest.approx(1, abs=1e-9)


def test_vector_v7_bicubic() -> None:
    rows = torch.tensor(V7_ROW, dtype=torch.float64).expand(8, 8)[None, None]
    bigger = upsample_latent(rows, (16, 16))
    assert bigger.shape == (1, 1, 16, 16)
    torch.testing.assert_close(bigger[0, 0, 7], torch.tensor(V7, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (13, 9), (5, 21), (3, 2), (1, 1)])
@pytest.mark.parametrize("factor", [1 / 8, 1 / 4, 1 / 3, 1.0])
def test_low_pass_and_mix_equal_the_loops(size: tuple[int, int], factor: float) -> None:
    a, b = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    torch.testing.assert_close(low_pass(a, factor).double(), reference.low_pass(a, factor), atol=1e-5, rtol=0)
    torch.testing.assert_close(mix(a, b, factor).double(), reference.mix(a, b, factor), atol=1e-5, rtol=0)
    moved, expected = with_means(a, means(b)), reference.with_means_of(a, b)
    torch.testing.assert_close(moved.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (11, 20), (9, 10)])
def test_bicubic_equals_the_loops(size: tuple[int, int]) -> None:
    x = noise(1, 2, 8, 9)
    torch.testing.assert_close(
        upsample_latent(x, size).double(), reference.upsample_latent(x, size), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept_and_arithmetic_is_fp32(dtype: torch.dtype) -> None:
    a, b = noise(1, 4, 24, 16).to(dtype), noise(1, 4, 24, 16, seed=1).to(dtype)
    for fast, slow in (
        (low_pass(a, 0.125), reference.low_pass(a, 0.125)),
        (mix(a, b, 0.125), reference.mix(a, b, 0.125)),
        (with_means(a, means(b)), reference.with_means_of(a, b)),
        (upsample_latent(a, (48, 32)), reference.upsample_latent(a, (48, 32))),
    ):
        assert fast.dtype == dtype
        # rounding the exact result once is all the error that a half format may show
        torch.testing.assert_close(fast.double(), slow, atol=1e-5, rtol=2 * torch.finfo(dtype).eps)


def test_mixing_a_latent_with_itself_changes_nothing() -> None:
    x = noise(1, 4, 20, 12)
    assert torch.equal(mix(x, x, 0.125), x)


def test_mix_takes_lows_and_highs_from_where_it_says() -> None:
    flat, stripes = torch.full((1, 1, 32, 32), 3.0), torch.zeros(1, 1, 32, 32)
    stripes[..., ::2] = 1.0
    mixed = mix(flat, stripes, 0.125)
    assert float(mixed.mean()) == pytest.approx(3.0, abs=1e-4)
    torch.testing.assert_close(
        mixed[..., 8:24, 8:24], 3.0 + stripes[..., 8:24, 8:24] - 0.5, atol=0.01, rtol=0
    )


def test_a_constant_passes_whole() -> None:
    torch.testing.assert_close(
        low_pass(torch.full((1, 2, 9, 30), 7.0), 0.125), torch.full((1, 2, 9, 30), 7.0)
    )


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.5, float("nan")])
def test_bad_factor(factor: float) -> None:
    with pytest.raises(ValueError, match="factor must be above 0 and at most 1"):
        low_pass(torch.zeros(1, 1, 8, 8), factor)


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match="must share one shape"):
        mix(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 4), 0.5)
    with pytest.raises(ValueError, match=r"latent must be \[B, C, h, w\]"):
        upsample_latent(torch.zeros(1, 4, 2, 8, 8), (16, 16))
