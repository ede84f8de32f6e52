"""Methods of one `p` and the way back."""

import copy

import pytest

from scalediff.hosts.webui.replace import CONTROLNET_SAMPLE, original, replace, restore


class Processing:
    def sample(self):
        return "class sample"

    def sample_hr_pass(self):
        return "class pass"


def ours(p, name):
    def replacement():
        return f"ours over {original(p, name, replacement)()}"

    return replacement


@pytest.mark.parametrize("name", ["sample", "sample_hr_pass"])
def test_replaced_on_one_object_and_restored(name):
    p, other = Processing(), Processing()
    untouched = getattr(p, name)()
    replace(p, name, ours(p, name))
    assert getattr(p, name)() == f"ours over {untouched}"
    assert getattr(other, name)() == untouched
    restore(p)
    restore(p)
    assert p.__dict__ == {}


def test_what_the_object_had_is_chained_and_comes_back():
    p = Processing()
    p.sample = theirs = lambda: "theirs"
    replace(p, "sample", ours(p, "sample"))
    assert p.sample() == "ours over theirs"
    restore(p)
    assert p.sample is theirs


def test_the_class_is_looked_up_late(monkeypatch):
    p = Processing()
    replace(p, "sample", ours(p, "sample"))
    monkeypatch.setattr(Processing, "sample", lambda self: "patched later")
    assert p.sample() == "ours over patched later"


def test_a_replacement_on_top_is_left_alone():
    p = Processing()
    replace(p, "sample", ours(p, "sample"))
    inner = p.sample
    p.sample = on_top = lambda: f"on top of {inner()}"
    restore(p)
    assert p.sample is on_top


def test_replacing_twice_restores_to_the_start():
    p = Processing()
    replace(p, "sample", ours(p, "sample"))
    replace(p, "sample", ours(p, "sample"))
    restore(p)
    assert p.__dict__ == {}


def test_a_copy_is_cleaned_without_touching_the_original():
    p = Processing()
    replace(p, "sample_hr_pass", ours(p, "sample_hr_pass"))
    twin = copy.copy(p)
    restore(twin)
    assert twin.sample_hr_pass() == "class pass"
    assert p.sample_hr_pass() == "ours over class pass"


def controlnet(p):
    """What sd-webui-controlnet does: keep `sample` once, then call it from its own."""
    if getattr(p, CONTROLNET_SAMPLE, None) is None:
        setattr(p, CONTROLNET_SAMPLE, p.sample)
        p.sample = lambda: f"controlnet over {getattr(p, CONTROLNET_SAMPLE)()}"


@pytest.mark.parametrize("controlnet_first", [True, False])
def test_controlnet_runs_around_us_in_either_order(controlnet_first):
    p = Processing()
    steps = [lambda: controlnet(p), lambda: replace(p, "sample", ours(p, "sample"))]
    for step in steps if controlnet_first else reversed(steps):
        step()
    assert p.sample() == "controlnet over ours over class sample"
    restore(p)
    assert p.sample() == "controlnet over class sample"
