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
