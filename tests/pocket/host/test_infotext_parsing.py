"""Infotext: written, saved, read back, pasted."""

from __future__ import annotations

import string
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def parse(text):
    from modules.infotext_utils import parse_generation_parameters

    return parse_generation_parameters(text)


def test_what_a_job_writes_is_read_back(job):
    result = job.run(
        job.txt2img(
            prompt="a red sun, (big:1.2)",
            negative_prompt="a star\nsecond line",
            width=72,
            sampler_name="DPM++ 2M",
            enable_hr=True,
            hr_scale=1.5,
            hr_upscaler="Latent (bicubic)",
        )
    )
    params = parse(result.info)
    assert params["Prompt"] == "a red sun, (big:1.2)"
    assert params["Negative prompt"] == "a star\nsecond line"
    assert (params["Size-1"], params["Size-2"]) == ("72", "64")
    assert (params["Sampler"], params["Schedule type"]) == ("DPM++ 2M", "Karras")
    assert (params["Hires upscale"], params["Hires upscaler"]) == ("1.5", "Latent (bicubic)")
    assert params["Seed"] == "7"
    assert params["Model"] == "tiny"
    assert params["Denoising strength"] == "0.75"
    assert params["Version"] == "v1.10.1-pocket"


def test_missing_keys_get_their_meaning(pocket):
    params = parse("a prompt\nSteps: 3, Sampler: Euler, CFG scale: 7")
    assert params["Clip skip"] == "1"
    assert params["Schedule type"] == "Automatic"
    assert params["Hires resize-1"] == 0
    assert params["RNG"] == "GPU"


def test_text_without_parameters_is_all_prompt(pocket):
    params = parse("only a prompt: of two\nlines, really")
    assert params["Prompt"] == "only a prompt: of two\nlines, really"
    assert "Steps" not in params


def test_values_may_be_lists_and_functions_and_are_left_out_when_none(job):
    p = job.txt2img(batch_size=2)
    p.extra_generation_params.update(
        {
            "Per image": ["first", "second"],
            "Computed": lambda p, index, prompt_text, **kwargs: f"{index} {prompt_text} {p.width}",
            "Absent": None,
            "Broken": lambda **kwargs: 1 / 0,
            "Same": "Same",
        }
    )
    infos = job.run(p).infotexts
    assert "Per image: second" in infos[1]
    assert "Computed: 1 a red sun 64" in infos[1]
    assert "Absent" not in infos[0]
    assert "Broken" not in infos[0]
    assert ", Same," in infos[0]


@given(st.text(alphabet=string.ascii_letters + string.digits + ' ,:"\\\n.x-/()', min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_quoting_survives_the_parser(pocket, value):
    from modules.infotext_utils import quote, unquote

    quoted = str(quote(value))
    assert unquote(quoted) == value or quoted == value
    if any(c in value for c in ",:\n"):
        parsed = parse(f"p\nSteps: 1, Sampler: Euler, Own value: {quoted}, Seed: 4")
        assert parsed["Own value"] == value
        assert parsed["Seed"] == "4"


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_saved_images_carry_it(pocket, tmp_path, extension):
    from modules import images

    text = "ein Prüfbild\nSteps: 3, Sampler: Euler, Seed: 5"
    image = Image.new("RGB", (32, 24), (10, 200, 30))
    path, text_file = images.save_image(
        image, str(tmp_path), "", seed=5, prompt="x", extension=extension, info=text, save_to_dirs=False
    )
    assert path.endswith(f"00000-5.{extension}")
    assert text_file is None
    with images.read(path) as saved:
        assert images.read_info_from_image(saved)[0] == text
        assert saved.size == (32, 24)
    again, _ = images.save_image(
        image, str(tmp_path), "", seed=5, prompt="x", extension=extension, info=text, save_to_dirs=False
    )
    assert again.endswith(f"00001-5.{extension}")


def test_scripts_may_change_name_and_metadata_before_saving(pocket, tmp_path):
    from modules import images, script_callbacks

    def change(params):
        params.pnginfo["Own key"] = "own value"
        params.filename = params.filename.replace("00000", "renamed")

    script_callbacks.on_before_image_saved(change)
    try:
        path, _ = images.save_image(
            Image.new("RGB", (8, 8)), str(tmp_path), "", seed=1, prompt="p", info="i", save_to_dirs=False
        )
    finally:
        script_callbacks.remove_callbacks_for_function(change)
    assert path.endswith("renamed-1.png")
    with Image.open(path) as saved:
        assert saved.info == {"parameters": "i", "Own key": "own value"}


def test_a_job_saves_its_images_and_the_grid(job, tmp_path):
    from modules.shared import opts

    p = job.txt2img(
        batch_size=2,
        do_not_save_samples=False,
        do_not_save_grid=False,
        outpath_samples=str(tmp_path / "samples"),
        outpath_grids=str(tmp_path / "grids"),
    )
    result = job.run(p)
    assert [image.size for image in result.images] == [(128, 64), (64, 64), (64, 64)]
    assert result.index_of_first_image == 1
    samples, grids = (sorted((tmp_path / name).rglob("*.png")) for name in ("samples", "grids"))
    assert [path.name for path in samples] == ["00000-7.png", "00001-8.png"]
    assert [path.name for path in grids] == ["grid-0000.png"]
    assert opts.samples_format == "png"
    with Image.open(samples[1]) as saved:
        assert saved.info["parameters"] == result.infotexts[2] == result.images[2].info["parameters"]


def test_pasting_converts_to_the_components_type(pocket):
    from modules.infotext_utils import PasteField, paste_values

    def component(value):
        return SimpleNamespace(value=value)

    fields = [
        PasteField(component(False), "Flag"),
        PasteField(component(3), "Steps"),
        PasteField(component("x"), "Sampler"),
        PasteField(component(0.5), "Missing"),
        PasteField(component(1), lambda d: int(d["Seed"]) * 2),
        PasteField(component(1), lambda d: d["no such"]),
        PasteField(component(1), "Sampler"),
    ]
    values = paste_values("p\nSteps: 12, Sampler: Euler, Seed: 4, Flag: False", fields)
    assert values == [False, 12.0, "Euler", None, 8.0, None, None]
    assert fields[1].label == "Steps"
    assert fields[4].function is not None
    assert tuple(fields[1])[1] == "Steps"


def test_pasted_parameters_may_be_changed_by_scripts_first(pocket):
    from modules import script_callbacks
    from modules.infotext_utils import paste_values

    def migrate(text, params):
        params["Steps"] = params.pop("Old steps")

    script_callbacks.on_infotext_pasted(migrate)
    try:
        values = paste_values(
            "p\nOld steps: 9, Sampler: Euler, Seed: 4", [(SimpleNamespace(value=1), "Steps")]
        )
    finally:
        script_callbacks.remove_callbacks_for_function(migrate)
    assert values == [9.0]


def test_settings_are_recognised(pocket):
    from modules.infotext_utils import create_override_settings_dict, get_override_settings

    assert create_override_settings_dict(["Eta DDIM: 0.5", "Clip skip: 2", "Nonsense: 1"]) == {
        "eta_ddim": 0.5,
        "CLIP_stop_at_last_layers": 2,
    }
    assert get_override_settings({"Eta DDIM": "0.5", "Clip skip": "1"}) == [("Eta DDIM", "eta_ddim", 0.5)]


def test_result_as_json(job):
    import json

    data = json.loads(job.run(job.txt2img(batch_size=2)).js())
    assert data["all_seeds"] == [7, 8]
    assert data["prompt"] == "a red sun"
    assert data["width"] == 64
    assert len(data["infotexts"]) == 2
