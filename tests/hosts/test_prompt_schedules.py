"""Prompts that change with the steps: in the stages they change within the calls that each stage makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_conditioning import picture, sized  # noqa: F401  # a fixture

CAT, DOG, COW = "a red ball", "a blue box", "a green tree"
ON = {"enabled": True}


@pytest.fixture
def told(host, monkeypatch):
    """Per model call of the stages ([the text of each row], [the negative texts]), by what the model was shown."""
    from scalediff.hosts.webui.host import WebUIHost

    known: list = []
    seen: list = []
    in_stage: list = []
    real = type(host.model).get_learned_conditioning
    denoise = WebUIHost.denoise

    def encoding(batch):
        made = real(host.model, batch)
        known.extend(zip(batch, made))
        return made

    def names(rows):
        return [next(text.strip() for text, cond in known if torch.equal(cond, row)) for row in rows]

    def spy(params):
        if in_stage:
            seen.append((names(params.text_cond), names(params.text_uncond)))

    def staged(self, *args):
        in_stage.append(self)
        try:
            return denoise(self, *args)
        finally:
            in_stage.pop()

    monkeypatch.setattr(host.model, "get_learned_conditioning", encoding, raising=False)
    monkeypatch.setattr(WebUIHost, "denoise", staged)
    host.script_callbacks.on_cfg_denoiser(spy)
    for kind in (host.processing.StableDiffusionProcessingTxt2Img, host.processing.StableDiffusionProcessing):
        for cache in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if cache in vars(kind):
                monkeypatch.setattr(kind, cache, [None, None])
    yield seen
    host.script_callbacks.remove_callbacks_for_function(spy)


def first_rows(told):
    return [prompts[0] for prompts, _ in told]


def hires(host, prompt, settings=None, **fields):
    """20 steps in the first pass, 0 Hires steps: the stage runs the share of tau, 8 of 20."""
    return host.run(
        host.txt2img({**ON, "tau": 400, **(settings or {})}, **{"prompt": prompt, "steps": 20, **fields})
    )


def enlarged(host, prompt, settings=None, **fields):
    fields = {"init_images": [picture()], "prompt": prompt, "steps": 20, **fields}
    return host.run(host.img2img({**ON, "tau": 400, **(settings or {})}, **fields))


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        # the host's count: the change comes after the call of that number, and numbers begin at 0
        (f"[{CAT}:{DOG}:1.5]", [CAT] * 5 + [DOG] * 3),
        (f"[{CAT}:{DOG}:22]", [CAT] * 3 + [DOG] * 5),
        (f"[{CAT}:{DOG}:0.5]", [DOG] * 8),
        (f"[{CAT}:{DOG}:2.0]", [CAT] * 8),
        (f"[{DOG}:1.25]", [""] * 3 + [DOG] * 5),
        (f"[{CAT}::1.75]", [CAT] * 7 + [""]),
        (f"[{CAT}|{DOG}|{COW}]", [CAT, CAT, DOG, COW, CAT, DOG, COW, CAT]),
    ],
)
def test_schedules_of_a_second_pass(host, told, prompt, texts):
    hires(host, prompt)
    assert first_rows(told) == texts


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (f"[{CAT}:{DOG}:0.5]", [CAT] * 5 + [DOG] * 3),
        (f"[{CAT}:{DOG}:3]", [CAT] * 4 + [DOG] * 4),
        (f"[{CAT}|{DOG}]", [CAT, CAT, DOG, CAT, DOG, CAT, DOG, CAT]),
    ],
)
def test_schedules_of_img2img(host, told, prompt, texts):
    enlarged(host, prompt)
    assert first_rows(told) == texts


def test_a_stage_of_more_steps_than_the_pass(host, told):
    """Past the end of its list the host takes the first text again; of three texts two steps come to two."""
    enlarged(host, f"[{CAT}:{DOG}:0.5]", {"stage_steps": "6"}, steps=4)
    enlarged(host, f"[{CAT}|{DOG}|{COW}]", {"stage_steps": "6"}, steps=2)
    assert first_rows(told) == [CAT] * 4 + [DOG] * 2 + [CAT, CAT, DOG, COW, CAT, DOG]


def test_each_stage_has_its_own_timeline_and_samplers_of_two_calls(host, told):
    hires(host, f"[{CAT}:{DOG}:1.5]", {"stage_steps": "2 4"}, hr_scale=4.0)
    assert first_rows(told) == [CAT] * 2 + [CAT] * 3 + [DOG]
    told.clear()
    enlarged(host, f"[{CAT}:{DOG}:0.5]", {"stage_steps": "4"}, sampler_name="Heun")
    assert first_rows(told) == [CAT] * 5 + [DOG] * 2  # the last step is one call


def test_parts_negative_prompts_and_batches(host, told):
    prompts = [f"[{CAT}:{DOG}:0.5] AND {COW} :0.5", DOG]
    negative = f"[{COW}:{CAT}:0.25]"
    fields = {"seed": [5, 6], "batch_size": 2, "negative_prompt": negative}
    batch = enlarged(host, prompts, {"stage_steps": "4"}, **fields)
    assert [rows for rows, _ in told] == [[CAT, COW, DOG]] * 3 + [[DOG, COW, DOG]]
    assert [rows for _, rows in told] == [[COW] * 2] * 2 + [[CAT] * 2] * 2
    alone = enlarged(host, prompts[0], {"stage_steps": "4"}, negative_prompt=negative, seed=5)
    assert np.abs(batch.pixels[0] - alone.pixels[0]).max() <= 2


def test_old_timelines_count_within_the_stage(host, told):
    host.shared.opts.data["use_old_scheduling"] = True
    hires(host, f"[{CAT}:{DOG}:0.5]")
    hires(host, f"[{CAT}:{DOG}:2]")
    assert first_rows(told) == [CAT] * 5 + [DOG] * 3 + [CAT] * 3 + [DOG] * 5


def test_the_hires_prompt_and_the_prompt_of_the_stages(host, told):
    hires(host, COW, hr_prompt=f"[{CAT}:{DOG}:1.5]")
    hires(host, COW, {"upscale_prompt": f"[{CAT}:{DOG}:1.5]"})
    assert first_rows(told) == ([CAT] * 5 + [DOG] * 3) * 2


@pytest.mark.parametrize("run", [hires, enlarged])
def test_the_next_ordinary_picture_is_the_same(host, run):
    prompt = f"[{CAT}:{DOG}:{'1.5' if run is hires else '0.5'}]"
    fields = {} if run is hires else {"init_images": [picture()]}
    ordinary = host.txt2img if run is hires else host.img2img
    before = host.run(ordinary(prompt=prompt, **fields)).pixels[0]
    changing = run(host, prompt).pixels[0]
    assert not np.array_equal(changing, run(host, CAT).pixels[0])
    assert not np.array_equal(changing, run(host, DOG).pixels[0])
    assert np.array_equal(host.run(ordinary(prompt=prompt, **fields)).pixels[0], before)
    assert np.array_equal(run(host, prompt).pixels[0], changing)


@pytest.mark.parametrize("prompt", [CAT, f"{CAT} AND {DOG} :0.5", f"[{CAT}:{DOG}:1.5]"])
def test_nothing_is_encoded_twice(host, monkeypatch, prompt):
    """The texts of a schedule are there already, in the host's own tensors, and a plain prompt is handed on."""
    from scalediff.hosts.webui.host import WebUIHost

    own, shown, encoded = [], [], []
    real, denoise = type(host.model).get_learned_conditioning, WebUIHost.denoise
    monkeypatch.setattr(
        host.model,
        "get_learned_conditioning",
        lambda batch: encoded.append(list(batch)) or real(host.model, batch),
        raising=False,
    )

    def spy(self, *args):
        own.append(len(encoded))
        result = denoise(self, *args)
        shown.append(
            (self.cond is self.p.hr_c, self.uncond is self.p.hr_uc, self.cond.batch, self.p.hr_c.batch)
        )
        return result

    monkeypatch.setattr(WebUIHost, "denoise", spy)
    p = host.txt2img(ON, prompt=prompt, hr_scale=4.0, steps=6)
    made = []
    calculate = p.calculate_hr_conds
    p.calculate_hr_conds = lambda: (calculate(), made.append(len(encoded)))
    host.run(p)
    assert own == [made[-1]] * 2
    assert all(negative for _, negative, _, _ in shown)
    assert all(positive == (":1.5" not in prompt) for positive, *_ in shown)
    for _, _, ours, hosts in shown:
        for mine, theirs in zip(ours, hosts, strict=True):
            known = [entry.cond for part in theirs for entry in part.schedules]
            assert all(any(entry.cond is one for one in known) for part in mine for entry in part.schedules)


def test_schedules_on_a_model_that_is_told_sizes(sized):  # noqa: F811
    """The size of the stage comes with the text of the call."""
    from scalediff.hosts.webui.conditioning import _entries
    from scalediff.hosts.webui.host import WebUIHost

    seen = []
    denoise = WebUIHost.denoise

    def spy(self, reference, stage, guidance):
        result = denoise(self, reference, stage, guidance)
        for entry in _entries(self.cond):
            seen.append((entry.end_at_step, tuple(entry.cond["vector"].int().tolist())))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebUIHost, "denoise", spy)
        settings = {"size_conditioning": "Stage", "stage_steps": "4 2"}
        hires(sized.host, f"[{CAT}:{DOG}:1.5]", settings, hr_scale=4.0, steps=6)
    assert seen == [(2, (128, 128)), (4, (128, 128)), (1, (256, 256)), (2, (256, 256))]
