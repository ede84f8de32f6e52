"""The schema that clients read agrees with the check that the extension makes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalediff.settings import schema
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import Param
from scalediff.settings.table import DEFAULTS, PARAMS

SCHEMA = schema.settings_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TYPED = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 1200),
    st.floats(-1, 5),
    st.lists(st.integers(), max_size=1),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
)


def accepted(values: Any) -> bool:
    try:
        ScaleDiffConfig.from_values(values)
    except ValueError:
        return False
    return True


def test_it_is_a_schema_of_its_draft_and_plain_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_it_has_every_parameter_in_order_and_nothing_else() -> None:
    assert list(SCHEMA["properties"]) == [param.attr for param in PARAMS]
    assert not VALIDATOR.is_valid({"tua": 300})
    for param in PARAMS:
        described = SCHEMA["properties"][param.attr]
        assert (described["title"], described["description"]) == (param.label, param.help)


def test_the_defaults_are_valid_and_are_the_defaults() -> None:
    VALIDATOR.validate(DEFAULTS)
    VALIDATOR.validate({})
    assert {name: row["default"] for name, row in SCHEMA["properties"].items()} == DEFAULTS


@pytest.mark.parametrize("param", [p for p in PARAMS if p.minimum is not None], ids=lambda p: p.attr)
def test_both_ends_of_a_range_and_just_beyond(param: Param) -> None:
    assert param.minimum is not None
    assert param.maximum is not None
    for value, valid in (
        (param.minimum, True),
        (param.maximum, True),
        (param.minimum - 1, False),
        (param.maximum + 1, False),
        (True, False),
    ):
        assert VALIDATOR.is_valid({param.attr: value}) is valid
        assert accepted({param.attr: value}) is valid


@given(st.sampled_from(PARAMS), TYPED)
def test_schema_and_check_agree_on_typed_values(param: Param, value: Any) -> None:
    # the check also takes 0 and 1 for truth values, and texts, which pages and pictures need
    if param.kind is bool and not isinstance(value, bool) and value in (0, 1):
        return
    assert VALIDATOR.is_valid({param.attr: value}) is accepted({param.attr: value})
