"""Every family of the table on a tiny network with its host's calling conventions, against slow loops."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import literal_windows
import pytest
import torch
from mini_networks import MODULES, parts
from torch import nn

from benchmarks.soak import mini_forge
from scalediff.cost.counts import model_work
from scalediff.cost.transformers import transformer_shape
from scalediff.hosts.patcher import transformer
from scalediff.hosts.patcher.models import PatcherModel, map_transformer
from scalediff.models.families import FAMILIES, family_of
from scalediff.models.family import IMAGE, JOINT, Family
from scalediff.models.replacing import Replacing
from scalediff.models.token_layout import TokenLayout

NAMES = sorted(MODULES)
WINDOW = (4, 4)  # tokens
TEXT = 5


class Model(nn.Module):
    """What a patcher of the host calls: the network behind `apply_model`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = network

    def apply_model(self, x, t, c_crossattn, transformer_options):
        return self.diffusion_model(x, t, c_crossattn)


@dataclass
class Tried:
    """One family's tiny network where the host would have it."""

    name: str
    family: Family
    module: Any
    network: nn.Module

    @property
    def unet(self):
        return mini_forge.Patcher(Model(self.network))

    def inputs(self, *, grid=(7, 5), batch=2, odd=0, text=TEXT, seed=1):
        """A latent of `grid` tokens, its last row of cells left out where `odd`, and a condition."""
        source = torch.Generator().manual_seed(seed)
        height, width = (side * self.family.patch for side in grid)
        frames = (1,) if self.family.has_frames else ()
        x = torch.randn(batch, self.module.CHANNELS, *frames, height - odd, width, generator=source)
        extra = (1,) if self.family.text_axis == 2 else ()
        return x, torch.randn(batch, *extra, text, *self.module.CONDITION, generator=source)

    def windowed(self, x, condition, window=WINDOW, **more):
        """(result, the window) of a model call as the host makes it."""
        found = transformer.find(self.family)
        cells = tuple(side * self.family.patch for side in window)
        own = transformer.joint_window(
            self.network, self.family, found, window=cells, latent_size=tuple(x.shape[-2:]), **more
        )
        patched = transformer.with_wrapper(self.unet, own, self.family, found)
        return mini_forge.sample_once(patched, x, condition), own

    def plain(self, x, condition):
        return mini_forge.sample_once(self.unet, x, condition)

    def layout(self, x, condition) -> TokenLayout:
        return transformer.token_layout(self.network, self.family, x, condition)


@pytest.fixture(params=NAMES)
def tried(request, monkeypatch) -> Tried:
    module = MODULES[request.param]
    host = ModuleType("backend.attention")
    host.attention_function = lambda q, k, v, heads, mask=None, skip_reshape=False: parts.attend(
        q, k, v, heads, mask, skip_reshape=skip_reshape
    )
    for name in ("backend", "backend.nn"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "backend.attention", host)
    monkeypatch.setitem(sys.modules, module.AS, module)
    torch.manual_seed(0)
    network = module.network(request.param).eval().requires_grad_(False)
    family = family_of(network)
    assert family is not None
    assert family.name == request.param
    return Tried(request.param, family, module, network)


def globals_of(module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if callable(value)}


def literal(tried: Tried, x, condition, *, window=WINDOW, offset=(0, 0)):
    """The network with loops in place of its attention, and every token turned by its own place."""
    found, layout = transformer.find(tried.family), tried.layout(x, condition)
    counts = {layout.count(tokens): tokens for tokens in (IMAGE, JOINT)}
    turns = found.rotation is not None or tried.family.form == "table"
    sizes = {"text": layout.text, "grid": layout.grid, "window": window}

    def loops(q, k, v, tokens):
        q, k, v = (layout.others_first(t, tokens, 2) for t in (q, k, v))
        out = literal_windows.joint(
            q, k, v, layout.grid, window,
            others=layout.others(tokens),
            image=lambda row, column, corner: tried.module.matrices_of_image(row, column, corner=corner, **sizes)
            if turns else None,
            other=lambda n, row, column: tried.module.matrices_of_other(n, row, column, tokens=tokens, **sizes),
            halves=tried.family.halves,
            offset=offset,
        )  # fmt: skip
        return layout.put_back(out, tokens, 2).transpose(1, 2).flatten(2).to(q.dtype)

    def by_heads(previous, q, k, v, heads, *args, skip_reshape=False, **extra):
        tokens = counts.get(q.shape[2 if skip_reshape else 1])
        if tokens is None or q.shape != k.shape:
            return previous(q, k, v, heads, *args, skip_reshape=skip_reshape, **extra)
        if not skip_reshape:
            q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return loops(q, k, v, tokens)

    def by_table(previous, q, k, v, pe, **extra):
        return loops(q, k, v, JOINT)

    def not_turning(previous, *args):
        *given, _ = args
        axis = 1 if tried.family.rotation.rows_first else 2
        if given[0].shape[axis] not in counts:
            return previous(*args)
        return tuple(given) if len(given) > 1 else given[0]

    flat = found.attention[1] == "attention_function" and tried.name in ("qwen", "ernie")
    replaced = by_table if tried.family.form == "table" else by_heads
    if flat:  # these functions take no such argument
        replaced = lambda previous, q, k, v, heads, *args, **extra: by_heads(  # noqa: E731
            lambda *a, skip_reshape, **e: previous(*a, **e), q, k, v, heads, *args, **extra
        )
    functions = [(*found.attention, replaced)]
    if found.rotation is not None:
        functions.append((*found.rotation, not_turning))
    with Replacing(functions):
        return tried.plain(x, condition)


