"""Target size: a factor of our own, without Hires. fix."""

from __future__ import annotations

import numpy as np
from webui_client import BASE, Webui, difference, scalediff


def test_txt2img_without_hires_fix(webui: Webui) -> None:
    panel = webui.hires(alwayson_scripts=scalediff())
    fields = {
        name: value for name, value in webui.hires_fields.items() if name not in ("enable_hr", "hr_scale")
    }
    own = webui.txt2img(**fields, alwayson_scripts=scalediff(target="2x"))
    assert own.note == ""
    assert own.size == (2 * BASE, 2 * BASE)
    assert own.ours["ScaleDiff target"] == "2x"
    assert difference(own.image, panel.image) == 0


def test_img2img_from_the_pictures_own_size(webui: Webui) -> None:
    init = np.random.default_rng(1).integers(0, 255, (BASE // 2, BASE, 3), dtype=np.uint8)
    made = webui.img2img(init, alwayson_scripts=scalediff(target="2x"))
    assert made.note == ""
    assert made.size == (2 * BASE, BASE)


def test_ticking_it_alone_doubles_the_picture(webui: Webui) -> None:
    fields = {
        name: value for name, value in webui.hires_fields.items() if name not in ("enable_hr", "hr_scale")
    }
    made = webui.txt2img(**fields, alwayson_scripts=scalediff())
    assert made.note == ""
    assert made.size == (2 * BASE, 2 * BASE)
    assert "ScaleDiff target" not in made.ours


def test_pixels_and_the_old_name_of_auto(webui: Webui) -> None:
    wide = webui.txt2img(**webui.hires_fields, alwayson_scripts=scalediff(target=f"{3 * BASE}x{2 * BASE}"))
    assert (wide.note, wide.size) == ("", (3 * BASE, 2 * BASE))
    old = webui.hires(alwayson_scripts=scalediff(target="As set on the page"))
    assert (old.note, old.size) == ("", (2 * BASE, 2 * BASE))
