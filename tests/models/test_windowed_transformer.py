"""Windows of a FLUX-shaped model whose attention function is replaced."""

from __future__ import annotations

import functools
import logging

import pytest
import reference_joint
import torch
import torch.nn.functional as F

from benchmarks.soak import mini_flux
from scalediff.attention.rotary import axial_table
from scalediff.hosts.patcher.kernel import attend_with
from scalediff.models.replacing import Replacing
from scalediff.models.token_layout import TokenLayout, token_grid
from scalediff.models.windowed_transformer import JointWindow

WINDOW, TEXT = (4, 4), 3
ORIGINAL = mini_flux.attention


@pytest.fixture(autouse=True)
def _left_as_found():
    yield
    assert mini_flux.attention is ORIGINAL


@pytest.fixture
def model() -> mini_flux.MiniFlux:
    torch.manual_seed(0)
    return mini_flux.MiniFlux().eval().requires_grad_(False)


def inputs(
    batch: int = 1, size: tuple[int, int] = (14, 11), seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 4, *size, generator=source),
        torch.randn(batch, TEXT, mini_flux.WIDTH, generator=source),
    )


def replacing_attention(replacement) -> Replacing:
    return Replacing([(mini_flux, "attention", replacement)])


def run(model, x, context, window: JointWindow, *, text: int = TEXT) -> torch.Tensor:
    """One model call as a host adapter would make it."""
    grid = token_grid((x.shape[2], x.shape[3]))
    with window.model_call(TokenLayout(grid, text)), replacing_attention(window.with_table):
        return model(x, context)


# the model


@pytest.mark.parametrize("offsets", [None, [(1, 2), (0, 1)]])
def test_every_block_computes_what_the_loops_compute(model, offsets):
    x, context = inputs(batch=2)
    grid = token_grid((14, 11))
    assert grid == (7, 6)

    def literal(previous, q, k, v, pe):
        out = reference_joint.joint_neighborhood_attention(
            q, k, v, grid, WINDOW, text_length=TEXT, axes=mini_flux.AXES, offset=offsets or (0, 0)
        )
        return out.transpose(1, 2).flatten(2).to(q.dtype)

    with replacing_attention(literal):
        expected = model(x, context)
    window = JointWindow(WINDOW, shift=None if offsets is None else lambda layer: offsets)
    torch.testing.assert_close(run(model, x, context, window), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(x, context), expected, atol=1e-3)


def test_every_block_is_counted_and_nothing_falls_back(model):
    window = JointWindow(WINDOW)
    x, context = inputs()
    run(model, x, context, window)
    assert window.calls == len(model.double_blocks) + len(model.single_blocks) == 5
    assert not window.fallbacks


def test_a_grid_that_fits_the_window_is_left_to_the_model(model):
    x, context = inputs(size=(8, 7))
    window = JointWindow(WINDOW)
    assert torch.equal(run(model, x, context, window), model(x, context))
    assert window.calls == 0
    assert not window.fallbacks


def test_samples_of_a_batch_do_not_mix(model):
    x, context = inputs(batch=3)
    drawn = [(0, 1), (2, 2), (1, 0)]
    together = run(model, x, context, JointWindow(WINDOW, shift=lambda layer: drawn))
    for i in range(3):
        own = JointWindow(WINDOW, shift=lambda layer, i=i: [drawn[i]])
        alone = run(model, x[i : i + 1], context[i : i + 1], own)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_uncond_and_cond_get_the_shift_of_their_image_in_one_call_or_in_two(model):
    x, context = inputs(batch=4)
    asked = []

    def shift(layer):
        asked.append(layer)
        return [(layer % 3, 1), (0, layer % 2)]

    together, apart = JointWindow(WINDOW, shift=shift), JointWindow(WINDOW, shift=shift)
    whole = run(model, x, context, together)
    assert asked == list(range(5))
    halves = [run(model, x[part], context[part], apart) for part in (slice(0, 2), slice(2, 4))]
    assert asked == 3 * list(range(5))
    torch.testing.assert_close(whole, torch.cat(halves), atol=1e-5, rtol=1e-4)


def test_the_hosts_kernel_is_used_and_looked_up_late(model, monkeypatch):
    x, context = inputs()
    expected = run(model, x, context, JointWindow(WINDOW))
    window = JointWindow(WINDOW, attend=attend_with(mini_flux, "attention_function"))
    seen = []
    kernel = mini_flux.attention_function

    @functools.wraps(kernel)
    def noted(*args, **kwargs):
        seen.append(args[0].shape[2])
        return kernel(*args, **kwargs)

    monkeypatch.setattr(mini_flux, "attention_function", noted)
    assert torch.equal(run(model, x, context, window), expected)
    assert set(seen) == {TEXT + 4, TEXT + 6}


def test_own_table_stands_in_for_the_hosts(model):
    x, context = inputs()
    expected = run(model, x, context, JointWindow(WINDOW))
    table = axial_table(token_grid((14, 11)), mini_flux.AXES)
    torch.testing.assert_close(
        run(model, x, context, JointWindow(WINDOW, positions=lambda text, device: (table, None))), expected
    )
    other = run(model, x, context, JointWindow(WINDOW, positions=lambda text, device: (table.flip(2), None)))
    assert not torch.allclose(other, expected, atol=1e-3)


# what cannot be windowed


