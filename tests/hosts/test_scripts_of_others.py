"""Scripts of others that plan a pass, call it again or read its prompt: stand-ins of what they do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_conditioning import picture

ON = {"enabled": True}


@pytest.fixture
def script(host, monkeypatch):
    """A function that puts a stand-in among the AlwaysOn scripts of both tabs, behind ours."""
    runners = (host.pocket.txt2img, host.pocket.img2img)

    def add(**methods):
        made = type("StandIn", (host.scripts.Script,), methods)()
        made.filename, made.args_from, made.args_to = "stand_in.py", 0, 0
        for runner in runners:
            monkeypatch.setattr(runner, "alwayson_scripts", [*runner.alwayson_scripts, made])
        return made

    return add


def steps_of(p):
    return (p.hr_second_pass_steps or p.steps) if p.is_hr_pass else p.steps


# --- a schedule that is planned once per pass (Detail Daemon and its kin)


def test_a_script_that_plans_in_before_hr_fits_every_stage(host, script):
    told, followed = [], []

    def before_hr(self, p):
        told.append((steps_of(p), p.hr_second_pass_steps))
        self.plan = list(range(steps_of(p)))

    planner = script(before_hr=before_hr)

    def spy(params):
        if params.denoiser.p.is_hr_pass:
            followed.append(planner.plan[params.denoiser.step])

    host.script_callbacks.on_cfg_denoiser(spy)
    try:
        p = host.txt2img({**ON, "stage_steps": "3 6"}, hr_scale=4.0, steps=4)
        host.run(p)
    finally:
        host.script_callbacks.remove_callbacks_for_function(spy)
    assert told == [(3, 3), (6, 6)]
    assert followed == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert (p.steps, p.hr_second_pass_steps) == (4, 0)


def test_a_script_that_plans_before_sampling_fits_every_stage_of_img2img(host, script):
    told = []
    script(
        before_hr=lambda self, p: told.append("before_hr"),
        process_before_every_sampling=lambda self, p, **kwargs: told.append(steps_of(p)),
    )
    values = {**ON, "stage_steps": "3 6"}
    p = host.img2img(values, init_images=[picture()], width=256, height=256, steps=4)
    processed = host.run(p)
    assert told == [3, 6]
    assert p.steps == 4
    assert "Steps: 4," in processed.infotexts[0]


def test_the_steps_are_put_back_after_an_error(host, script, monkeypatch):
    told = []

    def fail(*args):
        raise RuntimeError("out of memory")

    script(process_before_every_sampling=lambda self, p, **kwargs: told.append(steps_of(p)))
    monkeypatch.setattr("scalediff.hosts.webui.host.exact_schedule", fail)
    p = host.txt2img({**ON, "stage_steps": "3"}, steps=4, hr_second_pass_steps=5)
    with pytest.raises(RuntimeError, match="out of memory"):
        host.run(p)
    assert told == [4, 3]
    assert (p.steps, p.hr_second_pass_steps) == (4, 5)


# --- a pass that is called more often than once for each batch (hires-fix-tweaks)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_the_progress_bar_counts_passes_that_others_add(host, script, monkeypatch, tab, counted):
    """Three passes for each of three batches: from the second batch on as many are expected in each."""
    from scalediff.cost.times import StepTimes
    from scalediff.hosts.webui import times
    from scalediff.hosts.webui.host import WebUIHost

    state, seen, totals = host.shared.state, [], []
    name = "sample_hr_pass" if tab == "txt2img" else "sample"

    def process(self, p):
        once = getattr(p, name)

        def thrice(*args, **kwargs):
            return [once(*args, **kwargs) for _ in range(3)][-1]

        setattr(p, name, thrice)

    def before_process_batch(self, p, batch_number, **kwargs):
        if counted and batch_number == 0:
            state.job_count += 2 * p.n_iter

    denoise = WebUIHost.denoise

    def spy(self, *args):
        seen.append((state.job_no + state.sampling_step / max(state.sampling_steps, 1)) / state.job_count)
        return denoise(self, *args)

    script(process=process, before_process_batch=before_process_batch)
    monkeypatch.setattr(WebUIHost, "denoise", spy)
    monkeypatch.setattr(times, "TIMES", StepTimes())
    monkeypatch.setattr(StepTimes, "record", lambda *args: None)
    monkeypatch.setattr(StepTimes, "record_vae", lambda *args: None)
    monkeypatch.setattr(host.shared.total_tqdm, "updateTotal", totals.append)
    fields = {"steps": 2, "n_iter": 3}
    if tab == "img2img":
        fields["init_images"] = [picture()]
    host.run(getattr(host, tab)({**ON, "stage_steps": "2"}, **fields))
    assert len(seen) == 9
    assert seen == sorted(seen)
    assert seen[-1] < 0.97
    # the last two batches are known to be alike: as much of the bar for each
    assert seen[6] - seen[3] == pytest.approx(1 - seen[6], abs=0.1)


# --- a prompt that is read and rewritten in `process_batch` (NegPiP)


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_negative_weights_in_the_prompt_of_the_stages_are_found(host, script, tab):
    found = []
    name = "hr_prompts" if tab == "txt2img" else "prompts"

    def process_batch(self, p, **kwargs):
        texts = getattr(p, name)
        for index, text in enumerate(texts):
            found.extend(re.findall(r"\((\w+):-[\d.]+\)", text))
            texts[index] = re.sub(r" *\(\w+:-[\d.]+\)", "", text)

    fields = {"steps": 3, **({"init_images": [picture()]} if tab == "img2img" else {})}
    make = getattr(host, tab)
    without = host.run(make({**ON, "upscale_prompt": "a blue box"}, **fields))
    script(process_batch=process_batch)
    processed = host.run(make({**ON, "upscale_prompt": "a blue box (red:-1.2)"}, **fields))
    assert found == ["red"]
    assert np.array_equal(processed.pixels[0], without.pixels[0]), "and what is left is what the stages get"
    text = processed.infotexts[0]
    assert text.startswith("a red ball\n")
    assert 'ScaleDiff prompt: "a blue box (red:-1.2)"' in text
    assert "Hires prompt" not in text
