"""What the host's settings say about attention: the user's optimisation, and the memory ceiling."""

import logging
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.soak import mini_flux, mini_forge
from scalediff.attention.log import log_once
from scalediff.hosts.patcher import unet as patcher_windows
from scalediff.hosts.patcher.transformer import find
from scalediff.models import windowed_transformer as dit
from scalediff.models import windowed_unet as windowed
from scalediff.models.families import FLUX
from scalediff.models.family import AttentionAt
from scalediff.models.inspection import inspect
from scalediff.models.replacing import Replacing
from scalediff.models.token_layout import TokenLayout
from scalediff.settings.preferences import ATTENTION_OPTION

SDPA = F.scaled_dot_product_attention


@pytest.fixture
def enlarge(host):
    """An img2img job with ScaleDiff: every model call is in a stage. Gives the picture."""
    noise = np.random.default_rng(3).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    init = Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)

    def run():
        processed = host.run(host.img2img(True, init_images=[init], steps=4))
        assert "ScaleDiff: True" in processed.infotexts[0]
        return processed.pixels[0]

    return run


@pytest.fixture
def choose(host, monkeypatch, caplog):
    """choose(name): the host runs that optimisation from now on. Gives our lines of the log."""
    from modules import sd_hijack

    log_once.cache_clear()
    caplog.set_level(logging.INFO, "scalediff")

    def run(name):
        optimizer = None if name is None else SimpleNamespace(name=name)
        monkeypatch.setattr(sd_hijack, "current_optimizer", optimizer, raising=False)
        return lambda: [
            record.getMessage() for record in caplog.records if "attention" in record.getMessage()
        ]

    return run


@pytest.fixture
def xformers(monkeypatch):
    """A module in place of xformers; `calls` holds what it was given."""
    calls = []

    def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None):
        assert attn_bias is None
        calls.append((tuple(query.shape), query.dtype, op))
        return SDPA(*(t.transpose(1, 2) for t in (query, key, value))).transpose(1, 2)

    package, ops = ModuleType("xformers"), ModuleType("xformers.ops")
    ops.memory_efficient_attention, ops.calls, package.ops = memory_efficient_attention, calls, ops
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    return ops


def kernel():
    from scalediff.hosts.a1111.kernel import chosen_attend

    return chosen_attend()


def patches():
    return [torch.randn(2, 3, n, 8, generator=torch.Generator().manual_seed(n)) for n in (16, 64, 64)]


def test_a_host_without_a_choice_and_plain_sdp_leave_every_way_open(host, choose):
    assert kernel() is None, "the pocket host has no optimisations"
    lines = choose("sdp")
    assert kernel() is None
    assert not lines()


def test_xformers_computes_the_windows_with_the_hosts_operator(host, choose, enlarge, xformers, monkeypatch):
    from modules import sd_hijack_optimizations

    plain = enlarge()
    assert not xformers.calls
    lines = choose("xformers")
    assert np.array_equal(enlarge(), plain)
    assert xformers.calls
    assert {op for *_, op in xformers.calls} == {None}
    assert {len(shape) for shape, *_ in xformers.calls} == {4}
    assert not lines()
    del xformers.calls[:]
    monkeypatch.setattr(
        sd_hijack_optimizations, "get_xformers_flash_attention_op", lambda q, k, v: q.shape, raising=False
    )
    q, k, v = patches()
    torch.testing.assert_close(kernel()(q, k, v), SDPA(q, k, v))
    assert xformers.calls == [((2, 16, 3, 8), torch.float32, (2, 16, 3, 8))]  # tokens, then heads


def test_xformers_gets_what_the_host_would_give_it_when_it_upcasts(host, choose, enlarge, xformers):
    host.shared.opts.data["upcast_attn"] = True
    choose("xformers")
    enlarge()
    assert {dtype for _, dtype, _ in xformers.calls} == {torch.float32}


@pytest.mark.parametrize("broken", [None, ModuleType("xformers.ops")])
def test_xformers_that_is_not_there_or_has_no_such_function(choose, monkeypatch, broken):
    lines = choose("xformers")
    monkeypatch.setitem(sys.modules, "xformers.ops", broken)
    assert kernel() is None
    assert kernel() is None
    (line,) = lines()
    assert "xformers is chosen" in line


