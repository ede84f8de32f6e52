"""Our own endpoints and the axes of the X/Y/Z plot on a running WebUI."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from webui_client import BASE, Webui, scalediff

TAU = "[ScaleDiff] New detail (tau)"
ENABLED = "[ScaleDiff] Enabled"


def ask(webui: Webui, **body: Any) -> Any:
    return webui.http.post("/scalediff/v1/estimate", json=body)


def test_version_and_schema(webui: Webui) -> None:
    version = webui.http.get("/scalediff/v1/version").json()
    assert version["name"] == "sd-webui-scalediff"
    schema = webui.http.get("/scalediff/v1/schema").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"enabled": True, "tau": 400}, schema)


def test_the_schema_names_the_arguments_in_their_order(webui: Webui) -> None:
    info = next(entry for entry in webui.get("script-info") if entry["name"] == "scalediff")
    described = webui.http.get("/scalediff/v1/schema").json()["properties"].values()
    assert [arg["label"] for arg in info["args"]] == [row["title"] for row in described]


def test_the_estimate_of_a_picture_that_was_made(webui: Webui) -> None:
    """After a run the model is loaded: the same stages, with work and memory."""
    made = webui.hires(alwayson_scripts=scalediff(tau=600))
    answer = ask(webui, width=BASE, height=BASE, steps=webui.defaults["steps"], settings={"tau": 600}).json()
    assert answer["note"] is None
    last = answer["stages"][-1]
    assert (last["width"], last["height"], last["tau"]) == (*made.size, 600)
    assert answer["ratio"] > 0
    assert answer["memory_bytes"] > 0
    assert answer["total_seconds"] > 0
    assert next(part["level"] for part in answer["parts"]) == ""
    assert answer["line"].startswith(f"{BASE}x{BASE} -> {made.size[0]}x{made.size[1]}, ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"settings": {"tau": 5000}}, "(tau) must be a whole number from 1 to 999, got 5000"),
        ({"settings": {"tua": 1}}, "unknown ScaleDiff setting 'tua'"),
        ({"hr_scale": 99}, "hr_scale must be a number from 1 to 16, got 99"),
    ],
)
def test_a_wrong_field_is_answered_with_one_sentence(webui: Webui, body: dict, words: str) -> None:
    answer = ask(webui, **body)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_a_plot_over_our_axes(webui: Webui) -> None:
    known = [entry for entry in webui.get("script-info") if entry["name"] == "x/y/z plot"]
    plot = next((entry for entry in known if not entry["is_img2img"]), None)
    if plot is None:
        pytest.skip("this WebUI has no X/Y/Z plot")
    axes = plot["args"][0]["choices"]
    values = [arg["value"] for arg in plot["args"]]
    values[0:6] = [axes.index(TAU), "300, 600", [], axes.index(ENABLED), "", ["True", "False"]]
    values[6] = 0
    made = webui.hires(
        steps=3, script_name="x/y/z plot", script_args=values, alwayson_scripts=scalediff(tau=250)
    )
    grid, *cells = made.info["infotexts"]
    assert f"X Type: {TAU}" in grid
    told = [("ScaleDiff: True" in text, "ScaleDiff tau: 300" in text, "tau: 600" in text) for text in cells]
    assert told == [(True, True, False), (True, False, True), (False,) * 3, (False,) * 3]
