"""docs/quality.md and the README's sentence are what the committed results say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import findings, report
from benchmarks.quality.distance import Sample
from benchmarks.quality.run import checkpoint_digest
from benchmarks.quality.summary import TITLES, against, with_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def summary() -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text())


def main_table(summary: Any, factor: int) -> Any:
    return next(t for t in summary["tables"] if t["title"] == "Methods" and t["factor"] == factor)


def test_the_page_is_rendered_from_the_results(summary: Any) -> None:
    page = (ROOT / "docs" / "quality.md").read_text()
    assert page == report.render(summary, summary["sheets"])
    for _, path in summary["sheets"]:
        assert (ROOT / "docs" / path).is_file()


def test_the_readme_tells_these_results(summary: Any) -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    found = re.search(
        r"Over (\d+) prompts at 4x: direct generation repeats the object in (\d+) %, the latent hires fix in "
        r"(\d+) %, ScaleDiff in (\d+) % \(native pictures: ([\d.]+) %",
        readme,
    )
    assert found
    table = main_table(summary, 4)
    rates = {row["method"]: row["metrics"]["repeated"][0] for row in table["rows"]}
    shares = [round(100 * rates[key]) for key in ("direct", "latent_hires", "default")]
    assert [int(number) for number in found.groups()[:-1]] == [table["prompts"], *shares]
    native = next(t for t in summary["tables"] if t["factor"] == 1)
    repeated = next(row["metrics"]["repeated"] for row in native["rows"] if row["method"] == "native")
    share, low, high = repeated
    assert found.groups()[-1] == f"{100 * share:.1f}"
    assert low <= rates["default"] <= high


def test_the_readme_says_what_a_pixel_upscaler_lacks(summary: Any) -> None:
    """It repeats as little as ours, so the argument is another one."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    found = re.search(
        r"does not repeat it either \(([\d.]+) %\), but is soft: it has (\d+) % of the truth's fine detail "
        r"where ScaleDiff has (\d+) %, and takes ([\d.]+) times the work",
        readme,
    )
    assert found
    rows = {row["method"]: row["metrics"] for row in main_table(summary, 4)["rows"]}
    pixels, ours = rows["rgb_hires"], rows["default"]
    said = (
        f"{100 * pixels['repeated'][0]:.1f}",
        f"{100 * pixels['fine_energy'][0]:.0f}",
        f"{100 * ours['fine_energy'][0]:.0f}",
        f"{pixels['seconds'][0] / ours['seconds'][0]:.1f}",
    )
    assert found.groups() == said


def test_only_valid_measures_decide() -> None:
    differences = {"default": {"whole_sliced": [-15.0, -20.0, -10.0], "patch_sliced": [5.0, 4.0, 6.0]}}
    table = {
        "title": "Methods",
        "factor": 4,
        "prompts": 64,
        "reference": "paper's",
        "orderings": [],
        "rows": [
            {"method": "paper", "label": "paper's", "metrics": {"repeated": [0.0, 0.0, 0.05]}},
            {"method": "default", "label": "default", "metrics": {"repeated": [0.0, 0.0, 0.05]}},
        ],
        "differences": differences,
    }
    judged = {"whole_sliced": {"valid": True}, "patch_sliced": {"valid": False}}
    found = {"tables": [table], "native_bias": [0.0, 0.0, 0.0], "validity": {"sizes": {"4x": judged}}}
    text = findings.findings(found)
    assert "**Our default against paper's at 4x**: better in whole: sliced W." in text
    assert "Shown apart: patch: sliced W." in text
    judged["patch_sliced"]["valid"] = True
    assert "better in whole: sliced W; worse in patch: sliced W." in findings.findings(found)


def test_a_higher_share_of_captions_is_better() -> None:
    found = findings.compared(
        {"agreement": [3.0, 1.0, 5.0], "excess": [0.0, -1.0, 1.0]}, ["agreement", "excess"]
    )
    assert found == {"better": ["agreement"], "worse": [], "open": ["excess"]}


def test_too_much_fine_detail_is_as_bad_as_too_little() -> None:
    """The share of the truth's fine energy is best at one; of any other figure less is better."""

    def row(energy: float) -> dict[str, Sample]:
        return {name: Sample(energy, np.array([energy, energy])) for name in ("fine_energy", "excess")}

    found = against("paper", {"paper": row(1.1), "soft": row(0.8), "close": row(0.95)})
    assert found["soft"]["fine_energy"][0] == pytest.approx(0.1)
    assert found["close"]["fine_energy"][0] == pytest.approx(-0.05)
    assert found["soft"]["excess"][0] == pytest.approx(-0.3)


def a_table(title: str, factor: int, repeated: dict[str, float]) -> dict[str, Any]:
    """A table of `Hold`'s kind, reduced to what the verdict says of it."""
    return {
        "title": title,
        "factor": factor,
        "prompts": 256,
        "rows": [
            {
                "method": key,
                "label": key,
                "metrics": {"repeated": [share, 0, 1], "seconds": [2 + share, 0, 9]},
            }
            for key, share in repeated.items()
        ],
        "differences": {"free_hold": {"excess": [-0.3, -0.4, -0.2], "patch_sliced": [5, 1, 9]}},
    }


def test_the_verdict_on_hold_is_of_its_table() -> None:
    table = a_table("Hold, at tau 700", 4, {"tau_700": 0.5, "free_hold": 0.125})
    valid = {"excess": {"valid": True}, "patch_sliced": {"valid": True}}
    (said,) = findings._hold({"tables": [table], "validity": {"sizes": {"4x": valid}}})
    assert "tau 700 at 4x** (256 prompts): repeated 50.0 % to 12.5 %, 0.85 times the time" in said
    assert "better in excess objects; worse in patch: sliced W" in said


def test_one_table_is_added_to_results_that_stay() -> None:
    title = "Hold, at tau 700"
    old, new = (a_table(title, 4, {"tau_700": share}) for share in (0.1, 0.2))
    last = TITLES[-1]
    kept = {"checkpoint": "a", "code": ["1"], "picture_seconds": 5.0, "finished": {"tau_700": 256, "fast": 7}}
    found = {"checkpoint": "a", "code": ["2"], "picture_seconds": 2.0, "finished": {"tau_700": 64, "fast": 0}}
    both = with_table(
        {**kept, "tables": [a_table(last, 2, {}), old]},
        {**found, "tables": [new, a_table(last, 4, {})]},
        title,
    )
    assert [(table["title"], table["factor"]) for table in both["tables"]] == [(title, 4), (last, 2)]
    assert both["tables"][0] is new
    assert (both["code"], both["picture_seconds"]) == (["1", "2"], 7.0)
    assert both["finished"] == {"tau_700": 256, "fast": 7}
    with pytest.raises(ValueError, match="belong to checkpoint a"):
        with_table({**kept, "tables": []}, {**found, "tables": [new], "checkpoint": "b"}, title)
    with pytest.raises(ValueError, match="no table 'Hold, at tau 700' is finished"):
        with_table({**kept, "tables": []}, {**found, "tables": []}, title)


def test_results_of_another_checkpoint_are_said_to_be_that(summary: Any) -> None:
    own = summary | {"checkpoint": checkpoint_digest()}
    other = summary | {"checkpoint": "0123456789ab"}
    assert "earlier checkpoint" not in report.render(own, [])
    head = report.render(other, []).split("## Verdict")[0]
    assert (
        f"earlier checkpoint** (SHA-256 0123456789ab...); the one that is committed now\n({own['checkpoint']}"
        in head
    )
