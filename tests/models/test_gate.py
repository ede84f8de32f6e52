"""The text gate: blending, masks, and everything that leaves a picture as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mini_unet import mini_unet
from torch import Tensor

from scalediff.models.gate import MOST_COVERED, TextGate, contrast, cross_layers, subject_mask
from scalediff.models.inspection import inspect

SIZE = (8, 12)


def prompt_rows(images: list[int | None]) -> Callable:
    """Rows of a call: those given, whatever the layer."""
    return lambda count: images


@pytest.fixture
def unet():
    return mini_unet((1, 2))


def inputs(batch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A latent, the context of the prompts and that without the subject (of another length)."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 4, *SIZE, generator=source)
    return x, torch.randn(batch, 5, 12, generator=source), torch.randn(batch, 3, 12, generator=source)


def make_gate(unet, background: Tensor, rows: list[int | None], **kwargs) -> TextGate:
    return TextGate(inspect(unet), background, rows=prompt_rows(rows), **kwargs)


def forwards(unet) -> dict[str, object]:
    return {n: m.__dict__["forward"] for n, m in unet.named_modules() if "forward" in m.__dict__}


def half_mask() -> Tensor:
    """1 on the left half of the picture, 0 on the right."""
    mask = torch.zeros(SIZE)
    mask[:, : SIZE[1] // 2] = 1
    return mask


def test_every_self_attention_has_its_cross_attention(unet):
    model_map = inspect(unet)
    layers = cross_layers(model_map)
    assert [layer.name for layer in layers] == [
        layer.name.replace("attn1", "attn2") for layer in model_map.layers
    ]
    modules = dict(unet.named_modules())
    assert all(layer.module is modules[layer.name] for layer in layers)


@pytest.mark.parametrize("strength", [1.0, 0.7])
def test_a_layer_blends_both_prompts_by_the_mask(unet, strength):
    _x, context, background = inputs(1)
    gate = make_gate(unet, background, [0], strength=strength)
    gate.masks = [half_mask()]
    attention = gate._layers[0].module
    tokens = torch.randn(1, SIZE[0] * SIZE[1], 8, generator=torch.Generator().manual_seed(1))
    full, other = attention(tokens, context=context), attention(tokens, context=background)
    weight = (1 - strength * (1 - half_mask())).flatten()[None, :, None]
    with gate.blending(SIZE):
        blended = attention(tokens, context=context)
    torch.testing.assert_close(blended, full * weight + other * (1 - weight))
    assert gate.calls == 1


def test_only_rows_of_the_prompt_are_gated(unet):
    x, context, background = inputs(1)
    plain = unet(x.expand(2, -1, -1, -1), context.expand(2, -1, -1))
    gate = make_gate(unet, background, [0, None])
    gate.masks = [half_mask()]
    with gate.blending(SIZE):
        out = unet(x.expand(2, -1, -1, -1), context.expand(2, -1, -1))
    assert not torch.equal(out[0], plain[0])
    assert torch.equal(out[1], plain[1])


def test_images_have_their_own_masks_and_backgrounds(unet):
    x, context, background = inputs(2)
    gate = make_gate(unet, background, [0, 1])
    gate.masks = [half_mask(), 1 - half_mask()]
    with gate.blending(SIZE):
        together = unet(x, context)
    for image in range(2):
        alone = make_gate(unet, background[image : image + 1], [0])
        alone.masks = [gate.masks[image]]
        with alone.blending(SIZE):
            out = unet(x[image : image + 1], context[image : image + 1])
        torch.testing.assert_close(together[image : image + 1], out)


def test_without_a_mask_nothing_is_touched(unet):
    x, context, background = inputs(1)
    plain = unet(x, context)
    gate = make_gate(unet, background, [0])
    with gate.blending(SIZE):
        assert not forwards(unet)
        assert torch.equal(unet(x, context), plain)
    assert gate.calls == 0


def test_an_image_without_a_mask_stays_byte_for_byte_in_a_batch(unet):
    x, context, background = inputs(2)
    plain = unet(x, context)
    gate = make_gate(unet, background, [0, 1])
    gate.masks = [None, half_mask()]
    with gate.blending(SIZE):
        out = unet(x, context)
    assert torch.equal(out[0], plain[0])
    assert not torch.equal(out[1], plain[1])


def test_a_look_changes_no_output_and_finds_the_place_of_the_difference(unet):
    """The subject's word speaks to the bright cells only, so the two prompts differ there."""
    x, context, background = inputs(1)
    plain = unet(x, context)
    gate = make_gate(unet, background, [0])
    with gate.looking(SIZE):
        assert torch.equal(unet(x, context), plain)
    assert len(gate.masks) == 1
    tokens = torch.zeros(1, SIZE[0] * SIZE[1], 8)
    tokens.unflatten(1, SIZE)[:, 2:5, 3:6] = 6 * torch.randn(8, generator=torch.Generator().manual_seed(3))
    with gate.looking(SIZE):
        gate._layers[0].module(tokens, context=context)
    mask = gate.masks[0]
    assert mask is not None
    assert mask.shape == SIZE
    assert mask[2:5, 3:6].min() > 0.9
    assert mask[7].max() == 0
    assert mask[:, 10:].max() == 0


