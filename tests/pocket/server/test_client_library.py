"""The client library from the package index, unchanged, against the pocket."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import webuiapi

SMALL = {"prompt": "a red sun", "seed": 7, "steps": 3, "width": 64, "height": 64, "sampler_name": "Euler"}


@pytest.fixture
def client(url: str) -> webuiapi.WebUIApi:
    where = urlsplit(url)
    return webuiapi.WebUIApi(host=where.hostname, port=where.port)


def test_its_lists(client: webuiapi.WebUIApi) -> None:
    assert "Euler" in client.util_get_sampler_names()
    assert "karras" in client.util_get_scheduler_names()
    (model,) = client.util_get_model_names()
    assert model.startswith(client.util_get_current_model())
    assert "Latent" in [mode["name"] for mode in client.get_latent_upscale_modes()]
    assert "Lanczos" in [upscaler["name"] for upscaler in client.get_upscalers()]
    assert "scalediff" in client.get_scripts()["img2img"]
    assert client.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert client.refresh_checkpoints() is None
    for empty in (
        client.get_sd_vae,
        client.get_hypernetworks,
        client.get_face_restorers,
        client.get_prompt_styles,
    ):
        assert empty() == []


def test_its_txt2img_and_png_info(client: webuiapi.WebUIApi) -> None:
    result = client.txt2img(**SMALL)
    assert result.image.size == (64, 64)
    assert result.info["seed"] == 7
    read = client.png_info(result.image)
    assert read.info == result.image.info["parameters"]


def test_its_img2img(client: webuiapi.WebUIApi) -> None:
    image = client.txt2img(**SMALL).image
    result = client.img2img(images=[image], denoising_strength=0.5, **SMALL)
    assert result.image.size == (64, 64)
    assert result.info["denoising_strength"] == 0.5


def test_its_settings_and_control(client: webuiapi.WebUIApi) -> None:
    options = client.get_options()
    client.set_options({"jpeg_quality": options["jpeg_quality"]})
    assert client.get_options() == options
    assert client.get_cmd_flags()["medvram"] is False
    client.interrupt()
    client.skip()
    client.util_wait_for_ready(check_interval=0.1)
    assert client.get_progress()["progress"] == 0
