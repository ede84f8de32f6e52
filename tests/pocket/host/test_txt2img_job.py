"""txt2img: call order, second pass, batches, seeds, settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

FIRST = [
    "before_process",
    "process",
    "before_process_batch",
    "after_extra_networks_activate",
    "process_batch",
    "process_before_every_sampling",
]
LAST = [
    "post_sample",
    "postprocess_batch",
    "postprocess_batch_list",
    "postprocess_image",
    "postprocess_maskoverlay",
    "postprocess_image_after_composite",
]
HIRES = ["after_extra_networks_activate", "before_hr", "process_before_every_sampling"]


def names(job):
    return [name for name, _, _ in job.calls]


def difference(a, b):
    return np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max()


def test_script_methods_run_in_the_hosts_order(job):
    p = job.txt2img()
    assert names(job) == ["setup"]
    job.calls.clear()
    job.run(p)
    assert names(job) == [*FIRST, *LAST, "postprocess"]


def test_script_methods_with_hires_and_two_batches(job):
    p = job.txt2img(enable_hr=True, hr_scale=1.5, hr_upscaler="Latent", n_iter=2)
    job.calls.clear()
    job.run(p)
    per_batch = [*FIRST[2:], *HIRES, *LAST]
    assert names(job) == [*FIRST[:2], *per_batch, *per_batch, "postprocess"]


def test_scripts_receive_their_arguments_and_the_batch(job):
    job.run(job.txt2img(batch_size=2, seed=11, prompt="a star"))
    calls = {name: (args, kwargs) for name, args, kwargs in job.calls}
    assert calls["process"][0] == (False, 0.5)
    args, about = calls["process_batch"]
    assert args == (False, 0.5)
    assert about == {
        "batch_number": 0,
        "prompts": ["a star"] * 2,
        "seeds": [11, 12],
        "subseeds": about["subseeds"],
    }
    sampling = calls["process_before_every_sampling"][1]
    assert sampling["x"].shape == sampling["noise"].shape == (2, 8, 8, 8)
    assert set(sampling) == {"x", "noise", "c", "uc"}
    assert calls["postprocess_batch"][1]["images"].shape == (2, 3, 64, 64)


def test_a_failing_script_does_not_stop_the_job(job):
    from modules import errors

    assert len(job.run(job.txt2img()).images) == 1
    assert "this script always fails" in str(errors.get_exceptions())


@pytest.mark.parametrize(
    "sampler", ["Euler", "Euler a", "Heun", "DPM++ 2M", "DPM2", "DDIM", "DDIM CFG++", "PLMS"]
)
def test_every_sampler_makes_both_passes(job, sampler):
    result = job.run(
        job.txt2img(
            sampler_name=sampler, enable_hr=True, hr_scale=2, hr_upscaler="Latent", steps=4, cfg_scale=6
        )
    )
    image = np.asarray(result.images[0])
    assert image.shape == (128, 128, 3)
    assert image.std() > 1


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
def test_an_image_of_a_batch_equals_the_same_seed_alone(job, sampler):
    settings = {"sampler_name": sampler, "enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent"}
    batch = job.run(job.txt2img(batch_size=3, seed=20, **settings)).images
    alone = job.run(job.txt2img(seed=22, **settings)).images[0]
    assert difference(batch[2], alone) <= 1
    assert difference(batch[1], alone) > 5


def test_the_same_seed_makes_the_same_image(job):
    first, second = (job.run(job.txt2img(sampler_name="Euler a")).images[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert job.run(job.txt2img(sampler_name="Euler a", seed=8)).images[0].tobytes() != first.tobytes()


def test_batches_continue_the_seeds(job):
    result = job.run(job.txt2img(batch_size=2, n_iter=2, seed=5))
    assert result.all_seeds == [5, 6, 7, 8]
    assert len(result.images) == len(result.infotexts) == 4
    assert "Seed: 8," in result.infotexts[3]
    single = job.run(job.txt2img(seed=8)).images[0]
    assert difference(result.images[3], single) <= 1


def test_variations_share_the_seed_and_move_with_the_strength(job):
    base = job.run(job.txt2img(seed=5)).images[0]
    weak = job.run(job.txt2img(seed=5, subseed=9, subseed_strength=0.05, batch_size=2))
    strong = job.run(job.txt2img(seed=5, subseed=9, subseed_strength=1.0)).images[0]
    assert weak.all_seeds == [5, 5]
    assert weak.all_subseeds == [9, 10]
    assert difference(base, weak.images[0]) > 0
    assert difference(strong, job.run(job.txt2img(seed=9)).images[0]) <= 1


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"hr_scale": 2.0}, (128, 96)),
        ({"hr_scale": 1.25}, (80, 56)),
        ({"hr_resize_x": 160}, (160, 120)),
        ({"hr_resize_y": 96}, (128, 96)),
        ({"hr_resize_x": 96, "hr_resize_y": 96}, (96, 96)),
        ({"hr_resize_x": 128, "hr_resize_y": 64}, (128, 64)),
    ],
)
@pytest.mark.parametrize("upscaler", ["Latent (bicubic)", "Lanczos"])
def test_target_sizes(job, settings, size, upscaler):
    p = job.txt2img(width=64, height=48, enable_hr=True, hr_upscaler=upscaler, steps=1, **settings)
    assert job.run(p).images[0].size == size


def test_pixel_upscalers_get_the_decoded_image(job):
    """`Nearest` and `Lanczos` start the second pass from different pictures."""
    pictures = [
        job.run(job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler=name, denoising_strength=0.1))
        .images[0]
        .tobytes()
        for name in ("Nearest", "Lanczos", "None", "Latent")
    ]
    assert len(set(pictures[:2])) == 2
    assert pictures[1] == pictures[2]  # without an upscaler, the host resizes with Lanczos
    assert pictures[3] not in pictures[:3]


def test_unknown_upscalers_are_refused(job):
    with pytest.raises(Exception, match="could not find upscaler named Sharpest"):
        job.run(job.txt2img(enable_hr=True, hr_upscaler="Sharpest"))


def test_the_second_pass_can_be_replaced_on_one_job(job):
    got = {}
    p = job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler="Lanczos", batch_size=2, seed=3)

    def replacement(samples, decoded_samples, seeds, subseeds, subseed_strength, prompts):
        got.update(samples=samples, decoded=decoded_samples, seeds=seeds, prompts=prompts)
        return torch.zeros(2, 8, 4, 4)

    p.sample_hr_pass = replacement
    result = job.run(p)
    assert [image.size for image in result.images] == [(32, 32)] * 2
    assert got["samples"].shape == (2, 8, 8, 8)
    assert got["decoded"].shape == (2, 3, 64, 64)
    assert got["decoded"].dtype == torch.float32
    assert (got["seeds"], got["prompts"]) == ([3, 4], ["a red sun"] * 2)


def test_target_is_known_only_after_init(job):
    p = job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler="Latent")
    assert (p.hr_upscale_to_x, p.hr_upscale_to_y) == (0, 0)
    job.run(p)
    assert (p.hr_upscale_to_x, p.hr_upscale_to_y) == (128, 128)


@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_the_second_pass_may_start_from_a_given_image(job, upscaler):
    p = job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler=upscaler)
    p.firstpass_image = Image.new("RGB", (64, 64), (200, 60, 20))
    job.calls.clear()
    seen = {}
    original = p.sample_hr_pass
    p.sample_hr_pass = lambda samples, decoded, *rest: (
        seen.update(samples=samples, decoded=decoded) or original(samples, decoded, *rest)
    )
    assert job.run(p).images[0].size == (128, 128)
    assert names(job).count("process_before_every_sampling") == 1
    assert (seen["samples"] is None, seen["decoded"] is None) == (
        (False, True) if upscaler == "Latent" else (True, False)
    )


def test_second_pass_has_its_own_steps_sampler_and_prompt(job):
    from modules import script_callbacks

    seen = []

    def note(params):
        seen.append((type(params.denoiser).__name__, params.total_sampling_steps))

    script_callbacks.on_cfg_denoiser(note)
    try:
        result = job.run(
            job.txt2img(
                enable_hr=True,
                hr_scale=2,
                hr_upscaler="Latent",
                steps=2,
                hr_second_pass_steps=5,
                hr_sampler_name="DDIM",
                hr_prompt="a blue planet",
            )
        )
    finally:
        script_callbacks.remove_callbacks_for_function(note)
    assert seen == [("CFGDenoiserKDiffusion", 2)] * 2 + [("CFGDenoiserTimesteps", 5)] * (len(seen) - 2)
    assert len(seen) == 2 + 3  # DDIM: t_enc = 4, one fewer evaluation than timesteps
    assert "Hires sampler: DDIM" in result.info
    assert "Hires prompt: a blue planet" in result.info
    assert "Hires steps: 5" in result.info


def test_k_diffusion_second_pass_runs_exactly_the_asked_steps(job):
    from modules import script_callbacks

    calls = []
    script_callbacks.on_cfg_denoiser(calls.append)
    try:
        job.run(
            job.txt2img(
                enable_hr=True,
                hr_scale=2,
                hr_upscaler="Latent",
                steps=3,
                hr_second_pass_steps=4,
                denoising_strength=0.5,
            )
        )
    finally:
        script_callbacks.remove_callbacks_for_function(calls.append)
        script_callbacks.callback_map["callbacks_cfg_denoiser"].clear()
    assert len(calls) == 3 + 4


def test_another_checkpoint_in_the_second_pass_is_another_model(job):
    from modules import shared

    before = shared.sd_model
    p = job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler="Latent", hr_checkpoint_name="tiny_other")
    models = []
    original = p.sample_hr_pass
    p.sample_hr_pass = lambda *args: models.append(shared.sd_model) or original(*args)
    result = job.run(p)
    assert models[0] is not before
    assert models[0].sd_checkpoint_info.name == "tiny_other.safetensors"
    assert "Hires checkpoint: tiny_other" in result.info
    assert job.run(job.txt2img()).sd_model_name == "tiny"
    assert shared.sd_model.sd_checkpoint_info.name == "tiny.safetensors"


def test_overridden_settings_are_put_back_even_after_a_failure(job):
    from modules.shared import opts

    p = job.txt2img(override_settings={"eta_ancestral": 0.25}, sampler_name="Euler a")
    assert "Eta: 0.25" in job.run(p).info
    assert opts.eta_ancestral == 1.0
    p = job.txt2img(override_settings={"eta_ancestral": 0.25}, enable_hr=True, hr_upscaler="none such")
    with pytest.raises(Exception, match="none such"):
        job.run(p)
    assert opts.eta_ancestral == 1.0


def test_jobs_are_counted_per_pass(job):
    from modules import shared

    p = job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler="Latent", n_iter=2)
    seen = []
    original = p.sample_hr_pass
    p.sample_hr_pass = lambda *args: (
        seen.append((shared.state.job_no, shared.state.job_count)) or original(*args)
    )
    job.run(p)
    assert seen == [(0, 4), (2, 4)]


def test_prompts_may_be_lists_and_must_match(job):
    result = job.run(job.txt2img(prompt=["a red sun", "a star"], batch_size=2))
    assert result.all_prompts == ["a red sun", "a star"]
    with pytest.raises(RuntimeError, match="as many negative prompts as prompts"):
        job.run(job.txt2img(prompt=["a", "b"], negative_prompt=["c"], batch_size=2))


def test_comments_reach_the_result(job):
    p = job.txt2img()
    p.comment("something to know")
    assert "something to know" in job.run(p).comments


@pytest.mark.parametrize("size", [(72, 104), (200, 168), (88, 40)])
def test_odd_latent_sizes_work(job, size):
    p = job.txt2img(width=size[0], height=size[1], steps=1)
    assert job.run(p).images[0].size == size


def test_tiling_wraps_around(job):
    from modules import shared

    job.run(job.txt2img(tiling=True, steps=1))
    convolution = shared.sd_model.model.diffusion_model.input_blocks[0][0]
    assert convolution.padding_mode == "circular"
    job.run(job.txt2img(steps=1))
    assert convolution.padding_mode == "zeros"
