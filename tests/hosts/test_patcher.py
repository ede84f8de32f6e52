"""Windows through a Forge-style patcher: UNet replacements, swapped joint attention, and the way back."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks.soak import mini_flux, mini_forge
from scalediff.attention.rotary import axial_table
from scalediff.hosts.patcher.kernel import attend_with
from scalediff.hosts.patcher.models import PatcherModel, map_transformer, map_unet, why_not_size
from scalediff.hosts.patcher.transformer import find, find_place, unet_in_place, with_wrapper
from scalediff.hosts.patcher.unet import PatcherWindows, grid_of, key_of
from scalediff.models.families import CHROMA, FLUX, REFUSED, SD3, family_of
from scalediff.models.family import AttentionAt, Rotation
from scalediff.models.positions import exact_tables
from scalediff.models.windowed_transformer import JointWindow

KERNEL = (mini_forge, "attention_function")
LAYERS = 7  # of MiniUNet


@pytest.fixture
def sd_model():
    torch.manual_seed(0)
    network = mini_forge.MiniUNet().eval().requires_grad_(False)
    return mini_forge.engine(network, is_sdxl=True)


def inputs(batch=2, size=(20, 26)):
    source = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 4, *size, generator=source),
        torch.randn(batch, 3, mini_forge.CONTEXT, generator=source),
    )


def model_map(sd_model):
    return map_unet(PatcherModel(sd_model, sd_model.forge_objects.unet.model.diffusion_model, "eps"))


def windows(sd_model, window=(8, 8), **kwargs):
    return PatcherWindows(model_map(sd_model), window, kernel=KERNEL, **kwargs)


def run(unet, x, context):
    return mini_forge.sample_once(unet, x, context)


# UNets


def test_layers_are_found_with_their_keys(sd_model):
    found = model_map(sd_model)
    assert found.supported, found.reason
    keys = [key_of(layer.name) for layer in found.layers]
    assert keys[:3] == [("input", 2, 0), ("input", 4, 0), ("input", 4, 1)]
    assert ("middle", 0, 0) in keys
    assert len(keys) == LAYERS


def test_every_layer_is_windowed_once_per_call_and_zero_outside(sd_model):
    unet, used = sd_model.forge_objects.unet, windows(sd_model)
    x, context = inputs()
    plain = run(unet, x, context)
    assert used.calls == 0
    patched = used.patched(unet)
    changed = run(patched, x, context)
    run(patched, x, context)
    assert used.calls == 2 * LAYERS
    assert not used.fallbacks
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert torch.equal(run(unet, x, context), plain)
    assert unet.model_options == {"transformer_options": {}}


def test_a_window_as_large_as_the_canvas_changes_nothing(sd_model):
    unet, used = sd_model.forge_objects.unet, windows(sd_model, window=(20, 26))
    x, context = inputs()
    torch.testing.assert_close(run(used.patched(unet), x, context), run(unet, x, context))
    assert used.calls == 0


def test_grid_from_the_call_equals_grid_from_the_layer(sd_model):
    """reForge has no inner modifiers: there the grid follows from original_shape, odd sides included."""
    x, context = inputs(size=(21, 27))
    exact = run(windows(sd_model).patched(sd_model.forge_objects.unet), x, context)
    sd_model.forge_objects.unet.model.diffusion_model.inner_modifiers = False
    used = windows(sd_model)
    assert torch.equal(run(used.patched(sd_model.forge_objects.unet), x, context), exact)
    assert used.calls == LAYERS


def test_each_image_of_a_batch_is_what_it_is_alone(sd_model):
    x, context = inputs()
    shift = lambda layer: [(1, 0), (0, 1)]  # noqa: E731
    both = run(windows(sd_model, shift=shift).patched(sd_model.forge_objects.unet), x, context)
    for i, pair in enumerate(shift(0)):
        own = windows(sd_model, shift=lambda layer, pair=pair: [pair])
        alone = run(own.patched(sd_model.forge_objects.unet), x[i : i + 1], context[i : i + 1])
        torch.testing.assert_close(both[i::2], alone)


def test_options_can_be_deep_copied_while_state_stays_shared(sd_model):
    used = windows(sd_model)
    used.lock = threading.Lock()  # copying any object of ours would fail on it
    twin = used.patched(sd_model.forge_objects.unet).clone().clone()
    run(twin, *inputs())
    assert used.calls == LAYERS


@pytest.mark.parametrize(("index", "own"), [(0, 1), (None, 2)])
def test_another_scripts_replacement_is_left_in_place(sd_model, index, own):
    seen = []

    def theirs(q, k, v, options):
        seen.append(options["block"])
        return mini_forge.attention_function(q, k, v, options["n_heads"])

    unet = sd_model.forge_objects.unet.clone()
    unet.set_model_attn1_replace(theirs, "input", 4, index)
    used = windows(sd_model)
    run(used.patched(unet), *inputs())
    assert seen == [("input", 4)] * own
    assert used.calls == LAYERS - own
    assert any(f"replaces the attention of {own} layers" in reason for reason in used.fallbacks)


def test_a_later_replacement_of_the_block_wins(sd_model):
    """Perturbed attention sets its own for a second model call, on top of ours."""
    patched = windows(sd_model).patched(sd_model.forge_objects.unet)
    later = patched.clone()
    later.set_model_attn1_replace(lambda q, k, v, options: v, "middle", 0)
    assert not torch.equal(run(later, *inputs()), run(patched, *inputs()))


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (lambda n, k, v, options: (n, torch.cat([k, k], 1), torch.cat([v, v], 1)), "differ in number"),
        (lambda n, k, v, options: (n[:, ::2], k[:, ::2], v[:, ::2]), "whole grid"),
    ],
    ids=["reference", "merged"],
)
def test_tokens_that_are_not_the_grid_fall_back(sd_model, patch, why):
    used = windows(sd_model)
    unet = used.patched(sd_model.forge_objects.unet)
    layer = next(iter(used.layers))
    options = {"block": layer[:2], "block_index": layer[2], "n_heads": 2, "original_shape": [1, 4, 20, 26]}
    q, k, v = patch(*[torch.randn(1, 130, mini_forge.WIDTH) for _ in range(3)], options)
    expected = mini_forge.attention_function(q, k, v, 2)
    assert torch.equal(used.attention(q, k, v, options), expected)
    assert used.calls == 0
    assert any(why in reason for reason in used.fallbacks)
    assert unet is not sd_model.forge_objects.unet


def test_memory_estimate_is_lowered_and_chained(sd_model):
    unet = sd_model.forge_objects.unet.clone()
    unet.set_memory_peak_estimation_modifier(lambda shape: 100.0)
    patched = windows(sd_model).patched(unet)
    assert patched.model_options["memory_peak_estimation_modifier"]([1, 4, 8, 8]) == 50.0


def test_an_exception_inside_attention_leaves_the_model_as_it_was(sd_model, monkeypatch):
    x, context = inputs()
    before = run(sd_model.forge_objects.unet, x, context)
    own = sd_model.forge_objects.unet

    def faulty(*args, **kwargs):
        raise RuntimeError("out of memory")

    def fail():
        with unet_in_place(sd_model, windows(sd_model).patched(own)), monkeypatch.context() as patch:
            patch.setattr(mini_forge, "attention_function", faulty)
            run(sd_model.forge_objects.unet, x, context)

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert sd_model.forge_objects.unet is own
    assert torch.equal(run(own, x, context), before)


@pytest.mark.parametrize(
    ("options", "tokens", "grid"),
    [
        ({"original_shape": [2, 4, 25, 41]}, 25 * 41, (25, 41)),
        ({"original_shape": [2, 4, 25, 41]}, 7 * 11, (7, 11)),
        ({"original_shape": [2, 4, 25, 41]}, 7 * 10, None),
        ({"scalediff_grid": (6, 5), "original_shape": [2, 4, 25, 41]}, 30, (6, 5)),
        ({"scalediff_grid": (6, 5), "original_shape": [2, 4, 25, 41]}, 7 * 11, None),
        ({}, 30, None),
    ],
)
def test_grid_is_verified_against_the_tokens(options, tokens, grid):
    assert grid_of(options, tokens) == grid


# transformers


class FluxModel(torch.nn.Module):
    """MiniFlux with the calls of a host's model around it."""

    def __init__(self) -> None:
        super().__init__()
        self.diffusion_model = mini_flux.MiniFlux()

    def apply_model(self, x, t, c_crossattn, transformer_options):
        return self.diffusion_model(x, c_crossattn)


