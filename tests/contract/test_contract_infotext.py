"""A picture's own infotext makes the picture again, and the usual client library works."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import webuiapi
from webui_client import BASE, HIRES, TITLE, Answer, Webui, difference, read_infotext, scalediff

# A1111 itself answers 500 to an infotext with a hires pass unless these fields are named where it lacks their keys: it
# reads "Use same sampler" out of the missing key and takes that for a sampler's name.
NAMED = {
    "Hires sampler": "hr_sampler_name",
    "Hires checkpoint": "hr_checkpoint_name",
    "Hires schedule type": "hr_scheduler",
}


def replay(made: Answer) -> dict[str, Any]:
    """A request that consists of a picture's infotext. A field that is named beside it takes precedence over it."""
    missing = {field: None for key, field in NAMED.items() if f"{key}: " not in made.infotext}
    return {"infotext": made.infotext, "save_images": False, **missing}


def skip_unless_infotext_field(webui: Webui) -> None:
    schemas = httpx.get(f"{webui.url}/openapi.json", trust_env=False).json()["components"]["schemas"]
    request = next(s for name, s in schemas.items() if name.startswith("StableDiffusionProcessingTxt2Img"))
    if "infotext" not in request["properties"]:
        pytest.skip("this host's txt2img request has no field named infotext")
    if webui.http.post("/sdapi/v1/txt2img", json=replay(webui.hires())).status_code == 500:
        pytest.skip("this host fails on the infotext of an ordinary picture")


def test_the_infotext_alone_makes_the_picture_again(webui: Webui) -> None:
    skip_unless_infotext_field(webui)
    made = webui.hires(alwayson_scripts=scalediff(tau=550, structure_strength=0.5))
    again = webui.generate("txt2img", replay(made))
    assert again.ours == made.ours
    assert difference(again.image, made.image) == 0


def test_an_ordinary_infotext_does_not_switch_us_on(webui: Webui) -> None:
    skip_unless_infotext_field(webui)
    stock = webui.hires()
    again = webui.generate("txt2img", replay(stock))
    assert not again.ours
    assert difference(again.image, stock.image) == 0


# A request's fields by the keys of the infotext, as the hosts read them when a picture is pasted.
FIELDS: dict[str, str] = {
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Steps": "steps",
    "Sampler": "sampler_name",
    "Schedule type": "scheduler",
    "CFG scale": "cfg_scale",
    "Distilled CFG Scale": "distilled_cfg_scale",
    "Seed": "seed",
    "Size-1": "width",
    "Size-2": "height",
    "Denoising strength": "denoising_strength",
    "Hires upscale": "hr_scale",
    "Hires upscaler": "hr_upscaler",
    "Hires steps": "hr_second_pass_steps",
    **NAMED,
    "Hires CFG Scale": "hr_cfg",
    "Hires Distilled CFG Scale": "hr_distilled_cfg",
    "Hires prompt": "hr_prompt",
    "Hires negative prompt": "hr_negative_prompt",
}


def test_the_keys_of_both_passes_make_the_picture_again(webui: Webui) -> None:
    """Hosts write those of the second pass in `init`, or in the pass that is replaced."""
    chosen = {
        "hr_sampler_name": "Euler a",
        "hr_second_pass_steps": 3,
        "hr_prompt": "a blue box",
        "hr_negative_prompt": "a tree",
    }
    made = webui.hires(**chosen, denoising_strength=0.65, alwayson_scripts=scalediff())
    read = {FIELDS[key]: value for key, value in read_infotext(webui, made).items() if key in FIELDS}
    needed = ("hr_upscaler", "denoising_strength", *chosen)
    assert not [name for name in needed if name not in read]
    said = {name: value for name, value in read.items() if not str(value).startswith("Use same")}
    said["cfg_scale"] = webui.defaults["cfg_scale"]  # Neo reads 1 wherever a Distilled CFG Scale stands
    forced = {"enable_hr": True, "hr_additional_modules": webui.hires_fields.get("hr_additional_modules")}
    again = webui.generate(
        "txt2img", {**said, **forced, "save_images": False, "alwayson_scripts": scalediff()}
    )
    assert difference(again.image, made.image) == 0
    assert again.infotext == made.infotext


def test_the_client_library_from_the_package_index(webui: Webui) -> None:
    where = urlsplit(webui.url)
    client = webuiapi.WebUIApi(host=where.hostname, port=where.port)
    known = inspect.signature(client.txt2img).parameters
    result = client.txt2img(
        **{name: value for name, value in webui.defaults.items() if name in known and name not in HIRES},
        enable_hr=True,
        hr_scale=2,
        hr_upscaler=webuiapi.HiResUpscaler.Latent,
        denoising_strength=HIRES["denoising_strength"],
        alwayson_scripts=scalediff(),
    )
    assert result.image.size == (2 * BASE, 2 * BASE)
    assert any(key.startswith(TITLE) for key in result.info["extra_generation_params"])
    ours = webui.hires(alwayson_scripts=scalediff())
    assert difference(np.asarray(result.image.convert("RGB")), ours.image) == 0
