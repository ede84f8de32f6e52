"""Arguments, infotext keys, log: the glue that needs no host."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalediff.settings import infotext, log
from scalediff.settings.arguments import read_arguments
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.job_record import JobRecord
from scalediff.settings.planning import make_plan
from scalediff.settings.table import PARAMS

ROOT = Path(__file__).resolve().parents[2]
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
        ([True, {"structure_strength": -1}], ["Structure strength", "-1", "from 0 to 1"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(args, words):
    with pytest.raises(ValueError, match=words[0]) as error:
        read_arguments(args)
    assert all(word in str(error.value) for word in words)


def test_keys_are_written_in_full_and_taken_back():
    parameters = {"Steps": 20, "ScaleDiff tau": 111}
    JobRecord(ScaleDiffConfig(enabled=True, shift=True)).write_infotext(parameters)
    assert parameters == {"Steps": 20, "ScaleDiff": True, "ScaleDiff shift": True}
    infotext.remove(parameters)
    assert parameters == {"Steps": 20}


def test_what_a_run_did_not_say_to_have_done_is_taken_out():
    record = JobRecord(ScaleDiffConfig(enabled=True, tau=300, vae_tiling="On", last_step_cut=2))
    record.mark_used("last_step_cut")
    parameters = {"another's": 1}
    record.write_infotext(parameters)
    assert parameters["ScaleDiff VAE tiling"] == "On"
    record.remove_unused(parameters)
    assert parameters == {
        "another's": 1,
        "ScaleDiff": True,
        "ScaleDiff tau": 300,
        "ScaleDiff last-step cut": 2,
    }


def test_a_config_that_takes_back_a_setting_withdraws_its_key():
    record = JobRecord(ScaleDiffConfig(enabled=True, fit_init=True, negative_share=0.5, tau=300))
    record.mark_unused("fit_init")
    record.continue_with(ScaleDiffConfig(enabled=True, fit_init=True, tau=300))
    assert record.entries == {"ScaleDiff": True, "ScaleDiff tau": 300}


def test_the_plan_ends_at_the_size_that_the_host_delivers():
    plan = make_plan((512, 512), (1100, 1031), ScaleDiffConfig(), steps=20)
    assert plan.target == (1096, 1024)
    assert plan.stages[-1].latent_size == (128, 137)


def test_one_handler_however_often_the_scripts_are_reloaded(monkeypatch):
    monkeypatch.setenv("SCALEDIFF_LOG", "debug")
    logger = log.set_up()
    try:
        assert log.set_up() is logger
        assert [handler.get_name() for handler in logger.handlers].count("scalediff") == 1
        assert not logger.propagate
        assert logger.level == logging.DEBUG
        monkeypatch.setenv("SCALEDIFF_LOG", "loud")
        assert log.set_up().level == logging.INFO
    finally:
        logger.handlers[:] = [handler for handler in logger.handlers if handler.get_name() != "scalediff"]
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def test_install_script_is_silent_and_changes_nothing(tmp_path):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "install.py"), "--skip-install"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
