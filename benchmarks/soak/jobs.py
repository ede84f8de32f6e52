"""What a job is: everything about it follows from the campaign's seed and the job's number."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.soak.setups import LDM, Setup, setup_of
from scalediff.settings.parameter import Param
from scalediff.settings.table import PARAMS

KINDS = {
    "hires": 6,
    "img2img": 4,
    "target": 3,
    "img2img target": 2,
    "direct": 3,
    "disabled": 1,
    "bad value": 1,
}
SAMPLERS = ("Euler a", "Euler", "DPM++ 2M", "Heun", "DPM2", "DDIM")
PROMPTS = (
    "a red ball",
    "a (red:1.3) ball on [grass:snow:2]",
    "a cat AND a dog :0.5",
    "a [blue|green] house, \u82b1, many small windows",
    "",
)
NEGATIVE = ("", "blurry", "[bad:worse:1] hands")
UPSCALERS = ("Latent", "Latent (nearest)", "Lanczos", "None")
ERRORS = ("RuntimeError", "OutOfMemoryError", "ValueError", "KeyboardInterrupt", "InterruptedException")
PLACES = ("attention", "unet", "decoder", "encoder", "sampler", "callback", "saving", "script")
# a place is called so many times in a small job: the call of the disturbance is drawn from that many
CALLS = {
    "attention": 60,
    "unet": 16,
    "sampler": 12,
    "callback": 14,
    "decoder": 3,
    "encoder": 3,
    "saving": 3,
    "script": 2,
}
DISTURBANCES = {
    "none": 6,
    "error": 8,
    "interrupt": 4,
    "skip": 2,
    "nan": 1,
    "nested": 2,
    "reload": 1,
    "estimates": 2,
    "mask": 1,
    "loopback": 1,
    "foreign forward": 2,
    "compiled": 1,
    "checkpoint": 1,
    "refiner": 1,
    "plot": 1,
    "hints": 2,
}
BAD = ({"tau": 0}, {"tau": "much"}, {"no_such": 1}, {"stage_factor": 9}, {"target": "17x"}, {"shift": 3})


@dataclass(frozen=True)
class Job:
    """`fields` go to the host's job, `settings` to our script, `disturbance` and its details to `disturb`."""

    number: int
    kind: str
    tab: str
    settings: dict[str, Any]
    as_list: bool
    fields: dict[str, Any]
    init: tuple[int, int] | None
    disturbance: str
    place: str
    call: int
    error: str
    saves: bool

    @property
    def setup(self) -> Setup:
        """What it runs on."""
        return setup_of(self.number)

    @property
    def values(self) -> tuple[Any, ...]:
        """The arguments of our script: an object, or a list in the order of the page."""
        if not self.as_list:
            return (self.settings,)
        return tuple(self.settings.get(param.attr, param.default) for param in PARAMS)

    def described(self) -> dict[str, Any]:
        return asdict(self)


def draw(seed: int, number: int) -> Job:
    """Job `number` of the campaign of `seed`."""
    source = random.Random(f"{seed}:{number}")
    kind = _weighted(source, KINDS)
    tab = "img2img" if kind.startswith("img2img") else source.choice(("txt2img",) * 3 + ("img2img",))
    if kind in ("hires", "target"):
        tab = "txt2img"
    disturbance = _weighted(source, DISTURBANCES)
    if disturbance in ("mask", "loopback"):
        tab = "img2img"
        kind = {"hires": "img2img", "target": "img2img target"}.get(kind, kind)
    if disturbance == "checkpoint":
        tab, kind = "txt2img", "hires"
    if disturbance == "hints":
        kind = "img2img" if tab == "img2img" else "hires"
    init = (source.randrange(40, 90), source.randrange(40, 90)) if tab == "img2img" else None
    settings = _settings(source, kind)
    place = source.choice(PLACES)
    return Job(
        number=number,
        kind=kind,
        tab=tab,
        settings=settings,
        as_list=kind != "bad value" and source.random() < 0.4,
        fields=_fitted(_fields(source, kind, tab), disturbance, setup_of(number)),
        init=init,
        disturbance=disturbance,
        place=place,
        call=min(source.randrange(CALLS[place]), source.randrange(CALLS[place])),
        error=source.choice(ERRORS),
        saves=source.random() < 0.2 or place == "saving",
    )