@pytest.fixture
def flux():
    torch.manual_seed(0)
    return mini_forge.Patcher(FluxModel().eval().requires_grad_(False))


MINI = AttentionAt((mini_flux.__name__, "attention"), (mini_flux.__name__, "attention_function"))
FAMILY = replace(FLUX, classes=("MiniFlux",), attention=(MINI,))
FOUND = find(FAMILY)


def flux_inputs():
    source = torch.Generator().manual_seed(2)
    return (
        torch.randn(2, 4, 15, 18, generator=source),
        torch.randn(2, 5, mini_flux.WIDTH, generator=source),
    )


def test_flux_counts_every_block_and_restores_the_module(flux):
    original = mini_flux.attention
    window = JointWindow((4, 4), attend=attend_with(*FOUND.kernel))
    plain = run(flux, *flux_inputs())
    patched = with_wrapper(flux, window, FAMILY, FOUND)
    changed = run(patched, *flux_inputs())
    assert window.calls == len(FAMILY.layers_of(flux.model.diffusion_model)) == 5
    assert mini_flux.attention is original
    assert not torch.allclose(plain, changed, atol=1e-3)
    assert torch.equal(run(flux, *flux_inputs()), plain)
    whole = with_wrapper(flux, JointWindow((8, 9)), FAMILY, FOUND)
    torch.testing.assert_close(run(whole, *flux_inputs()), plain)


