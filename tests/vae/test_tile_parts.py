"""Layout, norms, cost and memory of the tiled VAE."""

from __future__ import annotations

import estimate_models
import pytest
import torch
from small_vae import small_vae, uneven
from torch import nn

from benchmarks.live_bytes import LiveBytes
from scalediff.cost.memory import vae_activations
from scalediff.cost.tiled_vae import choose_tile, memory_limit, tiled_work
from scalediff.vae import attention
from scalediff.vae.layers import Layers
from scalediff.vae.layout import FEATHER, LEAST_TILE, TILE_SIDES, Feathered, Kept, next_tile, spans, tiles
from scalediff.vae.norms import MeasuredError, PictureNorms
from scalediff.vae.tiled import TiledVAE


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("tile", [16, 32, 96])
@pytest.mark.parametrize("length", [5, 16, 17, 33, 95, 128, 131])
def test_spans_cover_an_axis_once(length, tile):
    found = spans(length, tile)
    assert [span.core_start for span in found] == [0, *(span.core_stop for span in found[:-1])]
    assert found[-1].core_stop == length
    for span in found:
        assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop <= length
        assert span.stop - span.start <= tile
    for scale in (1, 8):
        total = torch.zeros(length * scale)
        for span in found:
            total[span.start * scale : span.stop * scale] += span.weights(length, scale)
        assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def test_no_weight_lies_near_a_border_between_tiles():
    first, second = spans(40, 32)
    weights = second.weights(40, 8)
    border = (second.core_start - second.start) * 8
    assert weights[: border - FEATHER * 8].max() == 0
    assert weights[border + FEATHER * 8 :].min() == 1
    assert first.weights(40, 8)[0] == 1


def test_a_tile_must_have_room_for_its_overlaps():
    with pytest.raises(ValueError, match=str(LEAST_TILE)):
        spans(100, LEAST_TILE - 1)


@pytest.mark.parametrize("over", [False, True])
def test_a_kept_map_may_lie_over_its_source(over):
    source = uneven(3, 2 * 37, 2 * 29)
    expected = torch.nn.functional.avg_pool2d(source, 3, stride=1, padding=1)
    given = source.clone()
    kept = Kept((37, 29), 2, over=given if over else None)
    for tile in tiles((37, 29), 16):
        part = torch.nn.functional.avg_pool2d(tile.crop(given, 2), 3, stride=1, padding=1)
        kept.add(tile, part)
    result = kept.finished()
    assert (result is given) is over
    assert torch.allclose(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_feathered_tiles_add_up_to_the_picture():
    picture = uneven(3, 8 * 20, 8 * 33)
    canvas = Feathered((20, 33), 8)
    for tile in tiles((20, 33), 16):
        canvas.add(tile, tile.crop(picture, 8))
    assert torch.allclose(canvas.finished(), picture, atol=1e-5)


def test_norms_measure_each_position_once():
    norm = nn.GroupNorm(4, 8)
    x = uneven(8, 40, 27) * 3 + 100  # a mean far from 0, where sums of squares would lose all precision
    norms = PictureNorms([norm])
    forward = norms.patches[0][1]
    for tile in tiles((40, 27), 16):
        norms.place = tile
        with pytest.raises(MeasuredError):
            forward(norm, tile.crop(x))
    norms.learn()
    tile = tiles((40, 27), 16)[5]
    assert torch.allclose(forward(norm, tile.crop(x)), tile.crop(norm(x)), atol=1e-4)


def test_layers_of_stable_diffusion():
    vae = estimate_models.kl_vae()
    for part in (vae.encoder, vae.decoder):
        layers = Layers(part)
        assert layers.scale == 8
        assert (layers.middle.scale_in, layers.middle.scale_out) == (1, 1)
        ends = [stretch.scale_out if layers.decodes else stretch.scale_in for stretch in layers.above]
        assert ends.count(8) == 1  # no map is kept at the picture's resolution
    decoder, encoder = Layers(vae.decoder), Layers(vae.encoder)
    assert sum(decoder.passes(s) for s in decoder.above) == 19 + len(decoder.above)
    assert sum(encoder.passes(s) for s in encoder.above) == 12 + len(encoder.above)


def test_the_attention_is_windowed_only_above_its_window(monkeypatch):
    vae, x = small_vae(), uneven(4, 24, 40)
    whole = vae.decoder(x)

    def off() -> float:
        with TiledVAE(vae, lambda half, size: 16):
            return float((vae.decoder(x) - whole).abs().max() / whole.std())

    exact = off()
    monkeypatch.setattr(attention, "ATTENTION_WINDOW", (16, 16))
    assert exact < 1e-4 < 0.01 < off()


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_memory_of_tiles_is_as_estimated(half, monkeypatch):
    # torch's own on this device is not fused
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v: q + 0)
    vae, cells = estimate_models.kl_vae(), (160, 160)
    part = getattr(vae, half)
    scale, channels = (8, 3) if half == "encoder" else (1, 4)
    picture = torch.empty(1, channels, cells[0] * scale, cells[1] * scale, device="meta")
    with TiledVAE(vae, lambda part, size: 96), LiveBytes() as live:
        part(picture)
    estimated = vae_activations(part, cells, element=4, tile=96)
    assert estimated == pytest.approx(live.peak, rel=0.1)
    assert estimated < 0.5 * vae_activations(part, cells, element=4)


def test_tiles_are_chosen_by_memory():
    decoder = estimate_models.kl_vae().decoder
    big, small = (512, 512), (16, 16)
    assert choose_tile(decoder, big, limit=None) is None
    assert choose_tile(decoder, big, limit=1e12) is None
    assert choose_tile(decoder, big, limit=None, always=True) == TILE_SIDES[0]
    assert choose_tile(decoder, small, limit=None, always=True) is None
    assert choose_tile(decoder, small, limit=1, always=True) is None
    assert choose_tile(decoder, big, limit=1) == LEAST_TILE
    roomy, tight = (choose_tile(decoder, big, limit=limit) for limit in (12e9, 8e9))
    assert roomy is not None
    assert tight is not None
    assert tight < roomy
    assert choose_tile(nn.Identity(), big, limit=1) is None


def test_smaller_tiles():
    assert next_tile(None, 300) == 128
    assert next_tile(None, 64) == 48
    assert next_tile(48, 300) == 32
    assert next_tile(LEAST_TILE, 300) is None


def test_memory_limit():
    cpu = torch.device("cpu")
    assert memory_limit(cpu, ceiling=0, weights=5) is None
    assert memory_limit(cpu, ceiling=8e9, weights=3 * 10**9) == 5e9
    assert memory_limit(cpu, ceiling=1e9, weights=3 * 10**9) == 0


def test_memory_limit_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * 10**9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * 10**9, 24 * 10**9))
    gpu = torch.device("cuda")
    assert memory_limit(gpu, ceiling=0, weights=1) == pytest.approx(9e9)  # nine tenths of 9 + 5 - 4
    assert memory_limit(gpu, ceiling=6e9, weights=1) == pytest.approx(2e9)
    assert memory_limit(gpu, ceiling=100e9, weights=1) == pytest.approx(9e9)


def test_work_of_tiles():
    decoder = estimate_models.kl_vae().decoder
    one, more = (tiled_work(decoder, (512, 512), tile).total for tile in (128, 32))
    assert one < more
