"""What enters a UNet beside self-attention: residuals of a control model, extra tokens, convolutions that wrap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

import scalediff.models.windowed_unet

FOUR_TIMES: dict[str, Any] = {"hr_scale": 4.0, "steps": 3}  # two stages


@pytest.fixture
def windowed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Filled with the shape of the queries of every windowed call."""
    calls: list[tuple[int, ...]] = []
    real = scalediff.models.windowed_unet.neighborhood_attention

    def spy(q: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(tuple(q.shape))
        return real(q, *args, **kwargs)

    monkeypatch.setattr(scalediff.models.windowed_unet, "neighborhood_attention", spy)
    return calls


def parts(host: Any, suffix: str) -> list[nn.Module]:
    unet = host.model.model.diffusion_model
    return [module for name, module in unet.named_modules() if name.endswith(suffix)]


def test_residuals_of_a_control_model_enter_every_stage(
    host: Any, monkeypatch: pytest.MonkeyPatch, windowed: list
) -> None:
    """As ControlNet does: another forward on the UNet adds a picture of the hint to the middle of the network."""
    plain = host.run_scalediff(**FOUR_TIMES).pixels[0]
    without = len(windowed)
    unet, sizes = host.model.model.diffusion_model, []
    hint = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))

    def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(output.shape[2:]))
        return output + interpolate(hint, output.shape[2:])

    def controlled(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        handle = unet.middle_block.register_forward_hook(add)
        try:
            return type(unet).forward(unet, x, *args, **kwargs)
        finally:
            handle.remove()

    monkeypatch.setattr(unet, "forward", controlled)
    guided = host.run_scalediff(**FOUR_TIMES).pixels[0]
    assert len(windowed) == 2 * without
    assert len(set(sizes)) == 3, "first pass and both stages"
    assert not np.array_equal(guided, plain)


def test_extra_tokens_of_the_cross_attention_stay(
    host: Any, monkeypatch: pytest.MonkeyPatch, windowed: list
) -> None:
    """As IP-Adapter does: cross-attention has a forward that looks at more tokens than the prompt's."""
    plain = host.run_scalediff(**FOUR_TIMES).pixels[0]
    without, lengths = len(windowed), []

    def look_at_more(layer: nn.Module) -> Any:
        def forward(x: torch.Tensor, context: torch.Tensor, mask: Any = None, **kwargs: Any) -> torch.Tensor:
            lengths.append(x.shape[1])
            extra = context.new_ones(context.shape[0], 4, context.shape[2])
            more = torch.cat([context, extra], dim=1)
            return type(layer).forward(layer, x, context=more, mask=mask, **kwargs)

        return forward

    for layer in parts(host, "attn2"):
        monkeypatch.setattr(layer, "forward", look_at_more(layer))
    adapted = host.run_scalediff(**FOUR_TIMES).pixels[0]
    assert len(windowed) == 2 * without
    assert max(lengths) == 16 * lengths[0], "first pass and last stage"
    assert not np.array_equal(adapted, plain)


def test_seamless_tiling_is_kept(host: Any) -> None:
    """Convolutions wrap around at every size. Windows do not reach over the edge; the host's attention knows none."""
    first = parts(host, "input_blocks.0.0")[0]
    seen: list[tuple[int, bool]] = []

    def note(module: nn.Module, args: Any) -> None:
        seen.append((args[0].shape[-1], module.padding_mode == "circular"))

    handle = first.register_forward_pre_hook(note)
    try:
        wrapped = host.run_scalediff(**FOUR_TIMES, tiling=True).pixels[0]
        assert {size for size, _ in seen} == {8, 16, 32}
        assert all(circular for _, circular in seen)
        seen.clear()
        assert not np.array_equal(wrapped, host.run_scalediff(**FOUR_TIMES).pixels[0])
        assert not any(circular for _, circular in seen)
    finally:
        handle.remove()