@pytest.mark.parametrize("error", [NotImplementedError, TypeError, ValueError])
def test_a_call_that_xformers_refuses_is_torchs(choose, xformers, error):
    lines = choose("xformers")

    def refuses(*args, **kwargs):
        raise error("no operator found")

    xformers.memory_efficient_attention = refuses
    attend, (q, k, v) = kernel(), patches()
    for _ in range(2):
        assert torch.equal(attend(q, k, v), SDPA(q, k, v))
    (line,) = lines()
    assert "no operator found" in line


def test_an_error_about_memory_reaches_what_asks_for_less(choose, xformers):
    choose("xformers")

    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("no room")

    xformers.memory_efficient_attention = full
    with pytest.raises(torch.cuda.OutOfMemoryError):
        kernel()(*patches())


@pytest.mark.parametrize("before", [True, False])
def test_sdp_without_the_memory_efficient_kernel(choose, monkeypatch, before):
    choose("sdp-no-mem")
    enabled = torch.backends.cuda.mem_efficient_sdp_enabled
    seen, (q, k, v) = [], patches()

    def noted(*args):
        seen.append(enabled())
        return SDPA(*args)

    usual = enabled()
    torch.backends.cuda.enable_mem_efficient_sdp(before)
    try:
        attend = kernel()
        monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
        assert torch.equal(attend(q, k, v), SDPA(q, k, v))
        with pytest.raises(TypeError):
            attend(q, k, None)
        assert seen == [False, False]
        assert enabled() is before
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(usual)


@pytest.mark.parametrize("name", ["Doggettx", "InvokeAI", "V1", "sub-quadratic", "of an extension", None])
def test_other_optimisations_are_torchs_and_the_log_says_so_once(choose, name):
    lines = choose(name)
    assert kernel() is None
    assert kernel() is None
    (line,) = lines()
    assert f"is {name}:" in line


# our own kernel in place of the host's


@pytest.mark.parametrize(("name", "exact"), [("xformers", True), ("sdp-no-mem", True), ("sdp", False)])
def test_what_may_be_computed_by_our_kernel(choose, xformers, monkeypatch, name, exact):
    """Torch's own attention, which is None here, the rule knows by itself."""
    from scalediff.hosts.a1111.kernel import is_exact

    choose(name)
    assert is_exact(kernel()) is exact
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: v)  # by another extension
    assert is_exact(kernel()) is (name == "xformers")


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        (None, "auto"),
        ("Auto", "auto"),
        ("Host's kernel", "host"),
        ("One call per patch", "patches"),
        ("of an older version", "auto"),
        (["Auto"], "auto"),
    ],
)
def test_the_settings_page_says_how_windows_are_computed(host, enlarge, choose, monkeypatch, said, choice):
    plain, given, real = enlarge(), set(), windowed.neighborhood_attention

    def noted(*args, exact, choice, **kwargs):
        given.add((exact, choice))
        return real(*args, exact=exact, choice=choice, **kwargs)

    monkeypatch.setattr(windowed, "neighborhood_attention", noted)
    choose("sdp-no-mem")
    if said is not None:
        host.shared.opts.data[ATTENTION_OPTION] = said
    assert np.array_equal(enlarge(), plain)
    assert given == {(True, choice)}


# the memory ceiling


class Rooms(list):
    def __init__(self):
        self.choices = set()


@pytest.fixture
def rooms(monkeypatch):
    """The bytes that each windowed call was given; `choices` holds how it was to be computed."""
    given = Rooms()

    def spy(module, name):
        real = getattr(module, name)

        def noted(*args, room, choice, **kwargs):
            given.append(room)
            given.choices.add(choice)
            return real(*args, room=room, choice=choice, **kwargs)

        monkeypatch.setattr(module, name, noted)

    for module in (windowed, patcher_windows, dit):
        spy(module, "neighborhood_attention")
    spy(dit, "joint_neighborhood_attention")
    return given


def test_the_ceiling_bounds_attention_and_changes_no_picture(host, enlarge, rooms):
    plain = enlarge()
    assert set(rooms) == {None}
    del rooms[:]
    host.shared.opts.data["scalediff_memory_ceiling"] = 0.001  # less than the weights alone
    assert np.array_equal(enlarge(), plain)
    assert set(rooms) == {0}
    del rooms[:]
    host.shared.opts.data["scalediff_memory_ceiling"] = 1.0
    assert np.array_equal(enlarge(), plain)
    (room,) = set(rooms)
    assert 0.9e9 < room < 1e9