def test_other_token_counts_fall_back_and_say_so_once(model, caplog):
    x, context = inputs()
    window = JointWindow(WINDOW)
    with caplog.at_level(logging.INFO, logger="scalediff"):
        out = run(model, x, context, window, text=TEXT + 1)
    assert torch.equal(out, model(x, context))
    assert window.calls == 0
    assert list(window.fallbacks.values()) == [5]
    assert len(caplog.records) == 1
    assert "its 45 tokens are not 4 of text and 7 x 6 of image" in caplog.text


def test_outside_a_model_call_the_own_attention_runs(model):
    x, context = inputs()
    window = JointWindow(WINDOW)
    with replacing_attention(window.with_table):
        assert torch.equal(model(x, context), model(x, context))
    assert window.calls == 0
    assert window.fallbacks == {"the grid of its tokens is not known": 10}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"mask": torch.ones(1)}, "it is given mask"),
        ({"pe": None}, "rotary table"),
        ({"pe": torch.zeros(1, 1, 7, 8, 2, 2)}, "rotary table"),
        ({"k": torch.zeros(1, 2, 7, 16)}, "differ in shape"),
        ({"q": torch.zeros(1, 45, 32)}, "known axes"),
    ],
)
def test_unknown_arguments_reach_the_previous_function_unchanged(extra, reason):
    window = JointWindow(WINDOW)
    given = {name: torch.zeros(1, 2, TEXT + 42, 16) for name in "qkv"}
    given["pe"] = mini_flux.table(torch.zeros(1, TEXT + 42, 3))
    given.update(extra)
    got = {}

    def previous(q, k, v, pe, **more):
        got.update(q=q, k=k, v=v, pe=pe, **more)
        return "theirs"

    with window.model_call(TokenLayout((7, 6), TEXT)):
        assert window.with_table(previous, **given) == "theirs"
    assert all(got[name] is given[name] for name in given)
    assert [reason in text for text in window.fallbacks] == [True]


def test_options_that_hosts_always_pass_do_no_harm():
    window = JointWindow(WINDOW)
    q = torch.randn(1, 2, TEXT + 42, 16)
    pe = mini_flux.table(torch.zeros(1, TEXT + 42, 3))
    with window.model_call(TokenLayout((7, 6), TEXT)):
        out = window.with_table(None, q, q, q, pe, mask=None, transformer_options={"block": 1})
    assert out.shape == (1, TEXT + 42, 32)
    assert window.calls == 1


def test_sd3_text_and_image_and_image_alone():
    window = JointWindow(WINDOW)
    grid, heads = (7, 6), 2
    q, k, v = (torch.randn(2, TEXT + 42, 32) for _ in range(3))
    split = [t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
    with window.model_call(TokenLayout(grid, TEXT)):
        joint = window.with_heads(mini_flux.joint_attention, q, k, v, heads)
        image = window.with_heads(mini_flux.joint_attention, q[:, TEXT:], k[:, TEXT:], v[:, TEXT:], heads)
        masked = window.with_heads(mini_flux.joint_attention, q, k, v, heads, torch.zeros(45, 45))
        # backend/nn/mmditx.py:17 of Forge is handed v with its heads split off
        assert torch.equal(
            window.with_heads(mini_flux.joint_attention, q, k, v.unflatten(2, (heads, -1)), heads), joint
        )
    assert window.calls == 3
    expected = reference_joint.joint_neighborhood_attention(*split, grid, WINDOW, text_length=TEXT)
    torch.testing.assert_close(joint.double(), expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)
    alone = [t[:, :, TEXT:] for t in split]
    expected = reference_joint.joint_neighborhood_attention(*alone, grid, WINDOW, text_length=0)
    torch.testing.assert_close(image.double(), expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)
    plain = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    torch.testing.assert_close(masked, plain)


def test_flux_without_text_is_rotated_all_the_same():
    q, k, v = (torch.randn(1, 2, 42, 16) for _ in range(3))
    window = JointWindow(WINDOW)
    with window.model_call(TokenLayout((7, 6), 0)):
        out = window.with_table(None, q, k, v, axial_table((7, 6), mini_flux.AXES))
    expected = reference_joint.joint_neighborhood_attention(
        q, k, v, (7, 6), WINDOW, text_length=0, axes=mini_flux.AXES
    )
    torch.testing.assert_close(out.double(), expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)


def test_a_window_must_hold_a_token():
    with pytest.raises(ValueError, match="window"):
        JointWindow((0, 4))


@pytest.mark.parametrize(("latent", "grid"), [((128, 128), (64, 64)), ((129, 7), (65, 4))])
def test_token_grid_counts_padded_patches(latent, grid):
    assert token_grid(latent) == grid


def test_an_exception_inside_leaves_the_module_as_it_was(model):
    x, context = inputs()
    before = model(x, context)

    def broken(q, k, v):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, x, context, JointWindow(WINDOW, attend=broken))
    assert mini_flux.attention is ORIGINAL
    assert torch.equal(model(x, context), before)


def test_model_call_is_forgotten_after_an_exception(model):
    window = JointWindow(WINDOW)
    with pytest.raises(RuntimeError, match="inside"), window.model_call(TokenLayout((7, 6), TEXT)):
        raise RuntimeError("inside")
    x, context = inputs()
    with replacing_attention(window.with_table):
        model(x, context)
    assert window.calls == 0
