"""Before and after: two clicks to a larger picture, and the line between the two moved by mouse, touch and keys."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from webui_page import WebuiTab

expect = pytest.importorskip("playwright.sync_api").expect
README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf8")
LINE = "parseFloat(document.querySelector('#scalediff_compare_txt2img .scalediff-handle').style.left)"
PICTURES = "document.querySelectorAll('#scalediff_compare_txt2img .scalediff-picture')"
MOVED = f"Array.from({PICTURES}, (image) => image.style.transform)"


@pytest.fixture
def made(open_tab: Callable[[str], WebuiTab]) -> WebuiTab:
    """Somebody who reads README's quick start and does just that: what is printed bold there is clicked."""
    quick_start = README[README.index("## Two clicks") :].split("![")[0]
    clicks = re.findall(r"\d\. \w+ \*\*(\w+)\*\*", quick_start)
    assert len(clicks) == 2
    assert "the size that your model was made for" in quick_start
    tab = open_tab("txt2img")
    tab.size(128, 128)
    tab.find("txt2img_prompt", "textarea").fill("a red circle on green grass")
    start = time.monotonic()
    for name in clicks:
        tab.find("tab_txt2img").get_by_text(name, exact=True).locator("visible=true").first.click()
    size, parameters = tab.result()
    print(f"two clicks, {time.monotonic() - start:.1f} s to a picture of {size}")
    assert size == (256, 256)
    assert "ScaleDiff: True" in parameters
    return tab


def test_two_clicks_and_the_line_is_moved_by_mouse_keys_and_touch(made: WebuiTab) -> None:
    page, root = made.page, made.find("scalediff_compare_txt2img")
    root.locator("summary").click()
    left, right = root.locator("select").nth(1), root.locator("select").nth(2)
    expect(left.locator("option:checked")).to_have_text(re.compile("First picture, 128x128"))
    expect(right.locator("option:checked")).to_have_text(re.compile("Final picture, 256x256"))
    for picture in root.locator("img").all():
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") in (
            128,
            256,
        )
    assert not root.locator("select").nth(0).is_visible(), "one picture, no batch"

    frame = root.locator(".scalediff-frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 30, steps=4)
    page.mouse.up()
    assert page.evaluate(LINE) == pytest.approx(25, abs=1)

    slider = root.locator("input[type=range]")
    slider.focus()
    slider.press("End")
    assert page.evaluate(LINE) == 100
    slider.press("ArrowLeft")
    assert page.evaluate(LINE) == 99.5
    slider.press("+")
    both = page.evaluate(MOVED)
    assert both[0] == both[1] != "translate(0%, 0%) scale(1)"
    slider.press("0")
    assert page.evaluate(MOVED) == ["translate(0%, 0%) scale(1)"] * 2

    _touch(
        page, [(box["x"] + box["width"] * 0.9, box["y"] + 50), (box["x"] + box["width"] * 0.6, box["y"] + 60)]
    )
    assert page.evaluate(LINE) == pytest.approx(60, abs=1)

    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.wheel(0, -100)
    page.wait_for_function(f"{MOVED}[0].includes('scale(1.15)')")
    assert len(set(page.evaluate(MOVED))) == 1
    page.mouse.down()  # away from the line: the picture is dragged
    page.mouse.move(box["x"] + box["width"] / 4 - 10, box["y"] + box["height"] / 4, steps=2)
    page.mouse.up()
    dragged = page.evaluate(MOVED)
    assert dragged[0] == dragged[1] != both[0]
    assert page.evaluate(LINE) == pytest.approx(60, abs=1)

    # and what will go wrong is told before the next run
    made.size(512, 512)
    made.expect_line("much larger than the 128 x 128 that this model was made for")


def _touch(page: Any, points: list[tuple[float, float]]) -> None:
    session = page.context.new_cdp_session(page)
    for kind, (x, y) in zip(("touchStart", "touchMove"), points):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
