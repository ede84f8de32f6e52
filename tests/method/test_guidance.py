"""Guidance weight (vectors V4 and V5) and the guided estimate against the loops."""

from __future__ import annotations

import pytest
import reference
import torch

from scalediff.method.frequency import low_pass
from scalediff.method.guidance import StructureGuidance, gamma, guide

# t: (abar, sigma, gamma with tau = 381)
V4 = {
    381: (0.455239, 1.09391, 1.00000),
    361: (0.488180, 1.02393, 0.93953),
    341: (0.521540, 0.95781, 0.87829),
    321: (0.555145, 0.89517, 0.81661),
    301: (0.588819, 0.83565, 0.75479),
    281: (0.622385, 0.77892, 0.69317),
    261: (0.655669, 0.72468, 0.63208),
    241: (0.688499, 0.67263, 0.57181),
    221: (0.720709, 0.62251, 0.51268),
    201: (0.752143, 0.57405, 0.45498),
    181: (0.782654, 0.52698, 0.39897),
    161: (0.812108, 0.48100, 0.34491),
    141: (0.840382, 0.43582, 0.29301),
    121: (0.867370, 0.39104, 0.24346),
    101: (0.892981, 0.34619, 0.19645),
    81: (0.917138, 0.30058, 0.15211),
    61: (0.939783, 0.25313, 0.11054),
    41: (0.960873, 0.20179, 0.07182),
    21: (0.980381, 0.14146, 0.03601),
    1: (0.998296, 0.04131, 0.00313),
}
V4_TAU_400 = {381: 0.94656, 301: 0.71446, 201: 0.43067, 101: 0.18595, 1: 0.00296}
SIGMA_400 = 1.16439
V5 = [0.8257, 0.8051, 0.7831, 0.7595, 0.7343, 0.7072, 0.6780, 0.6464, 0.6123]
V5 += [0.5751, 0.5345, 0.4901, 0.4412, 0.3871, 0.3270, 0.2598, 0.1841, 0.0982]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("t", V4)
def test_vector_v4(t: int, prediction: str) -> None:
    abar, sigma, expected = V4[t]
    assert gamma(sigma, V4[381][1], prediction) == pytest.approx(expected, abs=1.5e-5)
    assert reference.gamma_of_abar(abar, V4[381][0]) == pytest.approx(expected, abs=1.5e-5)
    assert reference.alphas_cumprod()[t] == pytest.approx(abar, abs=1e-6)


@pytest.mark.parametrize("t", V4_TAU_400)
def test_vector_v4_with_the_papers_tau(t: int) -> None:
    assert gamma(V4[t][1], SIGMA_400, "eps") == pytest.approx(V4_TAU_400[t], abs=1.5e-5)


@pytest.mark.parametrize("sigma", V5)
def test_vector_v5_flow_weight_is_sigma(sigma: float) -> None:
    assert gamma(sigma, V5[0], "flow") == sigma


def test_tensor_of_sigmas() -> None:
    sigmas = torch.tensor([row[1] for row in V4.values()])
    expected = torch.tensor([row[2] for row in V4.values()])
    torch.testing.assert_close(gamma(sigmas, V4[381][1], "v"), expected, atol=1.5e-5, rtol=0)


def test_weight_falls_from_one_to_zero() -> None:
    weights = [gamma(sigma, 2.0, "eps") for sigma in (2.0, 1.0, 0.5, 0.1, 0.0)]
    assert weights[0] == 1
    assert weights == sorted(weights, reverse=True)
    assert weights[-1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_guide_equals_the_loops(dtype: torch.dtype) -> None:
    x0, low = noise(2, 4, 16, 24).to(dtype), noise(2, 4, 16, 24, seed=1).to(dtype)
    result = guide(x0, low, 0.7, 0.125)
    assert result.dtype == dtype
    torch.testing.assert_close(
        result.double(), reference.guide(x0, low, 0.7, 0.125), atol=1e-5, rtol=2 * torch.finfo(dtype).eps
    )


def test_no_weight_changes_nothing_but_gives_a_fresh_tensor() -> None:
    x0 = noise(1, 4, 16, 16)
    result = guide(x0, noise(1, 4, 16, 16, seed=1), 0.0, 0.125)
    assert torch.equal(result, x0)
    assert result is not x0
    assert result.data_ptr() != x0.data_ptr()


def test_a_weight_for_each_sample() -> None:
    x0, low = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
    weights = torch.tensor([0.0, 0.4, 1.0])
    result = guide(x0, low, weights, 0.25)
    for i, weight in enumerate(weights.tolist()):
        torch.testing.assert_close(result[i : i + 1], guide(x0[i : i + 1], low[i : i + 1], weight, 0.25))


@pytest.mark.parametrize("sigma", [0.9, torch.tensor(0.9), torch.tensor([0.9, 0.9])])
def test_structure_guidance_is_the_formula(sigma: float | torch.Tensor) -> None:
    x0, ref = noise(2, 4, 16, 16), noise(2, 4, 16, 16, seed=1)
    guidance = StructureGuidance(ref, 0.125, 0.5, sigma_start=1.1, prediction="eps")
    weight = 0.5 * (0.9**2 / (1 + 0.9**2)) / (1.1**2 / (1 + 1.1**2))
    expected = reference.guide(x0, reference.low_pass(ref, 0.125), weight, 0.125)
    torch.testing.assert_close(guidance(x0, sigma).double(), expected, atol=1e-5, rtol=1e-5)


def test_structure_guidance_per_sample_sigma_and_dtype() -> None:
    x0, ref = noise(2, 4, 16, 16).half(), noise(2, 4, 16, 16, seed=1)
    guidance = StructureGuidance(ref, 0.125, 1.0, sigma_start=1.1, prediction="eps")
    result = guidance(x0, torch.tensor([1.1, 0.0]))
    assert result.dtype == torch.float16
    assert torch.equal(result[1], x0[1])
    torch.testing.assert_close(result[0], guide(x0, low_pass(ref, 0.125), 1.0, 0.125)[0])


def test_a_level_above_the_stage_does_not_overshoot() -> None:
    x0, ref = noise(1, 4, 16, 16), noise(1, 4, 16, 16, seed=1)
    guidance = StructureGuidance(ref, 0.125, 1.0, sigma_start=0.5, prediction="eps")
    for sigma in (5.0, torch.tensor(5.0)):
        torch.testing.assert_close(guidance(x0, sigma), guide(x0, low_pass(ref, 0.125), 1.0, 0.125))


def test_another_shape_is_refused_with_both_shapes() -> None:
    guidance = StructureGuidance(noise(1, 4, 16, 16), 0.125, 1.0, sigma_start=1.0, prediction="eps")
    with pytest.raises(ValueError, match=r"\(2, 4, 16, 16\).*\(1, 4, 16, 16\)"):
        guidance(noise(2, 4, 16, 16), 1.0)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="prediction must be one of eps, v, flow, got 'x0'"):
        gamma(1.0, 1.0, "x0")
    with pytest.raises(ValueError, match="sigma_start must be above 0"):
        StructureGuidance(noise(1, 4, 16, 16), 0.125, 1.0, sigma_start=0.0, prediction="eps")