def test_the_ceiling_reaches_the_windows_of_a_patcher_host(host, rooms, monkeypatch):
    from scalediff.hosts.patcher import host as patcher
    from scalediff.hosts.patcher.forge import ForgeHost

    torch.manual_seed(0)
    sd_model = mini_forge.engine(mini_forge.MiniUNet().eval().requires_grad_(False), is_sdxl=True)
    unet, x = sd_model.forge_objects.unet, torch.randn(1, 4, 40, 40)
    mini = AttentionAt((mini_flux.__name__, "attention"), (mini_flux.__name__, "attention_function"))
    family = replace(FLUX, attention=(mini,))
    found = find(family)
    monkeypatch.setattr(ForgeHost, "kernel", classmethod(lambda cls: (mini_forge, "attention_function")))
    monkeypatch.setattr(ForgeHost, "window", lambda self: (16, 16))
    monkeypatch.setattr(patcher, "attention_room", lambda p, network, model_map, cells: cells[0] * 1000)
    host.shared.opts.data[ATTENTION_OPTION] = "Host's kernel"
    adapter = object.__new__(ForgeHost)
    adapter.p = SimpleNamespace(sd_model=sd_model)
    adapter.model_map, adapter.config = ForgeHost.inspect(sd_model), SimpleNamespace(shift=False)
    stage = SimpleNamespace(latent_size=(40, 40))
    mini_forge.sample_once(
        adapter._unet_windows(stage).patched(unet), x, torch.randn(1, 3, mini_forge.CONTEXT)
    )
    assert set(rooms) == {40_000}
    assert rooms.choices == {"host"}
    del rooms[:]
    rooms.choices.clear()
    network = mini_flux.MiniFlux().eval().requires_grad_(False)
    monkeypatch.setattr(ForgeHost, "unet", lambda self: network)
    window = adapter._joint_window(stage, family, found)
    with window.model_call(TokenLayout((20, 20), 3)), Replacing([(*found.attention, window.with_table)]):
        network(x, torch.randn(1, 3, mini_flux.WIDTH))
    assert window.calls == 5
    assert set(rooms) == {40_000}
    assert rooms.choices == {"host"}


def test_what_the_ceiling_leaves(host):
    from scalediff.cost.memory import unet_activations, weight_bytes
    from scalediff.hosts.webui.memory import attention_room

    network = host.model.model.diffusion_model
    p = SimpleNamespace(sd_model=host.model, seeds=[1, 2, 3])
    arguments = (p, network, inspect(host.model), (16, 24))
    host.shared.opts.data["scalediff_memory_ceiling"] = 0.0
    assert attention_room(*arguments) is None
    host.shared.opts.data["scalediff_memory_ceiling"] = 2.0
    model = unet_activations(network, (16, 24), element=4)
    assert attention_room(*arguments) == 2e9 - weight_bytes(host.model) - 6 * model


def test_what_the_ceiling_leaves_on_a_gpu(host, monkeypatch):
    """A host moves weights there late: what counts is the larger of what is there and the network's weights."""
    from modules import devices

    from scalediff.cost.memory import weight_bytes
    from scalediff.hosts.webui.memory import attention_room

    monkeypatch.setattr(devices, "device", torch.device("cuda"))
    host.shared.opts.data["scalediff_memory_ceiling"] = 2.0
    network = torch.nn.Linear(1000, 1000, bias=False)
    model_map = SimpleNamespace(layers=())  # a transformer whose dimensions are not known
    p = SimpleNamespace(sd_model=host.model, seeds=[1])
    for allocated in (0, 10**9):
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device, count=allocated: count)
        left = 2e9 - max(allocated, weight_bytes(network))
        assert attention_room(p, network, model_map, (8, 8)) == left
    flux = SimpleNamespace(double_blocks=[0], single_blocks=[0], hidden_size=64)
    network.__dict__.update(vars(flux))
    tokens = 8 * 8 + 256
    assert attention_room(p, network, model_map, (16, 16)) == 1e9 - 2 * 2 * 20 * 64 * tokens
