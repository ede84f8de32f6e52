"""Windowed self-attention inside a model: when it runs, what it computes, and what it leaves behind."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import pytest
import reference
import torch
from mini_unet import CrossAttention, mini_unet
from torch import Tensor, nn

from scalediff.attention.windows import neighborhood_attention
from scalediff.method.seeding import shift_offsets
from scalediff.models.inspection import inspect, layer_window
from scalediff.models.windowed_unet import WindowedAttention

WINDOW = (8, 8)  # latent cells


@pytest.fixture
def unet() -> nn.Module:
    return mini_unet((0, 1, 2), blocks=1)


def latent(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def words(batch: int) -> Tensor:
    return latent(batch, 3, 12, seed=5)


def is_clean(unet: nn.Module) -> bool:
    return not any("forward" in m.__dict__ or m._forward_pre_hooks for m in unet.modules())


def test_every_layer_once_per_call_and_clean_afterwards(unet: nn.Module) -> None:
    found, x, text = inspect(unet), latent(2, 4, 20, 13), latent(2, 3, 12)
    plain = unet(x, text)
    with WindowedAttention(found, WINDOW) as windowed:
        first = unet(x, text)
        assert windowed.calls == len(found.layers) == 11
        assert torch.equal(unet(x, text), first)
        assert windowed.calls == 2 * len(found.layers)
    assert not windowed.fallbacks
    assert not torch.allclose(first, plain, atol=1e-4)
    assert is_clean(unet)
    assert torch.equal(unet(x, text), plain)


def test_native_size_runs_the_layers_own_forward(unet: nn.Module) -> None:
    x, text = latent(1, 4, 8, 8), words(1)
    plain = unet(x, text)
    with WindowedAttention(inspect(unet), WINDOW) as windowed:
        assert torch.equal(unet(x, text), plain)
    assert windowed.calls == 0
    assert not windowed.fallbacks


def test_one_long_axis_is_enough(unet: nn.Module) -> None:
    with WindowedAttention(inspect(unet), WINDOW) as windowed:
        unet(latent(1, 4, 8, 24), words(1))
    assert windowed.calls == 11


def expected_output(attn: CrossAttention, x: Tensor, grid: tuple, window: tuple, **kwargs) -> Tensor:
    """The layer's equation with the reference attention."""
    q, k, v = (
        to(x).unflatten(2, (attn.heads, -1)).transpose(1, 2) for to in (attn.to_q, attn.to_k, attn.to_v)
    )
    out = reference.neighborhood_attention(q, k, v, grid, window, **kwargs)
    return attn.to_out(out.transpose(1, 2).flatten(2).float())


def run_layer(unet: nn.Module, x: Tensor, grid: tuple[int, int], **kwargs) -> Tensor:
    """Call the first attention module as its block would, once its owner was called with [B, C, H, W]."""
    layer = inspect(unet).layers[0]
    layer.owner(x.transpose(1, 2).unflatten(2, grid), words(len(x)))
    return layer.module(x, **kwargs)


@pytest.mark.parametrize("grid", [(10, 7), (12, 12), (5, 3)])
def test_layer_equals_the_reference(unet: nn.Module, grid: tuple[int, int]) -> None:
    x = latent(2, grid[0] * grid[1], 8)
    layer = inspect(unet).layers[0]
    with WindowedAttention(inspect(unet), WINDOW):
        out = run_layer(unet, x, grid)
    expected = expected_output(layer.module, x, grid, layer_window(WINDOW, layer.stride))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_the_grid_is_measured_not_guessed(unet: nn.Module) -> None:
    """6 x 24 and 12 x 12 have equally many tokens."""
    x = latent(1, 144, 8)
    with WindowedAttention(inspect(unet), WINDOW):
        wide = run_layer(unet, x, (6, 24))
        square = run_layer(unet, x, (12, 12))
    layer = inspect(unet).layers[0]
    for out, grid in ((wide, (6, 24)), (square, (12, 12))):
        torch.testing.assert_close(out, expected_output(layer.module, x, grid, (4, 4)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "keywords", "reason"),
    [
        ((), {"context": torch.zeros(1, 9, 8)}, "another context"),
        ((), {"mask": torch.ones(1, 144)}, "a mask"),
        ((torch.zeros(1, 9, 8),), {}, "another context"),
        ((None, None, 1), {}, "arguments that are not known"),
        ((), {"additional_tokens": torch.zeros(1, 2, 8)}, "additional_tokens"),
        ((), {"n_times_crossframe_attn_in_self": 2}, "n_times_crossframe_attn_in_self"),
    ],
)
def test_anything_but_plain_self_attention_falls_back(
    unet: nn.Module, monkeypatch: pytest.MonkeyPatch, arguments: tuple, keywords: dict, reason: str
) -> None:
    x, received = latent(1, 144, 8), []

    def own(self, *args, **kwargs):
        received.append((args, kwargs))
        return args[0]

    with WindowedAttention(inspect(unet), WINDOW) as windowed:
        run_layer(unet, x, (12, 12))
        before = windowed.calls
        monkeypatch.setattr(CrossAttention, "forward", own)  # late: after the patch was installed
        inspect(unet).layers[0].module(x, *arguments, **keywords)
    assert windowed.calls == before
    assert [reason in text for text in windowed.fallbacks] == [True]
    ((args, kwargs),) = received
    assert args[0] is x
    assert len(args) == 1 + len(arguments)
    assert kwargs.keys() == keywords.keys()


