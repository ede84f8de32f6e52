"""Requests and answers in A1111's shapes: what a client may send and find."""

from __future__ import annotations

import base64
import io
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from scalediff.settings.table import PARAMS

LISTS = {
    "samplers": {"name", "aliases", "options"},
    "schedulers": {"name", "label", "aliases", "default_rho", "need_inner_model"},
    "upscalers": {"name", "model_name", "model_path", "model_url", "scale"},
    "latent-upscale-modes": {"name"},
    "sd-models": {"title", "model_name", "hash", "sha256", "filename", "config"},
    "script-info": {"name", "is_alwayson", "is_img2img", "args"},
}
INFO_KEYS = {
    "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed",
    "all_subseeds", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size",
    "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts", "job_timestamp",
}  # fmt: skip


def encoded(image: Image.Image) -> str:
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return base64.b64encode(sink.getvalue()).decode()


@pytest.fixture
def source() -> str:
    return encoded(Image.linear_gradient("L").resize((64, 64)).convert("RGB"))


@pytest.mark.parametrize("path", LISTS)
def test_lists_have_the_hosts_keys(http: httpx.Client, path: str) -> None:
    entries = http.get(path).json()
    assert entries
    assert all(set(entry) == LISTS[path] for entry in entries)


@pytest.mark.parametrize(
    "path", ["sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "extensions"]
)
def test_what_the_host_lacks_is_an_empty_list(http: httpx.Client, path: str) -> None:
    assert http.get(path).json() == []


def test_scalediff_is_listed_in_both_tabs_with_its_table(http: httpx.Client) -> None:
    assert "scalediff" in http.get("scripts").json()["txt2img"]
    found = [entry for entry in http.get("script-info").json() if entry["name"] == "scalediff"]
    assert sorted(entry["is_img2img"] for entry in found) == [False, True]
    for entry in found:
        assert entry["is_alwayson"] is True
        assert [arg["label"] for arg in entry["args"]] == [param.label for param in PARAMS]
        assert [arg["value"] for arg in entry["args"]] == [param.default for param in PARAMS]
        assert [arg["maximum"] for arg in entry["args"]] == [param.maximum for param in PARAMS]


def test_flags_are_an_object(http: httpx.Client) -> None:
    assert http.get("cmd-flags").json()["lowvram"] is False


def test_txt2img_answers_images_parameters_and_info(api: Any) -> None:
    answer = api.txt2img(batch_size=2)
    assert set(answer) == {"images", "parameters", "info"}
    info = json.loads(answer["info"])
    assert set(info) >= INFO_KEYS
    assert info["all_seeds"] == [7, 8]
    pictures = [api.picture(image) for image in answer["images"]][info["index_of_first_image"] :]
    assert [p.format for p in pictures] == ["PNG", "PNG"]
    assert [p.size for p in pictures] == [(64, 64)] * 2
    assert [p.info["parameters"] for p in pictures] == info["infotexts"][info["index_of_first_image"] :]


def test_parameters_echo_the_request_with_defaults(api: Any) -> None:
    parameters = api.txt2img(alwayson_scripts={"ScaleDiff": {"args": [False]}})["parameters"]
    assert parameters["steps"] == 3
    assert parameters["alwayson_scripts"] == {"ScaleDiff": {"args": [False]}}
    assert parameters["hr_scale"] == 2.0
    assert parameters["negative_prompt"] == ""


def test_the_same_seed_gives_the_same_picture(api: Any) -> None:
    assert api.txt2img()["images"] == api.txt2img()["images"]
    assert api.txt2img(seed=8)["images"] != api.txt2img()["images"]


def test_images_can_be_left_out(api: Any) -> None:
    assert api.txt2img(send_images=False)["images"] == []


def test_images_are_saved_only_on_request(api: Any, data_folder: Path) -> None:
    def saved() -> set[Path]:
        return set(data_folder.rglob("outputs/**/*.png"))

    before = saved()
    api.txt2img()
    assert saved() == before
    api.txt2img(save_images=True)
    (new,) = saved() - before
    assert "Steps: 3" in Image.open(new).info["parameters"]


def test_the_old_sampler_field_and_a_joined_schedule_are_understood(api: Any) -> None:
    info = json.loads(api.txt2img(sampler_name=None, sampler_index="DPM++ 2M Karras")["info"])
    assert "Sampler: DPM++ 2M, Schedule type: Karras" in info["infotexts"][0]


def test_settings_of_one_request_do_not_stay(http: httpx.Client, api: Any) -> None:
    before = http.get("options").json()["CLIP_stop_at_last_layers"]
    api.txt2img(override_settings={"CLIP_stop_at_last_layers": before + 1})
    assert http.get("options").json()["CLIP_stop_at_last_layers"] == before


def test_settings_are_read_and_written(http: httpx.Client) -> None:
    before = http.get("options").json()["jpeg_quality"]
    assert http.post("options", json={"jpeg_quality": 71}).status_code == 200
    assert http.get("options").json()["jpeg_quality"] == 71
    http.post("options", json={"jpeg_quality": before})


def test_an_unknown_model_is_not_set(http: httpx.Client) -> None:
    response = http.post("options", json={"sd_model_checkpoint": "no such model"})
    assert response.status_code == 500
    assert "no such model" in response.json()["errors"]


@pytest.mark.parametrize(
    "fields", [{"alwayson_scripts": {"Nobody": {"args": []}}}, {"script_name": "Nobody"}]
)
def test_an_unknown_script_is_422(http: httpx.Client, fields: dict[str, Any]) -> None:
    response = http.post("txt2img", json=fields)
    assert response.status_code == 422
    assert response.json()["detail"] == "Script 'Nobody' not found"
    assert set(response.json()) == {"error", "detail", "body", "errors"}


def test_a_field_of_the_wrong_type_is_422(http: httpx.Client) -> None:
    assert http.post("txt2img", json={"steps": "many"}).status_code == 422


def test_unknown_fields_are_ignored(api: Any) -> None:
    assert api.txt2img(no_such_field=1)["images"] == api.txt2img()["images"]


@pytest.mark.parametrize("args", [[], [False], [False, *[None] * 40]], ids=["none", "few", "many"])
def test_the_number_of_script_arguments_is_lenient(api: Any, args: list) -> None:
    plain = api.txt2img()
    assert api.txt2img(alwayson_scripts={"scalediff": {"args": args}})["images"] == plain["images"]


def test_positional_and_named_arguments_are_the_same(api: Any) -> None:
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    positional = api.txt2img(**hires, alwayson_scripts={"ScaleDiff": {"args": [True, 500]}})
    named = api.txt2img(**hires, alwayson_scripts={"ScaleDiff": {"args": [{"enabled": True, "tau": 500}]}})
    assert positional["images"] == named["images"]
    assert "ScaleDiff tau: 500" in json.loads(named["info"])["infotexts"][0]


def test_img2img_gives_the_image_back_only_on_request(api: Any, source: str) -> None:
    answer = api.img2img(init_images=[source])
    assert api.picture(answer["images"][0]).size == (64, 64)
    assert answer["parameters"]["init_images"] is None
    kept = api.img2img(init_images=[f"data:image/png;base64,{source}"], include_init_images=True)
    assert kept["parameters"]["init_images"] == [f"data:image/png;base64,{source}"]
    assert kept["images"] == answer["images"]


def test_img2img_without_an_image_is_404(http: httpx.Client) -> None:
    assert http.post("img2img", json={"prompt": "a"}).status_code == 404


@pytest.mark.parametrize(
    ("image", "reason"), [("bm90IGEgcGljdHVyZQ==", "Invalid"), ("http://127.0.0.1/x", "not allowed")]
)
def test_what_is_no_picture_is_refused(http: httpx.Client, image: str, reason: str) -> None:
    response = http.post("img2img", json={"init_images": [image]})
    assert response.status_code == 500
    assert reason in response.json()["detail"]


def test_png_info_reads_what_was_written(http: httpx.Client, api: Any) -> None:
    answer = api.txt2img()
    read = http.post("png-info", json={"image": answer["images"][0]}).json()
    assert read["info"] == json.loads(answer["info"])["infotexts"][0]
    assert read["parameters"]["Seed"] == "7"
    assert read["parameters"]["Size-1"] == "64"


def test_png_info_of_a_plain_picture_is_empty(http: httpx.Client, source: str) -> None:
    assert http.post("png-info", json={"image": source}).json()["info"] == ""


def test_infotext_fills_what_the_request_leaves_out(http: httpx.Client, api: Any) -> None:
    made = api.txt2img(seed=11, cfg_scale=3.5)
    text = json.loads(made["info"])["infotexts"][0]
    again = http.post("txt2img", json={"infotext": text, "save_images": False}).json()
    assert again["images"] == made["images"]
    changed = http.post("txt2img", json={"infotext": text, "seed": 12, "save_images": False}).json()
    assert json.loads(changed["info"])["seed"] == 12


def test_only_this_machine_is_served(url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(
        ConnectionRefusedError
    ):  # another loopback address: refused unless all are listened on
        socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"enable_hr": True, "hr_scale": 0}, "hr_scale must be above 0, got 0"),
        ({"enable_hr": True, "hr_scale": -2}, "hr_scale must be above 0, got -2"),
        (
            {"alwayson_scripts": {"ScaleDiff": {"args": {"enabled": True}}}},
            "'ScaleDiff' must be a list, such as",
        ),
        (
            {"alwayson_scripts": {"ScaleDiff": {"args": [{"upscale_prompt": "\ud83d"}]}}},
            "alwayson_scripts must be text, got half of a character",
        ),
    ],
)
def test_what_no_job_can_be_made_of_is_named(http: httpx.Client, fields: dict, words: str) -> None:
    body = json.dumps({"prompt": "a ball", "width": 64, "height": 64, "steps": 1, **fields})
    answer = http.post("txt2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
