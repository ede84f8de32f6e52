"""img2img: the init image is the base, enlarged to the tab's size."""

import numpy as np
import pytest
from PIL import Image


def picture(width=64, height=64, seed=3):
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def ordinary(host, **fields):
    p = host.img2img(**fields)
    p.scripts, p.script_args = None, []
    return host.run(p)


def refused(host, **fields):
    p = host.img2img(True, steps=3, **fields)
    processed = host.run(p)
    expected = ordinary(host, steps=3, **fields)
    assert np.array_equal(processed.pixels[0], expected.pixels[0])
    assert "ScaleDiff: True" not in processed.infotexts[0]
    (comment,) = [comment for comment in p.comments if comment.startswith("ScaleDiff")]
    return comment


def test_the_init_image_is_enlarged(host):
    fields = {"init_images": [picture()]}
    p = host.img2img(True, **fields)
    processed = host.run(p)
    assert processed.pixels[0].shape == (128, 128, 3)
    assert "ScaleDiff: True" in processed.infotexts[0]
    assert not np.array_equal(processed.pixels[0], ordinary(host, **fields).pixels[0])
    assert "sample" not in vars(p)
    assert not p.is_hr_pass


def test_the_result_follows_the_picture_and_not_the_denoising_strength(host):
    fields = {"init_images": [picture()], "steps": 4}
    weak = host.run(host.img2img(True, denoising_strength=0.1, **fields)).pixels[0]
    strong = host.run(host.img2img(True, denoising_strength=0.9, **fields)).pixels[0]
    other = host.run(host.img2img(True, init_images=[picture(seed=4)], steps=4)).pixels[0]
    assert np.array_equal(weak, strong)
    assert not np.array_equal(weak, other)


def test_disabled_is_bit_identical(host):
    fields = {"init_images": [picture()]}
    p = host.img2img(**fields)
    assert np.array_equal(host.run(p).pixels[0], ordinary(host, **fields).pixels[0])
    assert "sample" not in vars(p)


@pytest.mark.parametrize("resize_mode", [0, 1, 2, 3])
def test_every_resize_mode_reaches_the_target(host, resize_mode):
    p = host.img2img(
        True, init_images=[picture(96, 64)], resize_mode=resize_mode, width=128, height=160, steps=3
    )
    processed = host.run(p)
    assert processed.pixels[0].shape == (160, 128, 3)
    assert "ScaleDiff: True" in processed.infotexts[0]


def test_base_sizes_keep_the_targets_aspect(booted):
    from scalediff.settings.sizes import base_size

    assert base_size((64, 64), (128, 128), 0) == (64, 64)
    assert base_size((512, 768), (1024, 1536), 0) == (512, 768)
    # 600 x 400 into a square: its middle 400 x 400, the whole on 600 x 600, or stretched
    assert base_size((600, 400), (1024, 1024), 1) == (400, 400)
    assert base_size((600, 400), (1024, 1024), 2) == (600, 600)
    assert base_size((600, 400), (1024, 1024), 0) == (488, 488)


def test_several_init_images(host):
    both = [picture(seed=3), picture(seed=4)]
    batch = host.run(host.img2img(True, init_images=both, batch_size=2, steps=4))
    second = host.run(host.img2img(True, init_images=[both[1]], seed=12, steps=4))
    assert len(batch.pixels) == 2
    assert np.abs(batch.pixels[1] - second.pixels[0]).max() <= 2


def test_one_init_image_for_a_batch(host):
    batch = host.run(host.img2img(True, init_images=[picture()], batch_size=2, steps=4))
    second = host.run(host.img2img(True, init_images=[picture()], seed=12, steps=4))
    assert np.abs(batch.pixels[1] - second.pixels[0]).max() <= 2


def test_a_batch_of_files_reuses_the_job(host):
    """The batch tab sets other init images on the same p for every file."""
    p = host.img2img(True, init_images=[picture(seed=3)], steps=3)
    pictures = []
    for seed in (3, 4):
        p.init_images = [picture(seed=seed)]
        pictures.append(host.run(p).pixels[0])
        alone = host.run(host.img2img(True, init_images=[picture(seed=seed)], steps=3)).pixels[0]
        assert np.array_equal(pictures[-1], alone)


