"""What the model is told in the stages: a prompt of their own, and the picture size on a model that knows it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_img2img import picture

ON = {"enabled": True}
BLUE = "a blue box"


def sizes_of(conditioning):
    from scalediff.hosts.webui.conditioning import _entries

    return {tuple(entry.cond["vector"].int().tolist()) for entry in _entries(conditioning)}


@pytest.fixture
def sized(host, monkeypatch):
    """The tiny model as an SDXL: its conditioner is told sizes and its denoiser sees them, here recorded.

    `.seen`: per denoiser call the (height, width) of the prompt's and of the negative prompt's row.
    """
    from modules import prompt_parser

    seen = []
    real = type(host.model).get_learned_conditioning

    def conditioner(batch):
        size = torch.tensor([float(batch.height), float(batch.width)])
        return {"crossattn": real(host.model, batch), "vector": size.repeat(len(batch), 1)}

    def text_only(name):
        reconstruct = getattr(prompt_parser, name)

        def recorded(conds, step):
            made = reconstruct(conds, step)
            told = made[1] if isinstance(made, tuple) else made
            seen.append(tuple(told["vector"][0].int().tolist()))
            text = told["crossattn"]
            return (made[0], text) if isinstance(made, tuple) else text

        monkeypatch.setattr(prompt_parser, name, recorded)

    for name in ("reconstruct_multicond_batch", "reconstruct_cond_batch"):
        text_only(name)
    monkeypatch.setattr(host.model, "get_learned_conditioning", conditioner, raising=False)
    monkeypatch.setattr(host.model, "is_sdxl", True, raising=False)
    for cache in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
        kind = host.processing.StableDiffusionProcessingTxt2Img
        monkeypatch.setattr(kind, cache, [None, None])
    return SimpleNamespace(host=host, seen=seen, calls=lambda: seen[::2], negatives=lambda: seen[1::2])


def stages_of(told, first):
    """What the stages were told, after the `first` calls of the first pass, without repetition."""
    return list(dict.fromkeys(told[first:]))


@pytest.mark.parametrize(
    ("kind", "stages"), [(None, [(64, 64)]), ("Base", [(64, 64)]), ("Stage", [(128, 128), (256, 256)])]
)
def test_the_size_that_the_stages_of_txt2img_are_told(sized, kind, stages):
    values = ON if kind is None else {**ON, "size_conditioning": kind}
    processed = sized.host.run(sized.host.txt2img(values, hr_scale=4.0))
    for told in (sized.calls(), sized.negatives()):
        assert told[:5] == [(64, 64)] * 5
        assert stages_of(told, 5) == stages
    assert ("ScaleDiff size conditioning: Stage" in processed.infotexts[0]) == (kind == "Stage")


@pytest.mark.parametrize(("kind", "stages"), [("Base", [(80, 64)]), ("Stage", [(160, 128)])])
def test_the_size_that_the_stages_of_img2img_are_told(sized, kind, stages):
    values = {**ON, "size_conditioning": kind}
    sized.host.run(sized.host.img2img(values, init_images=[picture(64, 80)], width=128, height=160))
    for told in (sized.calls(), sized.negatives()):
        assert stages_of(told, 0) == stages


def test_the_hosts_own_conditioning_is_left_as_it_was(sized):
    p = sized.host.txt2img(ON, hr_scale=4.0)
    kept = {}
    close = p.close
    p.close = lambda: (kept.update(c=p.hr_c, uc=p.hr_uc, cached=p.cached_hr_c[1]), close())
    sized.host.run(p)
    assert sizes_of(kept["c"]) == sizes_of(kept["uc"]) == sizes_of(kept["cached"]) == {(256, 256)}
    sized.seen.clear()
    sized.host.run(sized.host.txt2img(hr_scale=4.0))
    assert stages_of(sized.calls(), 5) == [(256, 256)]


@pytest.mark.parametrize("kind", ["Base", "Stage"])
def test_marks_in_the_text_are_kept(sized, monkeypatch, kind):
    """ControlNet tells prompts from negative prompts by a mark that it puts into the host's own text."""
    from scalediff.hosts.webui.conditioning import _entries
    from scalediff.hosts.webui.host import WebUIHost

    marks, texts = [], []
    p = sized.host.txt2img({**ON, "size_conditioning": kind}, hr_scale=4.0, steps=3)
    real, denoise = p.calculate_hr_conds, WebUIHost.denoise

    def marking():
        real()
        for entry in (*_entries(p.hr_c), *_entries(p.hr_uc)):
            entry.cond["crossattn"] = entry.cond["crossattn"] * 1.5
            marks.append(entry.cond["crossattn"])

    def spy(self, *args):
        result = denoise(self, *args)
        texts.extend(entry.cond["crossattn"] for part in (self.cond, self.uncond) for entry in _entries(part))
        return result

    p.calculate_hr_conds = marking
    monkeypatch.setattr(WebUIHost, "denoise", spy)
    sized.host.run(p)
    assert len(marks) == 2
    assert len(texts) == 4
    assert all(any(text is mark for mark in marks) for text in texts)


