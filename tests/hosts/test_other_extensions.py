"""What else may sit on the attention: hypernetworks, LoRA, token merging, other extensions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def enlarge(host):
    """An img2img job with ScaleDiff: every model call is in a stage. Gives (p, picture)."""
    noise = np.random.default_rng(3).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    init = Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)

    def run(**attributes):
        p = host.img2img(True, init_images=[init], steps=4)
        vars(p).update(attributes)
        processed = host.run(p)
        assert "ScaleDiff: True" in processed.infotexts[0]
        return p, processed.pixels[0]

    return run


def attentions(host):
    unet = host.model.model.diffusion_model
    return [module for name, module in unet.named_modules() if name.endswith("attn1")]


def hypernetwork(width, factor):
    layers = (torch.nn.Linear(width, width, bias=False), torch.nn.Identity())
    layers[0].weight.data = torch.eye(width) * factor
    return SimpleNamespace(name="test", layers={width: layers})


def test_hypernetworks_are_applied_in_windows(host, enlarge):
    """Width 32 exists only in self-attention, so any effect comes through the windows."""
    width = attentions(host)[0].to_q.in_features
    assert width != 64, "the text is 64 wide"
    plain = enlarge()[1]
    host.shared.loaded_hypernetworks.append(hypernetwork(width, 1.0))
    assert np.array_equal(enlarge()[1], plain)
    host.shared.loaded_hypernetworks[:] = [hypernetwork(width, -3.0)]
    assert not np.array_equal(enlarge()[1], plain)


def test_lora_that_patches_linear_layers_is_seen(host, enlarge, monkeypatch):
    """The host's LoRA replaces nn.Linear.forward and applies its weights when a projection is called."""
    plain = enlarge()[1]
    projections = {
        id(m): n for a in attentions(host) for n, m in (("k", a.to_k), ("q", a.to_q), ("v", a.to_v))
    }
    called, real = [], torch.nn.Linear.forward

    def with_lora(self, x):
        out = real(self, x)
        if id(self) not in projections:
            return out
        called.append(projections[id(self)])
        return out * 1.5

    monkeypatch.setattr(torch.nn.Linear, "forward", with_lora)
    changed = enlarge()[1]
    assert sorted(set(called)) == ["k", "q", "v"]
    assert not np.array_equal(plain, changed)


def test_upcast_attention(host, enlarge):
    plain = enlarge()[1]
    host.shared.opts.data["upcast_attn"] = True
    assert np.array_equal(enlarge()[1], plain), "the model is fp32 already"


def test_token_merging_refiner_and_extra_noise_are_off_in_a_stage(host, enlarge, monkeypatch):
    from scalediff.hosts.a1111.host import A1111Host

    ratios, seen = [], []

    def apply_token_merging(model, ratio):
        ratios.append(ratio)
        model.applied_token_merged_ratio = ratio

    monkeypatch.setattr(host.sd_models, "apply_token_merging", apply_token_merging)
    monkeypatch.setattr(host.model, "applied_token_merged_ratio", 0.0, raising=False)
    host.shared.opts.data["img2img_extra_noise"] = 0.3
    refiner = SimpleNamespace(short_title="refiner", title="refiner", filename="refiner")
    denoise = A1111Host.denoise

    def with_refiner(self, *args):
        self.p.refiner_checkpoint_info, self.p.refiner_switch_at = refiner, 0.01
        result = denoise(self, *args)
        assert self.p.refiner_checkpoint_info is refiner
        self.p.refiner_checkpoint_info = None
        return result

    def spy(params):
        p = params.denoiser.p
        option = host.shared.opts.img2img_extra_noise
        seen.append((host.model.applied_token_merged_ratio, option, p.refiner_checkpoint_info))

    monkeypatch.setattr(A1111Host, "denoise", with_refiner)
    host.script_callbacks.on_cfg_denoiser(spy)
    try:
        enlarge(token_merging_ratio=0.5)
    finally:
        host.script_callbacks.remove_callbacks_for_function(spy)
    assert set(seen) == {(0, 0.0, None)}
    assert 0 in ratios
    assert ratios[ratios.index(0) + 1] == 0.5, "put back after the stage"
    assert host.shared.opts.img2img_extra_noise == 0.3


def blocks(host):
    unet = host.model.model.diffusion_model
    return [module for module in unet.modules() if type(module).__name__ == "BasicTransformerBlock"]


def swap_blocks(host, monkeypatch, forward):
    """Give every block a subclass with another `_forward`, as token merging and reference-only do."""
    merged = type("ToMeBlock", (type(blocks(host)[0]),), {"_forward": forward})
    for block in blocks(host):
        monkeypatch.setattr(block, "__class__", merged)


def test_merged_tokens_fall_back_and_say_so(host, enlarge, monkeypatch):
    def forward(self, x, context=None):
        half = self.attn1(self.norm1(x)[:, ::2])
        x = x + half.repeat_interleave(2, dim=1)[:, : x.shape[1]]
        x = x + self.attn2(self.norm2(x), context=context)
        return x + self.ff(self.norm3(x))

    swap_blocks(host, monkeypatch, forward)
    p, picture = enlarge()
    assert picture.std() > 1
    assert any("without windowed attention" in c and "token merging" in c for c in p.comments)
    monkeypatch.undo()


def test_another_context_falls_back(host, enlarge, monkeypatch):
    def forward(self, x, context=None):
        n = self.norm1(x)
        x = x + self.attn1(n, context=torch.cat([n, n], dim=1))
        x = x + self.attn2(self.norm2(x), context=context)
        return x + self.ff(self.norm3(x))

    swap_blocks(host, monkeypatch, forward)
    p, _ = enlarge()
    assert any("it is given another context" in comment for comment in p.comments)
    monkeypatch.undo()


def test_a_forward_that_another_extension_put_there_stays(host, enlarge):
    attention = attentions(host)[0]
    calls = []

    def theirs(x, context=None, mask=None, **kwargs):
        calls.append(x.shape)
        return type(attention).forward(attention, x, context=context, mask=mask, **kwargs)

    attention.forward = theirs
    try:
        enlarge()
        assert attention.__dict__["forward"] is theirs
    finally:
        del attention.__dict__["forward"]


def test_scripts_are_told_of_every_stage(host, monkeypatch):
    told = []
    runner = type(host.pocket.txt2img)
    monkeypatch.setattr(runner, "before_hr", lambda self, p: told.append("before_hr"))
    monkeypatch.setattr(
        runner,
        "process_before_every_sampling",
        lambda self, p, x, noise, c, uc: told.append(
            (tuple(x.shape[2:]), x.shape == noise.shape, p.is_hr_pass)
        ),
    )
    host.run_scalediff(hr_scale=4.0, steps=3)
    assert told == [
        ((8, 8), True, False),
        "before_hr",
        ((16, 16), True, True),
        "before_hr",
        ((32, 32), True, True),
    ]


def test_extra_networks_of_the_hires_prompt_are_activated_once(host, monkeypatch):
    from modules import extra_networks

    activated = []
    real = extra_networks.activate

    def activate(p, data):
        activated.append(p.is_hr_pass)
        real(p, data)

    monkeypatch.setattr(extra_networks, "activate", activate)
    host.run_scalediff(hr_scale=4.0, steps=3)
    assert activated == [False, True]