def test_a_transparent_init_image(host):
    image = picture().convert("RGBA")
    image.putalpha(128)
    processed = host.run(host.img2img(True, init_images=[image], steps=3))
    assert "ScaleDiff: True" in processed.infotexts[0]


def test_a_mask_is_left_to_the_host(host):
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (16, 16, 48, 48))
    assert "mask" in refused(host, init_images=[picture()], mask=mask)


@pytest.mark.parametrize("size", [(128, 128), (256, 192)])
def test_an_init_image_that_is_not_smaller(host, size):
    """What the tab's size would not enlarge is doubled, unless it is made smaller first."""
    p = host.img2img(True, init_images=[picture(*size)], steps=3)
    assert host.run(p).pixels[0].shape == (2 * size[1], 2 * size[0], 3)


def bases(monkeypatch):
    """Base and target of every plan that is run from now on."""
    from scalediff.hosts.webui import passes as webui_pass

    run, seen = webui_pass.cascade.run, []

    def spy(host, plan, *args):
        seen.append((plan.base, plan.target))
        return run(host, plan, *args)

    monkeypatch.setattr(webui_pass.cascade, "run", spy)
    return seen


@pytest.mark.parametrize(
    ("size", "target", "base"),
    [
        ((128, 128), (256, 256), (64, 64)),
        ((128, 128), (128, 128), (64, 64)),  # no larger than the init image itself
        ((192, 96), (192, 96), (88, 48)),
        ((256, 256), (128, 128), (64, 64)),
    ],
)
def test_a_large_init_image_is_shrunk_to_the_native_size(host, monkeypatch, size, target, base):
    seen = bases(monkeypatch)
    p = host.img2img(
        {"enabled": True, "fit_init": True},
        init_images=[picture(*size)],
        width=target[0],
        height=target[1],
        steps=3,
    )
    processed = host.run(p)
    assert seen == [(base, target)]
    assert processed.pixels[0].shape == (target[1], target[0], 3)
    assert "ScaleDiff shrink init: True" in processed.infotexts[0]


def test_a_small_init_image_is_not_shrunk(host, monkeypatch):
    seen = bases(monkeypatch)
    usual = host.run(host.img2img(True, init_images=[picture()], steps=3))
    asked = host.run(host.img2img({"enabled": True, "fit_init": True}, init_images=[picture()], steps=3))
    assert seen == [((64, 64), (128, 128))] * 2
    assert np.array_equal(usual.pixels[0], asked.pixels[0])
    assert "shrink init" not in asked.infotexts[0]


def test_a_target_within_the_native_size_is_refused_all_the_same(host):
    p = host.img2img(
        {"enabled": True, "fit_init": True}, init_images=[picture(128, 128)], width=64, height=64, steps=3
    )
    processed = host.run(p)
    assert any("not larger than the 64 x 64 that the init image starts from" in c for c in p.comments)
    assert "ScaleDiff: True" not in processed.infotexts[0]


def test_every_file_of_a_batch_folder_gets_its_own_plan(host, monkeypatch):
    """The batch tab goes over the files with one p; Resize by gives each a size of its own."""
    seen = bases(monkeypatch)
    p = host.img2img(True, init_images=[], batch_size=2, steps=3)
    p.do_not_save_grid = True
    files = [(64, 64), (48, 64), (128, 128), (64, 40)]
    texts = []
    for number, (width, height) in enumerate(files):
        p.init_images = [picture(width, height, seed=number)] * p.batch_size
        p.width, p.height = (128, 128) if width == 128 else (2 * width, 2 * height)
        processed = host.run(p)
        texts.append(processed.infotexts[0])
        made = (p.height, p.width) if width < 128 else (256, 256)  # the tab's size would not enlarge it
        assert [pixels.shape for pixels in processed.pixels] == [(*made, 3)] * 2
        alone = host.img2img(True, init_images=p.init_images, batch_size=2, steps=3, width=p.width)
        alone.height = p.height
        expected = host.run(alone)
        assert all(np.array_equal(a, b) for a, b in zip(processed.pixels, expected.pixels))
    once = [
        ((64, 64), (128, 128)),
        ((48, 64), (96, 128)),
        ((128, 128), (256, 256)),
        ((64, 40), (128, 80)),
    ]
    assert seen == [plan for plan in once for _ in range(2)]
    assert all("ScaleDiff: True" in text for text in texts)