def test_conditioning_of_another_shape_is_handed_on(sized):
    """What an extension has put in place of the host's conditioning is used as it is."""
    from modules.prompt_parser import ScheduledPromptConditioning

    p = sized.host.txt2img({**ON, "size_conditioning": "Stage"}, hr_scale=4.0, steps=3)
    real = p.calculate_hr_conds

    def longer():
        real()
        (schedule,) = p.hr_uc
        p.hr_uc = [[*schedule, ScheduledPromptConditioning(99, schedule[-1].cond)]]

    p.calculate_hr_conds = longer
    processed = sized.host.run(p)
    assert stages_of(sized.calls(), 3) == [(256, 256)]
    assert "ScaleDiff: True" in processed.infotexts[0]
    assert "size conditioning" not in processed.infotexts[0]


def test_a_model_without_sizes_is_told_none(host):
    usual = host.run(host.txt2img(ON, steps=3))
    asked = host.run(host.txt2img({**ON, "size_conditioning": "Stage"}, steps=3))
    assert np.array_equal(usual.pixels[0], asked.pixels[0])
    assert "size conditioning" not in asked.infotexts[0]


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (
            {"conditioner": {"embedders": [{"input_key": "txt"}, {"input_key": "original_size_as_tuple"}]}},
            True,
        ),
        ({"conditioner": {"embedders": [{"input_keys": ["txt"]}]}, "is_sdxl": True}, False),
        ({"is_sdxl": True}, True),
        ({"is_sdxl": False}, False),
        ({}, False),
    ],
)
def test_which_models_are_told_sizes(booted, model, answer):
    from scalediff.hosts.webui.conditioning import takes_size

    def named(value):
        if isinstance(value, dict):
            return SimpleNamespace(**{name: named(inner) for name, inner in value.items()})
        return [named(one) for one in value] if isinstance(value, list) else value

    assert takes_size(named(model)) is answer


# --- the prompt of the stages


def enlarged(host, values, **fields):
    return host.run(host.img2img({**ON, **values}, init_images=[picture()], **{"steps": 4, **fields}))


def test_the_prompt_of_the_stages_in_img2img(host):
    usual = enlarged(host, {})
    ours = enlarged(host, {"upscale_prompt": BLUE})
    assert np.array_equal(ours.pixels[0], enlarged(host, {}, prompt=BLUE).pixels[0])
    assert not np.array_equal(ours.pixels[0], usual.pixels[0])
    assert f"ScaleDiff prompt: {BLUE}" in ours.infotexts[0]
    assert ours.infotexts[0].startswith("a red ball")


def test_the_negative_prompt_stays(host):
    fields = {"negative_prompt": "green"}
    ours = enlarged(host, {"upscale_prompt": BLUE}, **fields)
    assert np.array_equal(ours.pixels[0], enlarged(host, {}, prompt=BLUE, **fields).pixels[0])
    assert not np.array_equal(ours.pixels[0], enlarged(host, {}, prompt=BLUE).pixels[0])


