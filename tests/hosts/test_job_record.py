"""Which of a job's settings its pictures name."""

from scalediff.hosts.webui.job_record import JobRecord
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig


def test_keys_are_written_in_full_and_taken_back():
    parameters = {"Steps": 20, "ScaleDiff tau": 111}
    JobRecord(ScaleDiffConfig(enabled=True, shift=True), adapter=None).write_infotext(parameters)
    assert parameters == {"Steps": 20, "ScaleDiff": True, "ScaleDiff shift": True}
    infotext.remove(parameters)
    assert parameters == {"Steps": 20}


def test_what_a_run_did_not_say_to_have_done_is_taken_out():
    record = JobRecord(ScaleDiffConfig(enabled=True, tau=300, vae_tiling="On", last_step_cut=2), adapter=None)
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
    record = JobRecord(
        ScaleDiffConfig(enabled=True, fit_init=True, negative_share=0.5, tau=300), adapter=None
    )
    record.mark_unused("fit_init")
    record.continue_with(ScaleDiffConfig(enabled=True, fit_init=True, tau=300))
    assert record.entries == {"ScaleDiff": True, "ScaleDiff tau": 300}