def test_scripts_with_loops_of_their_own(host, monkeypatch):
    class Upscale:
        alwayson = False

        def title(self):
            return "SD upscale"

    monkeypatch.setattr(host.pocket.img2img, "selectable_scripts", [Upscale()])
    p = host.img2img(True, init_images=[picture()], steps=3)
    p.script_args = [1, *p.script_args[1:]]
    host.run(p)
    assert any("SD upscale makes its own passes" in comment for comment in p.comments)


def test_an_img2img_job_with_the_scripts_of_txt2img(host):
    """ADetailer and others run img2img jobs inside a txt2img job, with its scripts."""
    p = host.img2img(True, init_images=[picture()], steps=4)
    p.scripts = host.pocket.txt2img
    p.script_args = host.pocket.script_args(p.scripts, {"ScaleDiff": [True]})
    nested = host.run(p).pixels[0]
    assert np.array_equal(nested, host.run(host.img2img(True, init_images=[picture()], steps=4)).pixels[0])


def test_controlnet_stays_around_us(host):
    """ControlNet's sample marks the conditioning, then calls what it found; it must not be hidden."""
    from scalediff.hosts.webui.replace import CONTROLNET_SAMPLE

    for ours_first in (True, False):
        calls = []
        p = host.img2img(True, init_images=[picture()], steps=3)

        def hook(p=p, calls=calls):
            setattr(p, CONTROLNET_SAMPLE, p.sample)

            def sample(*args, **kwargs):
                calls.append("controlnet")
                return getattr(p, CONTROLNET_SAMPLE)(*args, **kwargs)

            p.sample = sample

        if not ours_first:
            hook()
        p.scripts.process(p)
        if ours_first:
            hook()
        p.scripts = None  # both are installed
        processed = host.run(p)
        assert calls == ["controlnet"]
        assert "ScaleDiff: True" in processed.infotexts[0]


@pytest.mark.parametrize("button", ["interrupted", "skipped"])
@pytest.mark.parametrize(("stage", "size"), [(1, 64), (2, 128)])
def test_stopped_within_a_step_gives_the_last_finished_stage(host, monkeypatch, button, stage, size):
    from scalediff.hosts.webui.host import WebUIHost

    calls = []
    denoise = WebUIHost.denoise

    def pressed_in(self, reference, which, guidance):
        if which.index + 1 == stage:
            setattr(host.shared.state, button, False)
            network = self.unet().register_forward_pre_hook(press)
            try:
                return denoise(self, reference, which, guidance)
            finally:
                network.remove()
        return denoise(self, reference, which, guidance)

    def press(module, inputs):
        calls.append(1)
        setattr(host.shared.state, button, True)

    monkeypatch.setattr(WebUIHost, "denoise", pressed_in)
    fields = {"init_images": [picture()], "width": 256, "height": 256, "steps": 8}
    processed = host.run(host.img2img(True, **fields))
    assert len(calls) == 1, "one step, and no more, after the button"
    assert processed.pixels[0].shape == (size, size, 3)
    assert ("ScaleDiff: True" in processed.infotexts[0]) == (stage == 2)
    assert f"Size: {size}x{size}," in processed.infotexts[0]
    assert f"the picture is {size}x{size}" in processed.comments
    assert f"the picture is {size}x{size}" in processed.infotexts[0]
    if stage == 2:
        monkeypatch.setattr(WebUIHost, "denoise", denoise)
        whole = host.run(host.img2img(True, **{**fields, "width": 128, "height": 128})).pixels[0]
        assert np.abs(processed.pixels[0] - whole).max() <= 1, "the finished stage, not what came of the next"
