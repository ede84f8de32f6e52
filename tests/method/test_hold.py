"""The subject's mask out of what the prompt changes, and a guidance that holds it."""

from __future__ import annotations

import pytest
import torch

from scalediff.method.hold import HeldGuidance, held_until, subject_mask


def looks(batch: int = 1, *, scale: float = 1.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Differences that are large in a block of 4 x 4 of a latent of 12 x 16, at two levels."""
    source = torch.Generator().manual_seed(0)
    found = []
    for sigma in (2.0, 0.5):
        difference = 0.05 * torch.randn(batch, 4, 12, 16, generator=source)
        difference[:, :, 3:7, 5:9] += 1
        found.append((difference * sigma * scale, torch.full((batch,), sigma)))
    return found


def test_the_mask_is_one_where_the_prompt_acts_and_zero_elsewhere():
    mask = subject_mask(looks())
    assert mask.shape == (1, 1, 12, 16)
    assert mask[0, 0, 4:6, 6:8].min() == 1
    assert mask[0, 0, :, 12:].max() == 0
    assert 0.1 < mask.mean() < 0.35


@pytest.mark.parametrize("times", [1, 4])
def test_the_mask_reaches_a_sixteenth_of_the_picture_beyond_the_subject(times):
    """At its rim the prompt acts less, and objects were drawn once more there."""
    difference = torch.zeros(1, 4, 16 * times, 16 * times)
    difference[:, :, 6 * times : 10 * times, 6 * times : 10 * times] = 1
    mask = subject_mask([(difference, torch.ones(1))])[0, 0]
    assert mask[5 * times : 11 * times, 5 * times : 11 * times].min() == 1
    far = 2 * times + (1 if times > 1 else 0)
    assert mask[: 6 * times - far].max() == 0


def test_the_mask_knows_neither_the_strength_of_the_prompt_nor_other_pictures():
    one = subject_mask(looks())
    torch.testing.assert_close(subject_mask(looks(scale=7.0)), one)
    moved = [(torch.cat([d, d.roll(5, dims=3)]), s.repeat(2)) for d, s in looks()]
    both = subject_mask(moved)
    torch.testing.assert_close(both[:1], one)
    assert both[1, 0, 4:6, 11:13].min() == 1


@pytest.mark.parametrize("difference", [torch.zeros(1, 4, 8, 8), torch.full((1, 4, 8, 8), torch.nan)])
def test_a_prompt_that_changes_nothing_has_no_subject(difference):
    assert subject_mask([(difference, torch.ones(1))]) is None


def test_no_look_has_no_subject():
    assert subject_mask([]) is None


def test_the_held_places_are_the_reference_until_the_level_is_reached():
    reference, x0 = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, 1:3, 1:3] = 1
    guided = HeldGuidance(lambda x, sigma: x + 1, mask, reference, until=0.7)
    above = guided(x0, torch.tensor([0.9, 0.9]))
    assert torch.equal(above[:, :, 3:5, 3:5], reference[:, :, 3:5, 3:5])
    assert torch.equal(above[:, :, :1], (x0 + 1)[:, :, :1])
    assert torch.equal(guided(x0, 0.7), x0 + 1)
    mixed = guided(x0, torch.tensor([0.9, 0.5]))
    assert torch.equal(mixed[0], above[0])
    assert torch.equal(mixed[1], (x0 + 1)[1])


def test_half_precision_keeps_its_type():
    x0 = torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)
    guided = HeldGuidance(lambda x, sigma: x, torch.ones(1, 1, 8, 8), x0.float(), until=0.1)
    assert guided(x0, 1.0).dtype == torch.bfloat16


def test_a_stage_lets_go_some_way_below_its_start():
    assert held_until(700) == 500
    assert held_until(200) == 100