def test_in_txt2img_it_is_the_hires_prompt_where_none_is_given(host):
    ours = host.run(host.txt2img({**ON, "upscale_prompt": BLUE}, steps=4))
    hires = host.run(host.txt2img(ON, steps=4, hr_prompt=BLUE))
    assert np.array_equal(ours.pixels[0], hires.pixels[0])
    assert f"ScaleDiff prompt: {BLUE}" in ours.infotexts[0]
    first = host.run(host.txt2img({**ON, "upscale_prompt": "a tree"}, steps=4, hr_prompt=BLUE))
    assert np.array_equal(first.pixels[0], hires.pixels[0])
    assert "ScaleDiff prompt" not in first.infotexts[0]


def test_a_refusal_in_the_only_pass_keeps_the_prompt(host, lora, monkeypatch):
    fields = {"init_images": [picture()], "prompt": "a red ball <lora:ball:1>", "steps": 4}
    usual = host.run(host.img2img(**fields))
    reasons = iter([None, "no reason"])  # for the job, then for the pass
    monkeypatch.setattr("scalediff.hosts.webui.img2img.why_not_job", lambda *args: next(reasons))
    refused = host.run(host.img2img({**ON, "upscale_prompt": f"{BLUE} <lora:sky:1>"}, **fields))
    assert np.array_equal(refused.pixels[0], usual.pixels[0])
    assert lora.log[-3:] == [[["sky", "1"]], [["ball", "1"]], "off"]
    assert "ScaleDiff was not applied: no reason" in refused.comments
    assert "ScaleDiff prompt" not in refused.infotexts[0]


def test_a_refusal_in_the_pass_keeps_the_prompt(host, monkeypatch):
    """The ordinary picture is the ordinary one, whatever the stages would have been told."""
    monkeypatch.setattr("scalediff.hosts.webui.hires._why_not_pass", lambda *args: "no reason")
    refused = host.run(host.txt2img({**ON, "upscale_prompt": BLUE}, steps=3))
    assert np.array_equal(refused.pixels[0], host.ordinary(steps=3))
    assert "ScaleDiff prompt" not in refused.infotexts[0]


def test_batches_and_prompts_of_their_own(host):
    prompts = ["a red ball", "a tree"]
    fields = {"prompt": prompts * 2, "seed": [5, 6, 7, 8], "batch_size": 2, "n_iter": 2}
    batch = enlarged(host, {"upscale_prompt": BLUE}, **fields)
    assert len(batch.pixels) == 4
    for index in (1, 2):
        alone = enlarged(host, {}, prompt=BLUE, seed=fields["seed"][index])
        assert np.abs(batch.pixels[index] - alone.pixels[0]).max() <= 2


def test_styles_belong_to_it(host, monkeypatch):
    from modules import styles

    monkeypatch.setitem(
        host.shared.prompt_styles.styles, "snow", styles.PromptStyle("snow", "{prompt}, blue sky", "")
    )
    ours = enlarged(host, {"upscale_prompt": BLUE}, styles=["snow"])
    assert np.array_equal(ours.pixels[0], enlarged(host, {}, prompt=f"{BLUE}, blue sky").pixels[0])


def test_prompt_editing_counts_the_calls_of_the_stage(host, monkeypatch):
    from scalediff.hosts.webui import conditioning as webui_conditioning
    from scalediff.hosts.webui.host import WebUIHost

    told = []
    real = WebUIHost.denoise

    def spy(self, reference, stage, guidance):
        result = real(self, reference, stage, guidance)
        told.append((stage.steps, [entry.end_at_step for entry in webui_conditioning._entries(self.cond)]))
        return result

    monkeypatch.setattr(WebUIHost, "denoise", spy)
    edited = {"upscale_prompt": "[a red ball:a blue box:0.5]", "stage_steps": "4 8"}
    enlarged(host, edited, width=256, height=256)
    assert told == [(4, [2, 4]), (8, [4, 8])]
    told.clear()
    enlarged(host, edited, sampler_name="Heun")
    assert told == [(4, [4, 8])]  # two calls a step


class Network:
    """Records what a LoRA would: the tags that are active, and when."""

    name = "lora"

    def __init__(self):
        self.log = []

    def activate(self, p, params):
        self.log.append([tag.positional for tag in params])

    def deactivate(self, p):
        self.log.append("off")


