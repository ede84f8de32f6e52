"""Jobs that ScaleDiff cannot serve: a sentence for the user, the ordinary picture, no key in its infotext."""

from types import SimpleNamespace

import numpy as np
import pytest


def refused(host, *values, **fields):
    """The comment of a job that must come out as the ordinary picture."""
    p = host.txt2img(*values, **fields)
    processed = host.run(p)
    assert np.array_equal(processed.pixels[0], host.ordinary(**fields))
    assert "ScaleDiff: True" not in processed.infotexts[0]
    assert not [key for key in p.extra_generation_params if key in ("ScaleDiff", "ScaleDiff tau")]
    comments = [comment for comment in p.comments if comment.startswith("ScaleDiff")]
    assert len(comments) == 1, p.comments
    return comments[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((True, 5000), ["New detail (tau)", "5000", "from 1 to 999"]),
        ((True, "much"), ["'much'"]),
        (({"enabled": True, "taux": 1},), ["'taux'", "stage_factor"]),
        ((True, {"stage_factor": 1}), ["Stage factor", "from 1.25 to 4"]),
    ],
)
def test_a_bad_value(host, values, words):
    comment = refused(host, *values, steps=3)
    assert all(word in comment for word in words)


def test_an_object_as_first_argument(host):
    p = host.txt2img({"enabled": True, "tau": 300})
    assert "ScaleDiff tau: 300" in host.run(p).infotexts[0]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"sampler_name": "DPM fast"}, "DPM fast"),
        ({"hr_sampler_name": "DPM adaptive"}, "DPM adaptive"),
        ({"sampler_name": "UniPC", "steps": 4}, "UniPC needs at least 3"),
        ({"stage_steps": "1", "hr_sampler_name": "DPM++ 2M SDE"}, "DPM++ 2M SDE needs at least 2"),
    ],
)
def test_a_sampler_that_cannot(host, monkeypatch, fields, word):
    settings = {"enabled": True, "stage_steps": fields.pop("stage_steps", "")}
    name = fields.get("hr_sampler_name") or fields["sampler_name"]
    stand_in(monkeypatch, name, "timesteps" if name == "UniPC" else "k_diffusion")
    assert word in refused(host, settings, **{"steps": 5, **fields})


def stand_in(monkeypatch, name, kind):
    """A sampler of this name where the pocket has none: another one of its kind."""
    from modules import sd_samplers, sd_samplers_timesteps

    if name in sd_samplers.all_samplers_map:
        return
    usual = sd_samplers.all_samplers_map["Euler" if kind == "k_diffusion" else "DDIM"]
    new = usual._replace(name=name)
    monkeypatch.setitem(sd_samplers.all_samplers_map, name, new)
    if kind == "timesteps":
        known = [*sd_samplers_timesteps.samplers_data_timesteps, new]
        monkeypatch.setattr(sd_samplers_timesteps, "samplers_data_timesteps", known)


def test_a_unipc_that_takes_sigmas_runs_any_number_of_steps(host, monkeypatch):
    """Neo's is one of k-diffusion's (modules/sd_samplers_kdiffusion.py:30)."""
    stand_in(monkeypatch, "UniPC", "k_diffusion")
    processed = host.run(host.txt2img(True, sampler_name="UniPC", steps=4))
    assert "ScaleDiff: True" in processed.infotexts[0]


@pytest.mark.parametrize(("kind", "fits"), [("k_diffusion", True), ("timesteps", False)])
def test_a_sampler_of_timesteps_does_not_fit_a_flow_model(host, monkeypatch, kind, fits):
    from scalediff.hosts.webui.checks import why_not_job

    stand_in(monkeypatch, "UniPC", kind)
    flow = SimpleNamespace(supported=True, reason="", prediction="flow")
    adapter = SimpleNamespace(inspect=lambda sd_model: flow)
    reason = why_not_job(host.txt2img(), adapter, "UniPC", [(400, 4)])
    assert reason is None if fits else "does not work with flow models" in reason


def test_too_many_steps_for_tau(host):
    assert "do not fit below timestep 2" in refused(host, {"enabled": True, "tau": 2, "stage_steps": "4"})


def test_an_unknown_sampler_is_the_hosts_to_refuse(host):
    with pytest.raises(AssertionError):
        host.run(host.txt2img(True, hr_sampler_name="No such sampler"))


def test_a_compiled_unet(host, monkeypatch):
    from modules import sd_unet

    assert sd_unet.current_unet is None
    engine = SimpleNamespace(option=SimpleNamespace(label="TensorRT"), deactivate=lambda: None)
    real = type(host.model.model.diffusion_model).forward
    engine.forward = lambda *args, **kwargs: real(host.model.model.diffusion_model, *args, **kwargs)
    monkeypatch.setattr(sd_unet, "current_unet", engine)
    monkeypatch.setattr(sd_unet, "apply_unet", lambda option=None: None)
    assert "compiled UNet" in refused(host, True, steps=3)


def test_a_model_of_another_kind(host, monkeypatch):
    monkeypatch.setattr(host.model, "is_sd3", True, raising=False)
    comment = refused(host, True, steps=3)
    assert comment.count("ScaleDiff") == 1
    assert "Stable Diffusion 3" in comment


def test_a_model_that_predicts_something_else(host, monkeypatch):
    from scalediff.models import inspection as models

    real = models.inspect(host.model)
    monkeypatch.setattr(
        models,
        "inspect",
        lambda model: models.ModelMap(False, "it is round", (), real.native_size, "eps", "x"),
    )
    assert "ScaleDiff was not applied: it is round." in refused(host, True, steps=3)


def test_nothing_to_enlarge(host):
    assert "not larger than the first picture" in refused(host, True, hr_scale=1.0, steps=3)


def test_hires_is_off_on_a_host_without_before_process(host, monkeypatch):
    monkeypatch.setattr(type(host.pocket.txt2img), "before_process", lambda self, p: None)
    comment = refused(host, True, enable_hr=False, steps=3)
    assert comment.startswith("ScaleDiff is enabled but Hires. fix is off, and this WebUI")
    assert "Panorama" in comment


def test_a_hires_checkpoint_is_judged_in_the_pass(host, monkeypatch):
    """The model of the first pass may be one that we refuse; the one that matters is loaded later."""
    from modules import sd_models

    info = host.model.sd_checkpoint_info
    monkeypatch.setattr(host.model, "is_sd3", True, raising=False)
    monkeypatch.setattr(
        sd_models, "reload_model_weights", lambda *a, **k: setattr(host.model, "is_sd3", False), raising=True
    )
    p = host.txt2img(True, steps=3, hr_checkpoint_name=info.title, hr_upscaler="Lanczos")
    host.model.is_sd3 = False
    processed = host.run(p)
    assert "ScaleDiff: True" in processed.infotexts[0]


@pytest.mark.parametrize(
    ("title", "enabled", "refused"),
    [
        ("Tiled Diffusion", True, True),
        ("Tiled Diffusion", False, False),
        ("ADetailer", True, False),
    ],
)
def test_an_extension_that_cuts_tiles_itself(host, title, enabled, refused):
    from scalediff.hosts.webui.checks import why_not_tilers

    script = SimpleNamespace(title=lambda: title, args_from=1)
    p = SimpleNamespace(scripts=SimpleNamespace(alwayson_scripts=[script]), script_args=[0, enabled])
    assert (why_not_tilers(p) is not None) == refused