@pytest.mark.parametrize("offset", [(0, 0), (1, 2)])
def test_the_network_computes_what_the_loops_compute(tried, offset):
    x, condition = tried.inputs(batch=1)
    expected = literal(tried, x, condition, offset=offset)
    out, window = tried.windowed(x, condition, shift=lambda layer: [offset])
    torch.testing.assert_close(out, expected, atol=2e-4, rtol=2e-4)
    assert not window.fallbacks
    assert not torch.allclose(out, tried.plain(x, condition), atol=1e-2)


def test_every_self_attention_layer_is_windowed_and_no_other_call(tried, monkeypatch):
    seen = []
    name = "attention" if tried.family.form == "table" or tried.name == "wan" else "attention_function"
    real = getattr(tried.module, name)
    monkeypatch.setattr(tried.module, name, lambda *a, **k: [seen.append(a[0].shape), real(*a, **k)][1])
    before = globals_of(tried.module)
    x, condition = tried.inputs()
    _, window = tried.windowed(x, condition)
    assert window.calls == len(tried.family.layers_of(tried.network)) >= 2
    # what still reached the network's own function: text alone, or keys of another number
    assert len(seen) == {"anima": 2, "krea": 2, "lumina2": 1, "zimage": 1}.get(tried.name, 0)
    assert globals_of(tried.module) == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in tried.network.modules())


def test_odd_sizes_and_texts_of_any_length(tried):
    for odd, text in ((1, 3), (0, 8)):
        x, condition = tried.inputs(grid=(5, 6), odd=odd if tried.family.patch > 1 else 0, text=text, batch=1)
        out, window = tried.windowed(x, condition)
        torch.testing.assert_close(out, literal(tried, x, condition), atol=2e-4, rtol=2e-4)
        assert not window.fallbacks


def test_a_picture_that_fits_is_the_models_own_bit_for_bit(tried):
    x, condition = tried.inputs(grid=(4, 3))
    out, window = tried.windowed(x, condition)
    assert torch.equal(out, tried.plain(x, condition))
    assert window.calls == 0
    assert not window.fallbacks


def test_a_window_as_large_as_the_picture_is_global_attention(tried):
    """One row of windows more than fits, looked at from far enough: the loops with one window are the model."""
    x, condition = tried.inputs(grid=(5, 4), batch=1)
    expected = tried.plain(x, condition)
    torch.testing.assert_close(literal(tried, x, condition, window=(5, 4)), expected, atol=2e-4, rtol=2e-4)


def test_half_precision_is_as_near_as_its_numbers(tried):
    x, condition = tried.inputs(batch=1)
    expected, _ = tried.windowed(x, condition)
    tried.network.bfloat16()
    out, window = tried.windowed(x.bfloat16(), condition.bfloat16())
    assert out.dtype == torch.bfloat16
    assert window.calls == len(tried.family.layers_of(tried.network))
    torch.testing.assert_close(out.float(), expected, atol=0.15, rtol=0.05)


def test_samples_of_a_batch_do_not_mix(tried):
    x, condition = tried.inputs(batch=2)
    drawn = [(0, 1), (2, 0)]
    together, _ = tried.windowed(x, condition, shift=lambda layer: drawn)
    for i in range(2):
        alone, _ = tried.windowed(x[i : i + 1], condition[i : i + 1], shift=lambda layer, i=i: [drawn[i]])
        torch.testing.assert_close(together[i::2], alone, atol=1e-5, rtol=1e-4)


