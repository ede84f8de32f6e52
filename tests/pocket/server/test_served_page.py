"""The served page: ids that scripts and users know, the accordion, Generate, and the page's own script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from PIL import Image

# fmt: off
IDS = (
    "prompt", "neg_prompt", "generate", "interrupt", "skip", "steps", "sampling", "scheduler",
    "width", "height", "batch_count", "batch_size", "cfg_scale", "seed", "gallery",
)
HIRES_IDS = (
    "txt2img_hr", "txt2img_hr-checkbox", "txt2img_hr_upscaler", "txt2img_hires_steps",
    "txt2img_denoising_strength", "txt2img_hr_scale", "txt2img_hr_resize_x", "txt2img_hr_resize_y",
    "hires_prompt", "hires_neg_prompt",
)
# fmt: on


@pytest.fixture(scope="session")
def config(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/config", timeout=60, trust_env=False).json()


@pytest.fixture(scope="session")
def by_id(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    components = [c for c in config["components"] if c["props"].get("elem_id")]
    assert len({c["props"]["elem_id"] for c in components if c["type"] != "column"}) > len(IDS)
    return {c["props"]["elem_id"]: c for c in components}


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_both_tabs_have_the_hosts_ids(by_id: dict[str, Any], tab: str) -> None:
    assert [name for name in IDS if f"{tab}_{name}" not in by_id] == []
    assert "paste" in by_id  # one name for both tabs


def test_the_hires_panel_is_there(by_id: dict[str, Any]) -> None:
    assert [name for name in HIRES_IDS if name not in by_id] == []
    assert by_id["txt2img_hr-checkbox"]["props"]["value"] is False


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_the_extensions_accordion_is_in_the_tab(by_id: dict[str, Any], tab: str) -> None:
    accordion = by_id[f"script_{tab}_scalediff_enabled"]
    assert accordion["type"] == "accordion"
    assert accordion["props"]["label"] == "ScaleDiff"
    assert by_id[f"script_{tab}_scalediff_enabled-checkbox"]["props"]["visible"] is False
    assert by_id[f"script_{tab}_scalediff_tau"]["props"]["value"] == 400


def test_the_page_loads_its_script(url: str, config: dict[str, Any]) -> None:
    assert 'src="/pocket/javascript/0"' in config["head"]
    script = httpx.get(f"{url}/pocket/javascript/0", trust_env=False)
    assert script.headers["content-type"].startswith("text/javascript")
    assert "function inputAccordionChecked" in script.text
    assert httpx.get(f"{url}/pocket/javascript/99", trust_env=False).status_code == 404


def test_generate_gives_a_file_with_infotext(url: str) -> None:
    client = Client(url, verbose=False)
    gallery, infotext, *_ = client.predict(
        "a red <sun>", "", "Euler", "Automatic", 3, 64, 64, api_name="/txt2img"
    )
    picture = Image.open(Path(gallery[0]["image"]))
    assert picture.size == (64, 64)
    assert picture.info["parameters"].startswith("a red <sun>\nSteps: 3, Sampler: Euler")
    assert "a red &lt;sun&gt;" in infotext


def test_paste_fills_the_controls_and_switches_the_accordions_on(url: str) -> None:
    text = (
        "a red sun\nNegative prompt: web\n"
        "Steps: 5, Sampler: Euler, Schedule type: Karras, CFG scale: 2, Seed: 77, "
        "Size: 64x72, Denoising strength: 0.6, Hires upscale: 3, Hires upscaler: Lanczos, ScaleDiff: True, "
        "ScaleDiff tau: 300, Version: v1.10.1"
    )
    client = Client(url, verbose=False)
    answers = client.predict(text, api_name="/paste")
    values = [a["value"] for a in answers if isinstance(a, dict) and "value" in a]
    assert values[:2] == ["a red sun", "web"]
    for expected in ("Euler", "Karras", 5, 77, 64, 72, 3, "Lanczos", 300, 0.6):
        assert expected in values
    assert sum(value is True for value in values) == 3  # Hires. fix, ScaleDiff, and Keep colours by default
