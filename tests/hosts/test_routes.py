"""The endpoints under /scalediff/v1 on the pocket host, asked as a client would."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalediff import __version__
from scalediff.cost.plan import plan_line
from scalediff.hosts.webui.job_record import JobRecord
from scalediff.page import page_key, preview, request, routes
from scalediff.settings import log, schema
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.log import LEVELS
from scalediff.settings.preferences import ATTENTION_CHOICES, ATTENTION_OPTION, LOG_OPTION
from scalediff.settings.table import DEFAULTS, PARAMS

ESTIMATE = "/scalediff/v1/estimate"
JOB = {"width": 64, "height": 64, "steps": 5, "hr_scale": 2.0}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [param.attr for param in request.REQUEST]


@pytest.fixture(scope="module")
def client(booted: SimpleNamespace) -> TestClient:
    """An application to which the host's callback has added our endpoints."""
    app = FastAPI()
    booted.script_callbacks.app_started_callback(None, app)
    return TestClient(app)


@pytest.fixture
def unloaded(booted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host before its first model."""
    monkeypatch.setattr(booted.sd_models.model_data, "sd_model", None)


def refused(client: TestClient, body: Any) -> str:
    answer = client.post(ESTIMATE, content=body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert len(detail) < 600
    return detail


def test_version(client: TestClient) -> None:
    answer = client.get("/scalediff/v1/version")
    assert answer.json() == {"name": "sd-webui-scalediff", "version": __version__, "host": "a1111"}


def test_schema(client: TestClient) -> None:
    assert client.get("/scalediff/v1/schema").json() == schema.settings_schema()


def test_the_endpoints_are_added_once_and_documented(booted: SimpleNamespace) -> None:
    app = FastAPI()
    for _ in range(2):
        routes.register(None, app)
    paths = [route.path for route in app.routes if route.path.startswith(routes.PREFIX)]
    pictures = ("page/last/{tab}", "page/picture/{tab}/{run}/{number}/{step}")
    assert sorted(paths) == [
        f"{routes.PREFIX}/{name}" for name in ("estimate", "page/estimate", *pictures, "schema", "version")
    ]
    described = TestClient(app).get("/openapi.json").json()["paths"][ESTIMATE]["post"]["requestBody"]
    properties = described["content"]["application/json"]["schema"]["properties"]
    assert list(properties) == [*FIELDS, "settings"]


def test_the_endpoints_ask_for_what_the_hosts_api_asks_for() -> None:
    """The hosts put their check on each of their own routes, before the callback that adds ours."""
    basic = HTTPBasic()

    def auth(credentials=Depends(basic)):  # type: ignore[no-untyped-def]  # noqa: B008
        if (credentials.username, credentials.password) == ("me", "secret"):
            return True
        raise HTTPException(status_code=401, detail="Incorrect username or password")

    def picture() -> dict:
        return {}

    app = FastAPI()
    app.add_api_route("/sdapi/v1/txt2img", picture, methods=["POST"], dependencies=[Depends(auth)])
    routes.register(None, app)
    stranger = TestClient(app)
    asked = [("get", "version", {}), ("get", "schema", {}), ("post", "estimate", {"json": JOB})]
    for how, name, sent in asked:
        path = f"{routes.PREFIX}/{name}"
        assert getattr(stranger, how)(path, **sent).status_code == 401
        assert getattr(stranger, how)(path, **sent, auth=("me", "wrong")).status_code == 401
        assert getattr(stranger, how)(path, **sent, auth=("me", "secret")).status_code == 200


def test_the_page_asks_with_its_key(client: TestClient) -> None:
    path = f"{routes.PREFIX}/page/estimate"
    for header in ({}, {page_key.HEADER: "guess"}, {page_key.HEADER: ""}):
        assert client.post(path, json=JOB, headers=header).status_code == 403
    ours = client.post(path, json=JOB, headers={page_key.HEADER: page_key.KEY})
    assert ours.json() == client.post(ESTIMATE, json=JOB).json()
    wrong = client.post(path, json={"width": 12}, headers={page_key.HEADER: page_key.KEY})
    assert wrong.status_code == 422


def test_the_estimate_is_the_plan_of_the_run(client: TestClient, host: Any) -> None:
    from scalediff.hosts.select import host_class
    from scalediff.hosts.webui import hires as webui_hires

    config = {"enabled": True, "tau": 600, "stage_factor": 2.0}
    answer = client.post(ESTIMATE, json={**JOB, "hr_scale": 4.0, "settings": config}).json()
    p = host.txt2img(config, hr_scale=4.0)
    p.init(p.prompt, [1], [1])
    plan = webui_hires.plan_of(p, JobRecord(ScaleDiffConfig.from_values(config), host_class()), (64, 64))
    assert answer["stages"] == [
        {"width": s.size[0], "height": s.size[1], "steps": s.steps, "tau": s.tau} for s in plan.stages
    ]
    assert len(plan.stages) == 2
    assert answer["steps"] == sum(stage.steps for stage in plan.stages)
    assert (answer["base"], answer["target"]) == ([64, 64], [256, 256])
    assert answer["settings"]["tau"] == 600
    assert answer["note"] is None


def test_work_and_memory_come_with_a_model(client: TestClient) -> None:
    small = client.post(ESTIMATE, json=JOB).json()
    large = client.post(ESTIMATE, json={**JOB, "hr_scale": 4.0}).json()
    assert 0 < small["ratio"] < large["ratio"]
    assert 0 < small["memory_bytes"] < large["memory_bytes"]
    assert small["line"].startswith("64x64 -> 128x128, 2 steps. ")
    batch = client.post(ESTIMATE, json={**JOB, "batch_size": 4}).json()
    assert batch["memory_bytes"] > small["memory_bytes"]
    assert batch["ratio"] == pytest.approx(small["ratio"])


@pytest.mark.parametrize("with_model", [True, False])
def test_a_list_is_read_as_a_run_reads_it(
    client: TestClient, with_model: bool, request: pytest.FixtureRequest
) -> None:
    """Its defaults are left to the preset; what an object names is meant."""
    if not with_model:
        request.getfixturevalue("unloaded")
    values = [{**DEFAULTS, "enabled": True, "preset": "Faithful"}[param.attr] for param in PARAMS]
    by_name = {"preset": "Faithful", "tau": DEFAULTS["tau"]}
    taus = [
        client.post(ESTIMATE, json={**JOB, "settings": given}).json()["settings"]["tau"]
        for given in (values, {"preset": "Faithful"}, by_name)
    ]
    assert taus == [300, 300, 400]


@pytest.mark.usefixtures("unloaded")
def test_without_a_model_the_stages_are_still_answered(client: TestClient) -> None:
    answer = client.post(ESTIMATE, json={"width": 1024, "height": 1024, "hr_scale": 4, "steps": 50}).json()
    assert [(s["width"], s["steps"]) for s in answer["stages"]] == [(2048, 20), (4096, 20)]
    assert answer["line"] == "1024x1024 -> 2048x2048 -> 4096x4096, 20+20 steps"
    assert (answer["ratio"], answer["memory_bytes"]) == (None, None)
    assert "not loaded yet" in answer["note"]


def test_asking_loads_no_model(client: TestClient, unloaded: None, booted: SimpleNamespace) -> None:
    client.post(ESTIMATE, json=JOB)
    assert booted.sd_models.model_data.sd_model is None


def test_the_line_without_a_model_begins_the_line_with_one(client: TestClient, host: Any) -> None:
    for body in (JOB, {**JOB, "hr_scale": 1.0}):
        answer = client.post(ESTIMATE, json=body).json()
        values, config = request.read_request(body)
        assert answer["line"].startswith(plan_line(preview.stage_plan(values, config)[0]))


def test_a_target_an_hires_steps_and_the_defaults(client: TestClient) -> None:
    body = {"width": 100, "height": 75, "target_width": 203, "target_height": 155, "hr_second_pass_steps": 17}
    answer = client.post(ESTIMATE, json=body).json()
    assert (answer["base"], answer["target"]) == ([96, 72], [200, 152])
    assert answer["steps"] == 7 * len(answer["stages"])  # tau's share
    assert "7 of 17 steps" in answer["line"]
    for empty in ({}, dict.fromkeys([*FIELDS, "settings"])):
        assert client.post(ESTIMATE, json=empty).json()["line"].startswith("512x512 -> 1024x1024, 8 steps")
    assert client.post(ESTIMATE).json()["target"] == [1024, 1024]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau": 5000},
        {"tau": "many"},
        {"tau": True},
        {"tau": 10**400},
        {"structure_strength": -0.1},
        {"shift": "x" * 5_000_000},
        {"tua": 300},
        {"lfm_factor": [1, 2]},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_setting_is_refused_in_the_words_of_a_run(client: TestClient, wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|unknown") as told:
        ScaleDiffConfig.from_values(wrong)
    assert refused(client, {**JOB, "settings": wrong}) == str(told.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"width": 12}, "width must be a whole number from 64 to 16384, got 12"),
        ({"hr_scale": 100}, "hr_scale must be a number from 1 to 16, got 100"),
        ({"steps": "1.5"}, "steps must be a whole number from 1 to 1000, got '1.5'"),
        ({"widht": 512}, "unknown field 'widht'; known are width, height"),
        ({"settings": "all"}, "settings must be an object or a list, got 'all'"),
        ({"settings": [True, 5000]}, "New detail (tau) must be a whole number from 1 to 999, got 5000"),
        ({"target_width": 100}, "target_width and target_height must be given together, got 100 and 0"),
        ({"hr_scale": 2, "target_width": 9, "target_height": 9}, "not both, got 2 and 9 x 9"),
        ({"target_width": 9, "target_height": 3}, "must be at least 8, got 9 and 3"),
        ([], "the request must be a JSON object, got []"),
        (b"{", "this is no JSON"),
        (b"\xff\xfe", "this is no JSON"),
        (b"[" * 100_000, "this is no JSON"),
        (b'{"steps": NaN}', "steps must be a whole number from 1 to 1000, got nan"),
    ],
)
def test_a_wrong_field_is_named_with_value_and_range(client: TestClient, body: Any, words: str) -> None:
    assert words in refused(client, body)


@pytest.mark.parametrize("mode", ["Stages", "Direct"])
def test_the_estimate_knows_what_a_run_would_refuse(
    client: TestClient, host: Any, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    from modules import sd_samplers, sd_unet

    for name in ("DPM adaptive", "Euler"):
        stand_in = sd_samplers.all_samplers_map["Euler"]._replace(name=name)
        monkeypatch.setitem(sd_samplers.all_samplers_map, name, stand_in)
    job = {"width": 128, "height": 128, "steps": 5, "settings": {"mode": mode}}

    def note(**fields: Any) -> Any:
        answer = client.post(ESTIMATE, json={**job, **fields}).json()
        assert (answer["ratio"] is None) == (answer["note"] is not None)
        return answer["note"]

    assert note(sampler_name="Euler") is None
    assert note(sampler_name="an old name") is None, "the host translates it"
    staged = mode == "Stages"
    assert ("DPM adaptive" in (note(sampler_name="DPM adaptive") or "")) == staged
    steps = note(hr_sampler_name="Euler", settings={"tau": 3, "mode": mode, "stage_steps": "4"})
    assert ("do not fit below timestep 3" in (steps or "")) == staged
    monkeypatch.setattr(host.model, "depth_model", object(), raising=False)
    assert "second picture" in note()
    monkeypatch.setattr(host.model, "depth_model", None)
    assert note() is None
    monkeypatch.setattr(sd_unet, "current_unet", object())
    assert "compiled UNet" in note()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=JSON
    | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3)
    | st.dictionaries(
        st.just("settings"), st.dictionaries(st.sampled_from([p.attr for p in PARAMS]), JSON, max_size=3)
    )
)
def test_nothing_that_is_json_breaks_it(client: TestClient, body: Any) -> None:
    answer = client.post(ESTIMATE, content=json.dumps(body))
    assert answer.status_code in (200, 422)
    assert answer.status_code == 200 or isinstance(answer.json()["detail"], str)


def test_the_log_level_of_the_settings_page(
    booted: SimpleNamespace, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, opts = logging.getLogger("scalediff"), booted.shared.opts
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.delenv(log.LEVEL_VARIABLE, raising=False)
    assert opts.data_labels[LOG_OPTION].section == ("scalediff", "ScaleDiff")
    for level in LEVELS:
        opts.set(LOG_OPTION, level)
        assert logger.level == getattr(logging, level)
    monkeypatch.setenv(log.LEVEL_VARIABLE, "INFO")
    opts.set(LOG_OPTION, "DEBUG")
    assert logger.level == logging.ERROR  # the environment had its say when the script was loaded


def test_the_ways_of_windowed_attention_stand_on_the_settings_page(
    booted: SimpleNamespace, host: Any
) -> None:
    row = booted.shared.opts.data_labels[ATTENTION_OPTION]
    assert row.section == ("scalediff", "ScaleDiff")
    assert row.default == "Auto"
    assert row.component_args == {"choices": list(ATTENTION_CHOICES)}


# Direct mode


def test_direct_mode_is_one_pass_compared_with_ordinary_attention(client: TestClient) -> None:
    """Attention over windows of 8 cells instead of all 16 x 32: less work, never more."""
    job = {"width": 256, "height": 128, "steps": 5, "settings": {"preset": "Panorama"}}
    answer = client.post(ESTIMATE, json=job).json()
    assert (answer["base"], answer["target"], answer["stages"]) == ([256, 128], [256, 128], [])
    assert answer["steps"] == 5
    assert answer["settings"]["mode"] == "Direct"
    assert 0 < answer["ratio"] < 1
    assert answer["memory_bytes"] > 0
    assert answer["line"].startswith("256x128 in one pass, 5 steps. ")
    assert f". {answer['ratio']:.2f}x the work of ordinary attention. " in answer["line"]
    assert answer["note"] is None
    wider = {**job["settings"], "window_multiple": 2.0}
    assert answer["ratio"] < client.post(ESTIMATE, json={**job, "settings": wider}).json()["ratio"]


def test_direct_mode_says_where_it_would_change_nothing(client: TestClient) -> None:
    answer = client.post(ESTIMATE, json={"width": 64, "height": 64, "settings": {"mode": "Direct"}}).json()
    assert answer["ratio"] == 1
    assert "64 x 64 is not larger than one attention window of 64 x 64" in answer["note"]


@pytest.mark.usefixtures("unloaded")
def test_direct_mode_without_a_model(client: TestClient) -> None:
    answer = client.post(ESTIMATE, json={"width": 2048, "height": 512, "settings": {"mode": "Direct"}}).json()
    assert answer["line"] == "2048x512 in one pass, 20 steps"
    assert (answer["ratio"], answer["memory_bytes"]) == (None, None)
    assert "not loaded yet" in answer["note"]
