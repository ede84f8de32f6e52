"""Script arguments, in every form that pages and API callers send."""

import pytest

from scalediff.settings.arguments import read_arguments
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.table import PARAMS

DEFAULTS = [param.default for param in PARAMS]


@pytest.mark.parametrize(
    "args",
    [
        [True, 300, *DEFAULTS[2:]],
        [True, 300],
        [{"enabled": True, "tau": 300}, *DEFAULTS[1:]],
        [{"enabled": True, "tau": 300}],
        [True, {"tau": 300}, *DEFAULTS[2:]],
        [1, "300", *DEFAULTS[2:], "an argument of a later version"],
        [True, 300.0, None],
    ],
)
def test_every_way_to_say_the_same(args):
    assert read_arguments(args) == ScaleDiffConfig(enabled=True, tau=300)


@pytest.mark.parametrize("args", [[], [False], [None], DEFAULTS, [{}], [{}, True]])
def test_off_by_default(args):
    assert read_arguments(args) == ScaleDiffConfig()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([True, 5000], ["tau", "5000", "from 1 to 999"]),
        ([{"enabled": True, "tau": "much"}], ["tau", "'much'", "from 1 to 999"]),
        ([{"enabled": True, "taux": 3}], ["taux", "structure_strength"]),
        ([True, {"structure_strength": -1}], ["Keep the layout", "-1", "from 0 to 1"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(args, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        read_arguments(args)
    assert all(word in str(error.value) for word in words)
