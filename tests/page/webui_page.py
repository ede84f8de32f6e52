"""One tab of a WebUI's page as its user sees it: what can be filled in, pressed and read.

The ids are those of Automatic1111 and Forge; the pocket's page has the same.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from playwright.sync_api import Locator, Page, TimeoutError, expect

START_MS = 120_000  # a real host builds its page while the first browser waits
RUN_MS = 300_000  # a picture of the smallest real model on a busy CPU
SETTLE_MS = 2000  # gradio draws what it has mounted once more
# keeps every text that the progress bar shows, with the time between two looks well below the host's own
WATCH = """(tab) => {
    window.scalediffSeen = [];
    setInterval(() => {
        const bar = document.querySelector(`#${tab}_results .progressDiv .progress`);
        const text = bar ? bar.textContent : "";
        if (text && text !== window.scalediffSeen.at(-1)) window.scalediffSeen.push(text);
    }, 50);
}"""


class WebuiTab:
    """`name` is "txt2img" or "img2img"; the pages opened by one test share `problems`."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name

    def find(self, elem_id: str, inside: str = "") -> Locator:
        return self.page.locator(f"#{elem_id} {inside}".strip()).first

    def ours(self, setting: str, inside: str = "") -> Locator:
        return self.find(f"script_{self.name}_scalediff_{setting}", inside)

    def show(self) -> None:
        """Switch to this tab."""
        self.page.locator(
            "#tabs button", has_text=re.compile(rf"^\s*{self.name}\s*$", re.IGNORECASE)
        ).first.click()
        expect(self.find(f"{self.name}_generate")).to_be_visible()

    def open_scalediff(self) -> None:
        """Opening the accordion switches it on."""
        self.ours("enabled", ".label-wrap").click()
        expect(self.ours("tau")).to_be_visible()

    def open_advanced(self) -> None:
        self.ours("advanced", ".label-wrap").click()

    def open_hires(self, scale: float) -> None:
        self.find("txt2img_hr", ".label-wrap").click()
        self.fill("txt2img_hr_scale", scale)

    def fill(self, elem_id: str, value: float) -> None:
        box = self.find(elem_id, "input[type=number]")
        box.fill(str(value))
        box.press("Tab")

    def fill_ours(self, setting: str, value: float) -> None:
        self.fill(f"script_{self.name}_scalediff_{setting}", value)

    def choose_ours(self, setting: str, choice: str) -> None:
        box = self.ours(setting, "input")
        box.fill(choice)
        box.press("Enter")

    def size(self, width: int, height: int) -> None:
        self.fill(f"{self.name}_width", width)
        self.fill(f"{self.name}_height", height)

    def paste(self, text: str) -> None:
        """The parameters of a picture, put into the prompt and read in from there."""
        self.find(f"{self.name}_prompt", "textarea").fill(text)
        self.find(f"tab_{self.name}", "#paste").click()

    def put_in(self, picture: Path) -> None:
        self.find("img2img_image", "input[type=file]").set_input_files(picture)
        self.page.wait_for_timeout(SETTLE_MS)  # Forge sets its controls anew when a picture arrives

    @property
    def line(self) -> Locator:
        return self.ours("estimate", ".scalediff-line")

    def expect_line(self, text: str) -> None:
        expect(self.line).to_contain_text(text, timeout=20_000)

    def expect_value(self, setting: str, value: str) -> None:
        """What a number of ours shows, by and by."""
        expect(self.ours(setting, "input[type=number]")).to_have_value(value, timeout=20_000)

    def start(self) -> None:
        """Press Generate; everything the progress bar says from now on is kept."""
        self.page.evaluate(WATCH, self.name)
        self.find(f"{self.name}_generate").click()

    def expect_progress(self, text: str) -> None:
        self.page.wait_for_function(
            "(text) => window.scalediffSeen.some((seen) => seen.includes(text))", arg=text, timeout=RUN_MS
        )

    def interrupt(self) -> None:
        """A1111 means the first press as "after this picture" where a job has several parts."""
        self.find(f"{self.name}_interrupt").click()
        at_once = self.find(f"{self.name}_interrupting")
        if at_once.count():
            with suppress(TimeoutError):  # a job of one part is stopped already
                at_once.click(timeout=SETTLE_MS)

    def result(self) -> tuple[tuple[int, int], str]:
        """Waits for the picture; its size in pixels and the parameters that the page shows."""
        shown = self.find(f"html_info_{self.name}", "p")
        expect(shown).to_contain_text("Steps:", timeout=RUN_MS)
        picture = self.find(f"{self.name}_gallery", "img")
        expect(picture).to_be_visible()
        size = picture.evaluate(
            "async (image) => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
        )
        return (size[0], size[1]), shown.inner_text()

    def progress_seen(self) -> list[str]:
        return self.page.evaluate("window.scalediffSeen")