def test_flux_chains_the_wrapper_that_is_there(flux):
    order = []

    def theirs(apply_model, arguments):
        order.append("theirs")
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"]) * 2

    window = JointWindow((4, 4))
    alone = run(with_wrapper(flux, window, FAMILY, FOUND), *flux_inputs())
    flux.set_model_unet_function_wrapper(theirs)
    both = run(with_wrapper(flux, window, FAMILY, FOUND), *flux_inputs())
    assert order == ["theirs"]
    assert torch.equal(both, alone * 2)
    assert window.calls == 10


def test_flux_is_clean_after_an_exception(flux, monkeypatch):
    original = mini_flux.attention
    window = JointWindow((4, 4), attend=lambda q, k, v: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(with_wrapper(flux, window, FAMILY, FOUND), *flux_inputs())
    assert mini_flux.attention is original


def test_flux_rotary_table_is_remade_only_where_bf16_rounds():
    model = SimpleNamespace(pe_embedder=mini_flux.table, dtype=torch.bfloat16)
    assert exact_tables(model, (256, 100), "pe_embedder") is None
    image, text = exact_tables(model, (257, 3), "pe_embedder")(5, torch.device("cpu"))
    assert image.shape == (1, 1, 771, 8, 2, 2)
    assert text is None
    torch.testing.assert_close(image, axial_table((257, 3), mini_flux.AXES))
    model.dtype = torch.float32
    assert exact_tables(model, (300, 300), "pe_embedder") is None


# refusals


@pytest.mark.parametrize(
    ("family", "prediction", "reachable", "word"),
    [
        (None, "flow", True, "does not know Linear"),
        (FLUX, "eps", True, "flow model"),
        (CHROMA, "flow", False, "not where"),
    ],
)
def test_transformers_are_refused_in_one_sentence(family, prediction, reachable, word):
    loaded = PatcherModel(None, torch.nn.Linear(1, 1), prediction)
    found = map_transformer(loaded, family, reachable=reachable)
    assert not found.supported
    assert word in found.reason
    assert "load a" in found.reason


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_windowed_are_refused_with_the_reason(name):
    network = type(name, (), {"in_dim": 36})()
    assert family_of(network) is None
    found = map_transformer(PatcherModel(None, network, "flow"), None, reachable=False)
    assert found.reason.startswith(REFUSED[name])


def test_edit_flux_is_refused():
    network = SimpleNamespace(in_channels=96)
    assert "editing" in map_transformer(PatcherModel(None, network, "flow"), FLUX, reachable=True).reason


def test_sd3_is_refused_beyond_its_table_of_positions():
    network = SimpleNamespace(pos_embed_max_size=192)
    assert why_not_size(network, SD3, (384, 200)) is None
    assert "3072 x 3072" in why_not_size(network, SD3, (386, 200))
    assert why_not_size(SimpleNamespace(), FLUX, (999, 999)) is None


def test_a_missing_module_or_function_is_no_place():
    def at(*function):
        return find(replace(FAMILY, attention=(AttentionAt(function, MINI.kernel),)))

    assert at("no_such_module_of_a_host", "attention") is None
    assert at(mini_flux.__name__, "no_such_function") is None
    assert (
        find(replace(FAMILY, attention=(AttentionAt(MINI.function, (mini_flux.__name__, "none")),))) is None
    )
    assert find(replace(FAMILY, attention=(AttentionAt(("none", "none"), None), MINI))) == FOUND
    assert (FOUND.attention, FOUND.kernel) == ((mini_flux, "attention"), (mini_flux, "attention_function"))


def test_a_place_may_be_in_a_module_that_another_one_names(monkeypatch):
    monkeypatch.setattr(mini_flux, "ck", F, raising=False)
    assert find_place(mini_flux.__name__, "ck.relu") == (F, "relu")
    assert find_place(mini_flux.__name__, "ck.none") is None
    assert find(replace(FAMILY, rotation=Rotation(((mini_flux.__name__, "none"),)))) is None
