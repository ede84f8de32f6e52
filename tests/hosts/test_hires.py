"""txt2img with Hires. fix: the replaced second pass on the pocket host."""

import logging

import numpy as np
import pytest
import torch
from test_img2img import picture


def parameters(processed):
    """Infotext of the first picture."""
    return processed.infotexts[processed.index_of_first_image]


def stage_lines(caplog):
    """(windowed calls, model calls) of each stage, from the debug log."""
    lines = [record.getMessage() for record in caplog.records if "windowed calls over" in record.getMessage()]
    return [(int(line.split()[2]), int(line.split()[6])) for line in lines]


@pytest.fixture
def log(caplog, monkeypatch):
    logger = logging.getLogger("scalediff")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.DEBUG, logger="scalediff")
    return caplog


def test_the_second_pass_is_ours(host, log):
    ordinary = host.ordinary()
    ours = host.run_scalediff()
    assert ours.pixels[0].shape == (128, 128, 3)
    assert ours.pixels[0].std() > 1
    assert not np.array_equal(ours.pixels[0], ordinary)
    assert "ScaleDiff: True" in parameters(ours)
    # one windowed call per attention layer and model call; 5 steps at tau 400 leave 2
    layers = sum(name.endswith("attn1") for name, _ in host.model.model.diffusion_model.named_modules())
    assert stage_lines(log) == [(2 * layers, 2)]


def test_the_first_pass_runs_without_windows(host, log, monkeypatch):
    import scalediff.models.windowed_unet

    passes, real = [], scalediff.models.windowed_unet.neighborhood_attention
    p = host.txt2img(True)

    def spy(*args, **kwargs):
        passes.append(p.is_hr_pass)
        return real(*args, **kwargs)

    monkeypatch.setattr(scalediff.models.windowed_unet, "neighborhood_attention", spy)
    first = host.ordinary(enable_hr=False)
    saved = []
    monkeypatch.setattr(
        "modules.images.save_image", lambda image, *args, **kwargs: saved.append(np.array(image)) or ("", "")
    )
    monkeypatch.setattr(p, "save_samples", lambda: True)
    host.shared.opts.data["save_images_before_highres_fix"] = True
    host.run(p)
    assert set(passes) == {True}
    assert np.abs(saved[0].astype(int) - first).max() <= 1, "the first picture is the ordinary one"
    assert any("before the stages: 0 of" in record.getMessage() for record in log.records)


def test_disabled_is_bit_identical_and_leaves_no_object(host):
    p = host.txt2img()
    disabled = host.run(p)
    assert np.array_equal(disabled.pixels[0], host.ordinary())
    assert "ScaleDiff" not in parameters(disabled)
    assert not [name for name in vars(p) if "scalediff" in name.lower()]
    assert "sample_hr_pass" not in vars(p)


def test_the_same_job_gives_the_same_picture(host):
    assert np.array_equal(host.run_scalediff().pixels[0], host.run_scalediff().pixels[0])


def test_four_times_takes_two_stages(host, log):
    processed = host.run_scalediff(hr_scale=4.0, steps=3)
    assert processed.pixels[0].shape == (256, 256, 3)
    assert len(stage_lines(log)) == 2


def test_hires_steps_are_those_of_a_whole_schedule(host, log):
    """Presets of Forge Neo fill them with a whole run's; what was run is in the infotext beside them."""
    processed = host.run_scalediff(hr_second_pass_steps=7, hr_scale=4.0)
    assert [calls for _, calls in stage_lines(log)] == [3, 3]
    assert "Hires steps: 7" in parameters(processed)
    assert "ScaleDiff steps: 3+3 of 7" in parameters(processed)


@pytest.mark.parametrize("fields", [{}, {"stage_steps": "3", "hr_second_pass_steps": 7}])
def test_only_a_share_of_hires_steps_is_told(host, fields):
    assert "ScaleDiff steps:" not in parameters(host.run_scalediff(**fields, steps=4))


