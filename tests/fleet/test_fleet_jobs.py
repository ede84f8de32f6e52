"""A row becomes a job whose name is its digest; what is not allowed is named by field."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from fleet_samples import SMALL
from hypothesis import given
from hypothesis import strategies as st

from fleet import fields
from fleet.jobs import Defaults, Job, job_of
from fleet.rows import BadRow, Row

NONE = Defaults({}, {})
TARGET = Defaults({}, {"target": "4x", "preset": "Fast"})


def _job(values: dict[str, Any], defaults: Defaults = NONE) -> Job:
    job = job_of(Row(7, values), defaults)
    assert isinstance(job, Job), str(job)
    return job


def _settings(job: Job) -> dict[str, Any]:
    return job.request["alwayson_scripts"]["ScaleDiff"]["args"][0]


def test_fields_and_settings_become_the_request() -> None:
    job = _job(
        {**SMALL, "scalediff": {"tau": 300}, "checkpoint": "sdxl", "request": {"new_field": 1}}, TARGET
    )
    assert job.request["new_field"] == 1
    assert job.request["override_settings"] == {"sd_model_checkpoint": "sdxl"}
    assert job.checkpoint == "sdxl"
    assert _settings(job) == {"enabled": True, "target": "4x", "preset": "Fast", "tau": 300}
    assert job.size == (256, 256)
    assert job.source == "line 7"


def test_the_texts_of_a_csv_mean_what_json_means() -> None:
    texts = {"prompt": "a red flower", "width": "64", "height": "64", "steps": "1", "scalediff.tau": "300"}
    values = {**SMALL, "scalediff": {"tau": 300}}
    assert _job(texts).digest == _job(values).digest


def test_without_settings_it_is_an_ordinary_job() -> None:
    assert "alwayson_scripts" not in _job(SMALL).request
    assert "alwayson_scripts" not in _job({**SMALL, "scalediff": False}, TARGET).request
    assert _settings(_job({**SMALL, "scalediff": "false"} | {"scalediff": True}, TARGET))["enabled"]


def test_other_scripts_stay_beside_ours() -> None:
    others = {"ControlNet": {"args": [1]}, "scalediff": {"args": [{"enabled": False}]}}
    scripts = _job({**SMALL, "alwayson_scripts": others}, TARGET).request["alwayson_scripts"]
    assert scripts["ControlNet"] == {"args": [1]}
    assert list(scripts) == ["ControlNet", "ScaleDiff"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "prompt is missing"),
        ({"promt": "x"}, "field 'promt' is not a field of a job; did you mean prompt?"),
        ({"prompt": "x", "steps": 0}, "steps must be a whole number from 1 to 1000, got 0"),
        ({"prompt": "x", "steps": "many"}, "steps must be a whole number from 1 to 1000, got 'many'"),
        ({"prompt": "x", "seed": 2**32}, "seed must be a whole number from -1 to 4294967295, got 4294967296"),
        ({"prompt": "x", "batch_size": 2}, "batch_size must be a whole number from 1 to 1, got 2"),
        (
            {"prompt": "x", "scalediff": {"tau": 0}},
            f"{fields.SETTINGS['tau'].label} must be a whole number from 1 to 999, got 0",
        ),
        (
            {"prompt": "x", "scalediff.tua": 1},
            "field 'scalediff.tua' is not a field of a job; did you mean scalediff.tau?",
        ),
        ({"prompt": "x", "scalediff": {"tua": 1}}, "unknown ScaleDiff setting 'tua'"),
        ({"prompt": "x", "scalediff": "{"}, "scalediff must be JSON, got '{'"),
        ({"prompt": "x", "override_settings": []}, "override_settings must be a JSON object, got []"),
        ({"prompt": "\ud800"}, "prompt must be"),
        ({"prompt": "x", "request": {"a": "\ud800"}}, "holds half of a character"),
        (
            {"prompt": "x", "request": {"steps": 5}},
            "request must not hold steps, which is a field of its own",
        ),
        ({"prompt": "x", "name": "../up"}, "name must stay in the output folder, got '../up'"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], reason: str) -> None:
    bad = job_of(Row(7, values), NONE)
    assert isinstance(bad, BadRow)
    assert str(bad).startswith(f"line 7: {reason}")


def test_the_digest_is_of_all_that_makes_the_picture() -> None:
    base = _job(SMALL)
    assert _job(dict(reversed(SMALL.items()))).digest == base.digest
    for change in (
        {"seed": 5},
        {"name": "x"},
        {"scalediff": True},
        {"checkpoint": "m"},
        {"request": {"a": 1}},
    ):
        assert _job({**SMALL, **change}).digest != base.digest, change
    assert base.stem == base.digest[:16]


@given(
    st.dictionaries(
        st.sampled_from([*fields.TYPED, *fields.NESTED, "scalediff", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_no_values_break_it_and_a_job_survives_the_disk(values: dict[str, Any]) -> None:
    job = job_of(Row(1, {"prompt": "a", **values}), NONE)
    if isinstance(job, Job):
        assert Job.from_text(job.as_text()) == job
        assert len(job.digest) == 64


def test_the_schema_takes_what_is_taken() -> None:
    schema = fields.row_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    rows = jsonschema.Draft202012Validator(schema)
    assert rows.is_valid({**SMALL, "scalediff": {"tau": 300, "target": "4x"}, "override_settings": {"a": 1}})
    for bad in ({"promt": 1}, {"steps": 0}, {"scalediff": {"tua": 1}}, {"scalediff": {"target": "wide"}}):
        assert not rows.is_valid(bad), bad
    assert json.loads(json.dumps(schema)) == schema
