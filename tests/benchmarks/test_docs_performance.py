"""docs/performance.md says what the kept results say."""

import copy
import json

import pytest

from benchmarks import performance


def test_the_page_is_what_the_results_render_to() -> None:
    assert performance.PAGE.read_text() == performance.render()


def test_every_result_is_named_with_its_machine() -> None:
    for name in performance.SOURCES:
        report = json.loads((performance.RESULTS / f"{name}.json").read_text())
        assert report["results"], name
        assert {"device", "threads", "torch"} <= set(report["machine"]), name


@pytest.mark.parametrize(("slower", "verdict"), [(1.0, ": within the goal"), (1.2, ": not within the goal")])
def test_the_goal_is_judged_from_the_numbers(slower: float, verdict: str) -> None:
    report = json.loads((performance.RESULTS / "unet_call.json").read_text())
    report = copy.deepcopy(report)
    for row in report["results"]:
        row["seconds"]["ours"] = [row["side"] ** 2 * (slower if row["scale"] == 8 else 1.0)]
    assert verdict in performance.unet_call(report)


def test_a_missing_benchmark_is_named_as_not_run(tmp_path) -> None:
    assert performance.render(tmp_path).count("Not run.") == len(performance.SOURCES)