def _fitted(fields: dict[str, Any], disturbance: str, setup: Setup) -> dict[str, Any]:
    """Without what a host with a patcher shows otherwise (DDIM), and a ControlNet has no hint for (a cropped pass)."""
    if setup.family != LDM and fields["sampler_name"] == "DDIM":
        fields = fields | {"sampler_name": "Euler"}
    if disturbance == "hints":
        fields = {name: value for name, value in fields.items() if not name.startswith("hr_resize")}
    return fields


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """A smooth picture of `size`, its own for each seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def _settings(source: random.Random, kind: str) -> dict[str, Any]:
    drawn = {
        param.attr: _value(source, param) for param in PARAMS if param.recorded and source.random() < 0.3
    }
    drawn["enabled"] = kind != "disabled"
    drawn.setdefault("mode", "Stages")
    if kind == "direct":
        drawn["mode"] = "Direct"
    if "target" in kind:
        drawn["target"] = source.choice(("2x",) * 8 + ("3x", "4x", "6x", "8x"))
    else:
        drawn["target"] = "As set on the page"
    if kind == "bad value":
        drawn |= source.choice(BAD)
    return drawn


def _value(source: random.Random, param: Param) -> Any:
    """One of the setting's allowed values; lists of steps are kept short, as a job must be."""
    if param.kind is bool:
        return source.random() < 0.5
    if param.choices:
        return source.choice(param.choices)
    if param.entries:
        return " ".join(_entry(source, param) for _ in range(source.randrange(1, 4)))
    if param.kind is str:
        return source.choice(("", "ball", "a wall of [stone:brick:1]", "\u82b1, cat"))
    assert param.minimum is not None
    assert param.maximum is not None
    assert param.step
    count = round((param.maximum - param.minimum) / param.step)
    value = param.minimum + source.randrange(count + 1) * param.step
    return int(value) if param.kind is int else float(value)


def _entry(source: random.Random, param: Param) -> str:
    assert param.entries is not None
    if param.percent:
        return source.choice(("1", "2", "3", "50%", "100%"))
    return str(source.randrange(*param.entries))


def _fields(source: random.Random, kind: str, tab: str) -> dict[str, Any]:
    base = {
        "prompt": source.choice(PROMPTS),
        "negative_prompt": source.choice(NEGATIVE),
        "seed": source.randrange(10**6),
        "steps": source.randrange(2, 5),
        "cfg_scale": source.choice((1.0, 4.0, 7.5)),
        "sampler_name": source.choice(SAMPLERS),
        "batch_size": source.choice((1, 1, 1, 2)),
        "n_iter": source.choice((1, 1, 1, 2)),
        "width": source.choice((64, 64, 64, source.randrange(48, 100))),
        "height": source.choice((64, 64, source.randrange(48, 100))),
        "tiling": source.random() < 0.1,
    }
    if tab == "img2img":
        size = {"width": source.randrange(100, 180), "height": source.randrange(100, 180)}
        return (
            base
            | size
            | {"denoising_strength": source.choice((0.3, 0.7)), "resize_mode": source.randrange(3)}
        )
    if kind == "direct" and source.random() < 0.7:
        return base | {"width": source.randrange(64, 200), "enable_hr": False}
    if kind == "target" and source.random() < 0.7:
        return base | {"enable_hr": False, "denoising_strength": None}
    return base | _hires(source)


def _hires(source: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "enable_hr": True,
        "hr_scale": source.choice((2.0, 2.0, 2.0, 1.0, 1.7, 2.5)),
        "hr_upscaler": source.choice(UPSCALERS),
        "denoising_strength": source.choice((0.3, 0.7)),
        "hr_second_pass_steps": source.choice((0, 0, 2, 3)),
        "hr_prompt": source.choice(("", "", "a stone wall")),
        "hr_sampler_name": source.choice((None, None, "Euler")),
    }
    if source.random() < 0.2:
        fields |= {
            "hr_resize_x": source.randrange(100, 180),
            "hr_resize_y": source.choice((0, source.randrange(100, 180))),
        }
    return fields


def _weighted(source: random.Random, weights: dict[str, int]) -> str:
    return source.choices(list(weights), list(weights.values()))[0]