def test_after_a_fault_the_network_is_the_one_before(tried):
    x, condition = tried.inputs()
    plain, before = tried.plain(x, condition), globals_of(tried.module)

    with pytest.raises(ZeroDivisionError):
        tried.windowed(x, condition, shift=lambda layer: 1 / 0)
    assert globals_of(tried.module) == before
    assert torch.equal(tried.plain(x, condition), plain)


def test_the_map_says_what_the_latents_are(tried):
    loaded = PatcherModel(None, tried.network, "flow")
    found = map_transformer(loaded, tried.family, reachable=transformer.find(tried.family) is not None)
    assert found.supported, found.reason
    assert (found.cell, found.has_frames) == {
        "klein": (16, False), "ernie": (16, False), "lumina2": (8, False), "zimage": (8, False)
    }.get(tried.name, (8, True))  # fmt: skip


def test_more_than_one_frame_is_left_to_the_model(tried):
    if not tried.family.has_frames:
        pytest.skip("its latents have no frames")
    assert tried.layout(torch.zeros(1, 4, 2, 8, 8), torch.zeros(1, 1, 5, 8)) is None


def test_layers_that_attend_elsewhere_turn_their_q_and_k_themselves(tried, monkeypatch):
    """Another extension that computes the attention by itself calls the rotation all the same."""
    if tried.family.rotation is None:
        pytest.skip("its layers turn q and k where they cannot be kept from it")
    x, condition = tried.inputs()
    found = transformer.find(tried.family)
    window = transformer.joint_window(
        tried.network,
        tried.family,
        found,
        window=(4 * tried.family.patch,) * 2,
        latent_size=tuple(x.shape[-2:]),
    )
    holder, name = found.rotation
    layout = tried.layout(x, condition)
    _, tokens = tried.family.layers_of(tried.network)[-1]
    shape = (1, layout.count(tokens), 2, 16)
    q = torch.randn(shape if tried.family.rotation.rows_first else (1, 2, shape[1], 16))
    table = torch.randn(1, shape[1], 1, 8, 2, 2)
    table = table if tried.family.rotation.rows_first else table.transpose(1, 2)
    elsewhere = nn.Module()
    elsewhere.forward = lambda: getattr(holder, name)(
        *([q, q, table] if tried.name != "qwen" else [q, table])
    )
    for first in (True, False):
        with window.model_call(layout, [(elsewhere, tokens)]), Replacing([(holder, name, window.rotating)]):
            turned = elsewhere()
        turned = turned[0] if isinstance(turned, tuple) else turned
        assert torch.equal(turned, q) is first
    assert sum(window.fallbacks.values()) == 1


def test_the_linear_work_is_what_passes_the_layers(tried):
    """Multiply-adds counted from the shapes, and by hooks on the linear layers of the blocks while they run."""
    x, condition = tried.inputs(batch=1, text=4)
    done = []
    inside = {
        id(leaf)
        for blocks in tried.family.blocks
        for block in blocks.whole(tried.network)
        for leaf in block.modules()
        if isinstance(leaf, nn.Linear)
    }
    for leaf in tried.network.modules():
        if isinstance(leaf, nn.Linear) and id(leaf) in inside:
            leaf.register_forward_hook(
                lambda m, args, out: done.append(args[0][..., 0].numel() * m.in_features * m.out_features)
            )
    tried.network(x, torch.ones(1), condition)
    shape, layout = transformer_shape(tried.network), tried.layout(x, condition)
    image, text = layout.grid[0] * layout.grid[1] + layout.fillers, layout.text
    outside = sum(
        leaf.in_features * leaf.out_features
        for leaf in tried.network.modules()
        if isinstance(leaf, nn.Linear) and id(leaf) not in inside
    )
    # the tiny cross-attention asks its text for q too, and its image for k and v
    twice = 2 if tried.name in ("anima", "wan") else 1
    own = shape.linear(image, text) - outside * text
    assert own == sum(done) if twice == 1 else own < sum(done) < twice * own
    assert (shape.width, shape.blocks) == (32, len(tried.family.layers_of(tried.network)))
    assert shape.parameters == sum(weight.numel() for weight in tried.network.parameters())


def test_windows_save_work(tried):
    latent = (64 * tried.family.patch, 64 * tried.family.patch)
    window = (16 * tried.family.patch, 16 * tried.family.patch)
    whole, windowed = (model_work(tried.network, latent, seen, text_tokens=8) for seen in (None, window))
    assert windowed.attention < whole.attention / 8
    assert windowed.linear == whole.linear
    assert (whole.cross > 0) is (tried.name in ("anima", "wan"))


def test_names_are_told_apart():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert family_of(SimpleNamespace()) is None