def test_context_that_is_x_itself_is_self_attention(unet: nn.Module) -> None:
    x = latent(1, 144, 8)
    with WindowedAttention(inspect(unet), WINDOW) as windowed:
        a = run_layer(unet, x, (12, 12))
        b = run_layer(unet, x, (12, 12), context=x)
    assert torch.equal(a, b)
    assert not windowed.fallbacks


def test_merged_tokens_fall_back_and_say_so_once(unet: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    layer = inspect(unet).layers[0]
    with (
        caplog.at_level(logging.INFO, logger="scalediff"),
        WindowedAttention(inspect(unet), WINDOW) as windowed,
    ):
        run_layer(unet, latent(1, 144, 8), (12, 12))
        for _ in range(3):
            layer.module(latent(1, 72, 8))
    assert list(windowed.fallbacks.values()) == [3]
    assert sum("token merging" in record.message for record in caplog.records) == 1


def test_a_layer_called_outside_its_transformer_falls_back(unet: nn.Module) -> None:
    layer, x = inspect(unet).layers[0], latent(1, 144, 8)
    plain = layer.module(x)
    with WindowedAttention(inspect(unet), WINDOW) as windowed:
        assert torch.equal(layer.module(x), plain)
    assert list(windowed.fallbacks) == ["the grid of its tokens is not known"]


def test_projections_are_called_as_modules(unet: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA patches nn.Linear.forward class-wide and must see every projection."""
    seen: list[nn.Module] = []
    plain = nn.Linear.forward

    def counting(self: nn.Linear, x: Tensor) -> Tensor:
        seen.append(self)
        return plain(self, x)

    with WindowedAttention(inspect(unet), WINDOW):
        monkeypatch.setattr(nn.Linear, "forward", counting)
        unet(latent(1, 4, 20, 12), words(1))
    attention: Any
    for attention in (layer.module for layer in inspect(unet).layers):
        for part in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
            assert seen.count(part) == 1


def test_context_filter_feeds_keys_and_values(unet: nn.Module) -> None:
    x = latent(1, 144, 8)
    attention: Any = inspect(unet).layers[0].module
    with WindowedAttention(inspect(unet), WINDOW, context_filter=lambda x: (x * 2, x * 3)):
        out = run_layer(unet, x, (12, 12))
    with torch.no_grad():
        attention.to_k.weight.mul_(2)
        attention.to_v.weight.mul_(3)
    torch.testing.assert_close(out, expected_output(attention, x, (12, 12), (4, 4)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("upcast", "expected"), [(False, torch.bfloat16), (True, torch.float32)])
def test_upcast_and_kernel(unet: nn.Module, upcast: bool, expected: torch.dtype) -> None:
    unet = unet.bfloat16()
    dtypes = set()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dtypes.update({q.dtype, k.dtype, v.dtype})
        return nn.functional.scaled_dot_product_attention(q, k, v)

    with WindowedAttention(inspect(unet), WINDOW, attend=attend, upcast=upcast):
        out = unet(latent(1, 4, 20, 12).bfloat16(), words(1).bfloat16())
    assert out.dtype == torch.bfloat16
    assert dtypes == {expected}


@pytest.mark.parametrize(("upcast", "expected"), [(False, torch.bfloat16), (True, torch.float32)])
def test_upcast_windows_run_in_fp32_under_autocast(
    unet: nn.Module, upcast: bool, expected: torch.dtype
) -> None:
    """Autocast lowers the arguments of torch's attention, whatever type they are handed over in."""
    results = set()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result = nn.functional.scaled_dot_product_attention(q, k, v)
        results.add(result.dtype)
        return result

    with (
        WindowedAttention(inspect(unet), WINDOW, attend=attend, upcast=upcast),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        unet(latent(1, 4, 20, 12), words(1))
        after = torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype
    assert results == {expected}
    assert after == torch.bfloat16  # it is on again


@pytest.mark.parametrize("upcast", [False, True])
def test_room_counts_what_fp32_copies_take(
    unet: nn.Module, upcast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet, given = unet.bfloat16(), set()
    x, text = latent(1, 4, 20, 12).bfloat16(), words(1).bfloat16()
    with WindowedAttention(inspect(unet), WINDOW, upcast=upcast):
        expected = unet(x, text)

    def noted(q: Tensor, *args: Any, room: int, **kwargs: Any) -> Tensor:
        given.add(room + (8 * q.numel() if upcast else 0))  # two bytes more for each of four tensors
        return neighborhood_attention(q, *args, room=room, **kwargs)

    monkeypatch.setattr("scalediff.models.windowed_unet.neighborhood_attention", noted)
    with WindowedAttention(inspect(unet), WINDOW, upcast=upcast, room=10**6):
        assert torch.equal(unet(x, text), expected)
    assert given == {10**6}


def make_shift(seeds: list[int]):
    return lambda layer: shift_offsets(seeds, (2, 2), stage=0, layer=layer, step=0)


@pytest.mark.parametrize("rows", [None, [0, 1, 0, 1], lambda batch: [i % 2 for i in range(batch)]])
def test_shift_gives_each_image_what_it_gets_alone(unet: nn.Module, rows: Any) -> None:
    found = inspect(unet)
    images, text = latent(2, 4, 20, 13), latent(2, 3, 12)
    with WindowedAttention(found, WINDOW, shift=make_shift([11, 22]), rows=rows) as windowed:
        # cond rows, then uncond rows, as a CFG denoiser lays them out
        both = unet(torch.cat([images, images]), torch.cat([text, text]))
    assert windowed.calls == len(found.layers)
    for i, seed in enumerate((11, 22)):
        with WindowedAttention(found, WINDOW, shift=make_shift([seed])):
            alone = unet(images[i : i + 1], text[i : i + 1])
        torch.testing.assert_close(both[i], alone[0])
        torch.testing.assert_close(both[i + 2], alone[0])


def test_shift_is_asked_for_each_layer_in_each_call(unet: nn.Module) -> None:
    asked = []

    def shift(layer: int) -> list[tuple[int, int]]:
        asked.append(layer)
        return [(1, 0)]

    with WindowedAttention(inspect(unet), WINDOW, shift=shift):
        for _ in range(2):
            unet(latent(1, 4, 20, 12), words(1))
    assert asked == 2 * list(range(11))


def test_shifted_layer_equals_the_reference(unet: nn.Module) -> None:
    x, layer = latent(2, 120, 8), inspect(unet).layers[0]
    with WindowedAttention(inspect(unet), WINDOW, shift=lambda layer: [(2, 1), (0, 2)]):
        out = run_layer(unet, x, (12, 10))
    expected = expected_output(layer.module, x, (12, 10), (4, 4), offset=[(2, 1), (0, 2)])
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_shift_is_brought_into_a_narrow_grid(unet: nn.Module) -> None:
    """A grid of 2 columns has a patch of 1; an offset drawn for 2 must not stop the picture."""
    x, layer = latent(1, 24, 8), inspect(unet).layers[0]
    with WindowedAttention(inspect(unet), WINDOW, shift=lambda layer: [(1, 2)]):
        out = run_layer(unet, x, (12, 2))
    expected = expected_output(layer.module, x, (12, 2), (4, 4), offset=(1, 0))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_wrong_rows_are_named(unet: nn.Module) -> None:
    with (
        pytest.raises(ValueError, match=r"rows must name one of 1 images for each of 2 rows, got \[0\]"),
        WindowedAttention(inspect(unet), WINDOW, shift=lambda layer: [(1, 1)], rows=[0]),
    ):
        unet(latent(2, 4, 20, 12), words(2))
    assert is_clean(unet)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("error", [RuntimeError, Interrupted, KeyboardInterrupt])
def test_an_exception_inside_attention_leaves_the_model_clean(unet: nn.Module, error: type) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise error("inside")

    x, text = latent(1, 4, 20, 12), words(1)
    plain = unet(x, text)
    with pytest.raises(error), WindowedAttention(inspect(unet), WINDOW, attend=attend):
        unet(x, text)
    assert is_clean(unet)
    assert torch.equal(unet(x, text), plain)


def test_nothing_is_kept_after_leaving(unet: nn.Module) -> None:
    class Kernel:
        def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(q, k, v)

    kernel = Kernel()
    module: Any = inspect(unet).layers[0].module
    with WindowedAttention(inspect(unet), WINDOW, attend=kernel) as windowed:
        below = module.forward
        # somebody keeps our function for good
        module.forward = lambda *args, **kwargs: below(*args, **kwargs)
        unet(latent(1, 4, 20, 12), words(1))
    watched: list[Any] = [weakref.ref(kernel), weakref.ref(windowed)]
    del kernel, windowed
    gc.collect()
    assert [watch() for watch in watched] == [None, None]
    assert unet(latent(1, 4, 20, 12), words(1)).shape == (1, 4, 20, 12)


def test_entering_twice_counts_once(unet: nn.Module) -> None:
    with WindowedAttention(inspect(unet), WINDOW) as windowed, windowed:
        unet(latent(1, 4, 20, 12), words(1))
        assert windowed.calls == 11
    assert is_clean(unet)
