"""The host's attention function as a kernel for windows, and where it is torch's own."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch

from benchmarks.soak import mini_forge
from scalediff.attention.windows import neighborhood_attention
from scalediff.hosts.patcher import unet as patcher_windows
from scalediff.hosts.patcher.kernel import attend_with, chosen_attend, is_exact, is_torchs_own
from scalediff.hosts.patcher.models import PatcherModel, map_unet
from scalediff.hosts.patcher.unet import PatcherWindows

KERNEL = (mini_forge, "attention_function")


def test_kernels_with_and_without_skip_reshape_agree():
    q, k, v = (torch.randn(2, 2, 9, 4) for _ in range(3))

    def old(q, k, v, heads, mask=None):  # classic's, ldm_patched/ldm/modules/attention.py:393
        return mini_forge.attention_function(q, k, v, heads)

    module = SimpleNamespace(old=old, new=mini_forge.attention_function)
    torch.testing.assert_close(attend_with(module, "old")(q, k, v), attend_with(module, "new")(q, k, v))


def hosts_function(module, name):
    """A function as if it were written in that module of a host."""
    arguments = "q, k, v, heads, mask=None, skip_reshape=False"
    source = f"def {name}({arguments}): return attend(q, k, v, heads, mask, skip_reshape)"
    space = {"__name__": module, "attend": mini_forge.attention_function}
    exec(source, space)
    return space[name]


@pytest.mark.parametrize("module", ["backend.attention", "ldm_patched.ldm.modules.attention"])
def test_kernels_that_compute_torchs_numbers_are_told_from_the_others(module):
    def exact(function):
        return is_exact((SimpleNamespace(chosen=function), "chosen"))

    for name in ("pytorch", "xformers", "flash", "split", "sub_quad", "basic"):
        function = hosts_function(module, f"attention_{name}")
        assert exact(function)
        # as Neo marks some of them
        marked = torch.compiler.disable(function)
        assert marked is not function
        assert exact(marked)
        assert is_torchs_own(marked) == (name == "pytorch")
        assert not exact(functools.wraps(function)(lambda *args: None))
    for name in ("attention_sage", "attention_sage3", "attention_of_an_extension"):
        assert not exact(hosts_function(module, name))
        assert not exact(torch.compiler.disable(hosts_function(module, name)))
    assert not exact(hosts_function("extension", "attention_xformers"))
    assert not exact(functools.partial(hosts_function(module, "attention_xformers")))
    assert not is_exact(None)


@pytest.mark.parametrize("module", ["backend.attention", "ldm_patched.ldm.modules.attention"])
def test_torchs_own_attention_is_told_from_what_is_put_over_it(module):
    plain = hosts_function(module, "attention_pytorch")
    assert is_torchs_own(plain)
    for name in ("attention_xformers", "attention_sub_quad", "attention_split", "attention_sage"):
        assert not is_torchs_own(hosts_function(module, name))
    assert not is_torchs_own(hosts_function("extension", "attention_pytorch"))

    @functools.wraps(plain)
    def wrapped(*args, **kwargs):
        return plain(*args, **kwargs)

    assert not is_torchs_own(wrapped)
    assert not is_torchs_own(functools.partial(plain))
    assert not is_torchs_own(torch.nn.functional.scaled_dot_product_attention)


def test_a_host_that_runs_torchs_attention_leaves_the_way_open(monkeypatch):
    """Looked up anew in each call; with the host's other kernels its function computes the windows."""
    torch.manual_seed(0)
    sd_model = mini_forge.engine(mini_forge.MiniUNet().eval().requires_grad_(False), is_sdxl=True)
    unet = sd_model.forge_objects.unet
    model_map = map_unet(PatcherModel(sd_model, unet.model.diffusion_model, "eps"))
    x, context = torch.randn(2, 4, 20, 26), torch.randn(2, 3, mini_forge.CONTEXT)
    given = []

    def noted(*args, attend, exact, choice, **kwargs):
        given.append((attend is None, exact, choice))
        return neighborhood_attention(*args, attend=attend, exact=exact, choice=choice, **kwargs)

    monkeypatch.setattr(patcher_windows, "neighborhood_attention", noted)
    ours = PatcherWindows(model_map, (8, 8), kernel=KERNEL, choice="host")
    patched, results, layers = ours.patched(unet), [], len(model_map.layers)
    kernels = [
        hosts_function("backend.attention", f"attention_{name}") for name in ("pytorch", "xformers", "sage")
    ]
    for kernel in kernels:
        monkeypatch.setattr(mini_forge, "attention_function", kernel)
        results.append(mini_forge.sample_once(patched, x, context))
    expected = [(True, True, "host"), (False, True, "host"), (False, False, "host")]
    assert given == [one for one in expected for _ in range(layers)]
    assert all(torch.equal(result, results[0]) for result in results)
    assert ours.calls == 3 * layers
    assert chosen_attend(KERNEL) is not None
    assert chosen_attend(None) is None