@pytest.mark.parametrize("upscaler", ["Latent (bicubic)", "Latent (nearest-exact)", "None", "Lanczos"])
def test_upscalers_of_both_kinds(host, upscaler):
    processed = host.run_scalediff(hr_upscaler=upscaler, steps=3)
    assert processed.pixels[0].shape == (128, 128, 3)
    assert f"Hires upscaler: {upscaler}" in parameters(processed)


def test_a_pixel_upscaler_makes_another_picture_than_a_latent_one(host):
    latent, pixels = (
        host.run_scalediff(hr_upscaler=name, steps=3).pixels[0] for name in ("Latent", "Nearest")
    )
    assert not np.array_equal(latent, pixels)


def test_resize_to_another_aspect_crops_at_the_end(host):
    processed = host.run_scalediff(hr_resize_x=160, hr_resize_y=96, steps=3)
    assert processed.pixels[0].shape == (96, 160, 3)


def test_odd_sizes(host):
    processed = host.run_scalediff(width=72, height=104, hr_scale=1.7, steps=3)
    assert processed.pixels[0].shape == (int(104 * 1.7) // 8 * 8, int(72 * 1.7) // 8 * 8, 3)


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
@pytest.mark.parametrize("shift", [False, True])
def test_image_of_a_batch_equals_the_seed_alone(host, sampler, shift):
    args = (True, 400, 1.0, 2.0, shift)
    batch = host.run(host.txt2img(*args, sampler_name=sampler, batch_size=3))
    alone = host.run(host.txt2img(*args, sampler_name=sampler, seed=12))
    difference = np.abs(batch.pixels[1] - alone.pixels[0])
    assert difference.max() <= 2, "more than rounding"
    assert np.abs(batch.pixels[0] - alone.pixels[0]).max() > 10, "the seeds differ, so must the pictures"


@pytest.mark.parametrize("batch_cond_uncond", [True, False])
def test_shift_with_and_prompts(host, batch_cond_uncond):
    host.shared.opts.data["batch_cond_uncond"] = batch_cond_uncond
    args = (True, 400, 1.0, 2.0, True)
    prompt = ["a red ball", "a red ball AND blue sky AND a tree", "a red ball"]
    batch = host.run(host.txt2img(*args, prompt=prompt, seed=[5, 6, 7], batch_size=3))
    alone = host.run(host.txt2img(*args, prompt=prompt[1], seed=6))
    assert np.abs(batch.pixels[1] - alone.pixels[0]).max() <= 2


def test_several_batches(host):
    processed = host.run_scalediff(n_iter=2, batch_size=2, steps=3)
    assert len(processed.pixels) == 4
    assert all("ScaleDiff: True" in text for text in processed.infotexts)


def test_every_stage_is_a_job_for_those_who_listen(host, monkeypatch):
    """The host shows previews of a finished job in `nextjob`."""
    seen, state = [], host.shared.state
    nextjob = type(state).nextjob
    monkeypatch.setattr(type(state), "nextjob", lambda self: seen.append(self.job_no) or nextjob(self))
    host.run_scalediff(hr_scale=4.0, steps=3, n_iter=2)
    assert len(seen) == 6  # (first pass + two stages) x two images
    assert seen == sorted(seen)


def test_the_first_picture_is_saved_when_the_settings_say_so(host, tmp_path):
    host.shared.opts.data["save_images_before_highres_fix"] = True
    for upscaler in ("Latent", "Lanczos"):
        folder = tmp_path / upscaler
        host.run_scalediff(
            hr_upscaler=upscaler, steps=3, do_not_save_samples=False, outpath_samples=str(folder)
        )
        names = sorted(path.name for path in folder.rglob("*.png"))
        assert len([name for name in names if "before-highres-fix" in name]) == 1
        assert len(names) == 2


def test_the_settings_are_back_after_the_pass(host):
    host.shared.opts.data["img2img_extra_noise"] = 0.2
    p = host.txt2img(True)
    plain = host.run(p)
    assert host.shared.opts.img2img_extra_noise == 0.2
    assert p.denoising_strength == 0.5
    assert not p.is_hr_pass
    assert "Extra noise" not in parameters(plain)
    host.shared.opts.data["img2img_extra_noise"] = 0.0
    assert np.array_equal(plain.pixels[0], host.run_scalediff().pixels[0])


def test_an_uploaded_picture_with_transparency(host):
    from PIL import Image

    picture = Image.effect_noise((64, 64), 90).convert("RGBA")
    p = host.txt2img(True, 400, hr_upscaler="Lanczos")
    p.firstpass_image = picture
    processed = host.run(p)
    assert processed.pixels[0].shape == (128, 128, 3)
    assert "ScaleDiff: True" in parameters(processed)


def upscale_from_gallery(host, size, *values, **fields):
    """The gallery's button: the page's values and a picture, whose size need not be the page's."""
    p = host.txt2img(*values, **{"hr_upscaler": "Lanczos", "steps": 5, **fields})
    p.firstpass_image, p.txt2img_upscale = picture(*size), True
    return p


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
@pytest.mark.parametrize(
    ("size", "base"), [((64, 64), (64, 64)), ((96, 80), (96, 80)), ((100, 75), (96, 72))]
)
def test_the_gallerys_upscale_button(host, log, monkeypatch, upscaler, size, base):
    from scalediff.hosts.webui import passes as webui_pass

    run, plans, networks = webui_pass.cascade.run, [], []
    monkeypatch.setattr(
        webui_pass.cascade, "run", lambda host, plan, *rest: plans.append(plan) or run(host, plan, *rest)
    )
    p = upscale_from_gallery(host, size, True, hr_upscaler=upscaler, hr_scale=4.0)
    counter = host.model.model.diffusion_model.register_forward_pre_hook(lambda *args: networks.append(1))
    try:
        processed = host.run(p)
    finally:
        counter.remove()
    (plan,) = plans
    assert (plan.base, plan.target) == (base, (256, 256))
    assert len(networks) == sum(stage.steps for stage in plan.stages), "there is no first pass"
    assert processed.pixels[0].shape == (256, 256, 3)
    assert "ScaleDiff: True" in parameters(processed)


def test_the_gallerys_upscale_of_a_large_picture_is_the_hosts(host):
    made = []
    for values in ((), (True,)):
        torch.manual_seed(0)  # the host's own encoder draws from it
        made.append(host.run(upscale_from_gallery(host, (128, 128), *values)))
    stock, ours = made
    assert np.array_equal(ours.pixels[0], stock.pixels[0])
    assert "the target of 128 x 128 is not larger than the first picture" in parameters(ours)


def test_the_gallerys_upscale_counts_the_stages_of_its_picture(host, monkeypatch):
    from scalediff.hosts.webui.progress import Bar

    keys, begin = [], Bar.begin
    monkeypatch.setattr(Bar, "begin", lambda self, key: keys.append(key) or begin(self, key))
    host.run(upscale_from_gallery(host, (128, 128), True, hr_scale=4.0, steps=3))
    # from 128 px it is a single stage, from the page's 64 px it would be two
    assert [key for key in keys if key[0] == "sample"] == [("sample", 0)]


@pytest.mark.parametrize(("side", "warned"), [(64, False), (88, False), (96, True)])
def test_a_base_far_above_the_native_size_is_warned_of(host, side, warned):
    """Native are 64 px: 88 x 88 has 1.9 times the area, 96 x 96 has 2.25 times."""
    p = host.txt2img({"enabled": True, "stage_steps": "1"}, width=side, height=side, hr_scale=1.25)
    host.run(p)
    found = [comment for comment in p.comments if "much larger than the 64 x 64" in comment]
    assert len(found) == warned