@pytest.mark.parametrize("leave", ["end", "error"])
def test_everything_is_undone(unet, leave):
    _x, _context, background = inputs(1)
    gate = make_gate(unet, background, [0])
    gate.masks = [half_mask()]
    try:
        with gate.blending(SIZE):
            assert len(forwards(unet)) == len(gate._layers)
            if leave == "error":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert leave == "error"
    assert not forwards(unet)


def test_another_grid_or_a_masked_call_is_left_alone_and_counted(unet):
    _x, context, background = inputs(1)
    gate = make_gate(unet, background, [0])
    gate.masks = [half_mask()]
    attention = gate._layers[0].module
    short, whole = torch.randn(1, 50, 8), torch.randn(1, SIZE[0] * SIZE[1], 8)
    plain, masked = attention(short, context=context), attention(whole, context=context, mask=True)
    with gate.blending(SIZE):
        assert torch.equal(attention(short, context=context), plain)
        assert torch.equal(attention(whole, context=context, mask=True), masked)
    assert sum(gate.fallbacks.values()) == 2
    assert gate.calls == 0


def blob(height: int, width: int, level: float = 1.0) -> Tensor:
    """A flat map with a spot of 3/8 of the sides in its middle."""
    seen = torch.ones(height, width)
    top, left = height * 5 // 16, width * 5 // 16
    seen[top : top + height * 3 // 8, left : left + width * 3 // 8] += level
    return seen


def test_the_sharpest_layers_make_the_mask():
    sharp = [blob(16, 16, 5.0)] * 4
    noise = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) + 1
    expected = subject_mask(sharp, (16, 16))
    assert expected is not None
    assert torch.equal(subject_mask([noise, *sharp, noise], (16, 16)), expected)
    assert contrast(sharp[0]) > contrast(noise)


def test_layers_of_different_levels_agree_on_one_size():
    mask = subject_mask([blob(16, 16, 4.0), blob(8, 8, 4.0)], (32, 32))
    assert mask is not None
    assert mask.shape == (32, 32)
    assert mask[13:19, 13:19].min() > 0.9
    assert mask[:4].max() == 0
    assert mask.min() >= 0
    assert mask.max() <= 1


@pytest.mark.parametrize("seen", [torch.ones(16, 16), torch.zeros(16, 16), blob(16, 16, 0.1)])
def test_flat_maps_show_no_subject(seen):
    assert subject_mask([seen], (16, 16)) is None


def test_a_subject_that_fills_the_picture_is_not_gated():
    seen = torch.ones(16, 16)
    seen[3:, :] = 9.0
    assert float((seen > 1).float().mean()) > MOST_COVERED
    assert subject_mask([seen], (16, 16)) is None


def test_no_layer_no_mask():
    assert subject_mask([], (16, 16)) is None