@pytest.fixture
def lora(host, monkeypatch):
    from modules import extra_networks

    network = Network()
    monkeypatch.setitem(extra_networks.extra_network_registry, "lora", network)
    return network


@pytest.mark.parametrize("tab", ["img2img", "txt2img"])
def test_tags_in_it_are_active_in_the_stages_only(host, lora, monkeypatch, tab):
    from scalediff.hosts.webui.host import WebUIHost

    during = []
    real = WebUIHost.denoise
    monkeypatch.setattr(WebUIHost, "denoise", lambda self, *a: during.append(lora.log[-1]) or real(self, *a))
    values = {**ON, "upscale_prompt": f"{BLUE} <lora:sky:0.5>"}
    fields = {"init_images": [picture()]} if tab == "img2img" else {}
    processed = host.run(getattr(host, tab)(values, prompt="a red ball <lora:ball:1>", steps=4, **fields))
    assert during == [[["sky", "0.5"]]]
    assert lora.log.count([["sky", "0.5"]]) == 1
    assert lora.log == [*([[["ball", "1"]]] if tab == "txt2img" else []), [["sky", "0.5"]], "off"]
    assert "<lora:sky:0.5>" in processed.infotexts[0]


def test_without_extra_networks_tags_are_left_out(host, lora):
    ours = enlarged(host, {"upscale_prompt": f"{BLUE}<lora:sky:1>"}, disable_extra_networks=True)
    assert lora.log == []
    assert np.array_equal(ours.pixels[0], enlarged(host, {"upscale_prompt": BLUE}).pixels[0])


@pytest.mark.parametrize("text", ["((a [b:", "[a|b", "<lora:", "a AND b:nan AND :", "BREAK", ":::", "\\"])
def test_odd_syntax_makes_a_picture(host, text):
    ours = enlarged(host, {"upscale_prompt": text}, steps=2)
    assert ours.pixels[0].shape == (128, 128, 3)


@pytest.mark.parametrize("tab", ["img2img", "txt2img"])
def test_a_prompt_that_cannot_be_used_does_not_lose_the_picture(host, lora, monkeypatch, tab):
    real = type(host.model).get_learned_conditioning

    def conditioner(batch):
        if BLUE in batch:
            raise ValueError("no such embedding")
        return real(host.model, batch)

    monkeypatch.setattr(host.model, "get_learned_conditioning", conditioner, raising=False)
    fields = {"steps": 4, **({"init_images": [picture()]} if tab == "img2img" else {})}
    p = getattr(host, tab)({**ON, "upscale_prompt": f"{BLUE}<lora:sky:1>"}, **fields)
    kept = host.run(p)
    assert lora.log[-2:] == [[["sky", "1"]], []], "its tags are off as well"
    assert np.array_equal(kept.pixels[0], host.run(getattr(host, tab)(ON, **fields)).pixels[0])
    assert any("no such embedding" in comment for comment in p.comments)
    assert "ScaleDiff: True" in kept.infotexts[0]
    assert "ScaleDiff prompt" not in kept.infotexts[0]


def test_no_negative_prompt_is_made_where_the_host_has_none(host, monkeypatch):
    """Forge makes no conditioning of the negative prompt at a CFG of 1, and wants FLUX's guidance with it."""
    from modules import prompt_parser

    from scalediff.hosts.webui import conditioning as webui_conditioning

    made = []
    real = prompt_parser.get_learned_conditioning

    def recorded(model, prompts, *args):
        made.append(
            (list(prompts), prompts.is_negative_prompt, getattr(prompts, "distilled_cfg_scale", None))
        )
        return real(model, prompts, *args)

    monkeypatch.setattr(prompt_parser, "get_learned_conditioning", recorded)
    p = SimpleNamespace(get_conds_with_caching=host.txt2img().get_conds_with_caching)
    texts = webui_conditioning.Texts([BLUE], ["green"], {}, (64, 64), (4, None), distilled=3.5)
    assert webui_conditioning.conditioning_of(p, texts, negative=False)[1] is None
    assert [texts for texts, _, _ in made] == [[BLUE]]
