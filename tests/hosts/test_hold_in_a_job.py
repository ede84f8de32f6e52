"""Holding the subject on the pocket host: what it changes, on which samplers, and when it is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

PROMPT = "a red star over green bark"


def run(host: Any, **settings: Any) -> Any:
    fields = settings.pop("fields", {})
    return host.run(host.txt2img({"enabled": True, "tau": 700, **settings}, **{"prompt": PROMPT, **fields}))


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DDIM", "Heun"])
def test_the_subject_is_held_with_every_kind_of_sampler(host: Any, sampler: str) -> None:
    fields = {"sampler_name": sampler}
    plain, held = run(host, fields=fields), run(host, hold="Subject", fields=fields)
    assert not np.array_equal(plain.pixels[0], held.pixels[0])
    assert "ScaleDiff hold: Subject" in held.infotexts[0]
    assert np.array_equal(run(host, hold="Subject", fields=fields).pixels[0], held.pixels[0])


def test_subject_and_ground_hold_different_places(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalediff.hosts.webui import hold

    made = []

    class Noted(hold.HeldGuidance):
        def __init__(self, guidance: Any, mask: torch.Tensor, *args: Any, **more: Any) -> None:
            made.append(mask)
            super().__init__(guidance, mask, *args, **more)

    monkeypatch.setattr(hold, "HeldGuidance", Noted)
    run(host, hold="Subject")
    run(host, hold="Ground")
    subject, ground = made[0], made[-1]
    torch.testing.assert_close(subject, 1 - ground)
    assert 0.02 < subject.mean() < 0.6


def test_what_is_held_can_be_looked_at(host: Any) -> None:
    """Beside the stages, for the page's Compare: the first picture, dark where it is free."""
    from scalediff.hosts.webui import keep

    run(host, hold="Subject")
    steps = {
        step.label: np.asarray(step.picture, dtype=float) for step in keep.last_run("txt2img").pictures[0]
    }
    first, shown = steps["First picture"], steps["What is held"]
    assert list(steps)[:2] == ["First picture", "What is held"]
    shares = shown.sum(2) / np.maximum(first.sum(2), 1)
    assert shares[:4, :4].mean() == pytest.approx(keep.DIMMED, abs=0.05)
    assert shares.max() > 0.9
    run(host)
    assert "What is held" not in [step.label for step in keep.last_run("txt2img").pictures[0]]


def test_each_image_of_a_batch_equals_the_same_seed_alone(host: Any) -> None:
    both = run(host, hold="Subject", fields={"batch_size": 2})
    alone = run(host, hold="Subject", fields={"seed": 12})
    assert np.abs(both.pixels[1].astype(int) - alone.pixels[0].astype(int)).max() <= 2


def test_img2img_holds_too(host: Any) -> None:
    picture = run(host).images[0].resize((64, 64))
    plain, held = (
        host.run(
            host.img2img({"enabled": True, "tau": 700, "hold": hold}, prompt=PROMPT, init_images=[picture])
        )
        for hold in ("Nothing", "Subject")
    )
    assert plain.pixels[0].shape == (128, 128, 3)
    assert not np.array_equal(plain.pixels[0], held.pixels[0])


def test_without_a_prompt_nothing_is_held_and_that_is_said(host: Any) -> None:
    plain, held = run(host, fields={"prompt": ""}), run(host, hold="Subject", fields={"prompt": ""})
    assert np.array_equal(plain.pixels[0], held.pixels[0])
    assert "held nothing" in held.comments
    assert "ScaleDiff hold" not in held.infotexts[0]


def test_an_error_while_looking_leaves_the_host_as_it_was(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalediff.hosts.webui import hold

    plain = run(host)
    monkeypatch.setattr(hold, "subject_mask", lambda looks: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(host, hold="Subject")
    assert np.array_equal(run(host).pixels[0], plain.pixels[0])


@pytest.mark.parametrize("button", ["skipped", "interrupted"])
@pytest.mark.parametrize("call", [1, 4])  # in the look with the prompt, in the one without
def test_stopped_while_looking(host: Any, monkeypatch: pytest.MonkeyPatch, button: str, call: int) -> None:
    from scalediff.hosts.webui import look

    calls = []
    real = host.model.apply_model

    def pressed(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            setattr(host.shared.state, button, True)
        return real(*args, **kwargs)

    def looking(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(host.model, "apply_model", pressed, raising=False)
        look_at_base(*args, **kwargs)

    look_at_base = look.look_at_base
    monkeypatch.setattr("scalediff.hosts.webui.hold.look_at_base", looking)
    try:
        processed = run(host, hold="Ground")
    finally:
        host.shared.state.skipped = host.shared.state.interrupted = False
    assert processed.pixels[0].shape == (64, 64, 3)
    assert "ScaleDiff was stopped before its first stage was finished" in processed.infotexts[0]
    assert "held nothing" not in processed.comments
    assert "ScaleDiff hold" not in processed.infotexts[0]


def test_the_hosts_scripts_reloaded_while_looking(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalediff.hosts.webui import hold

    real, calls = hold._predictions, []

    def cut(*args: Any) -> Any:
        calls.append(1)
        return real(*args)[len(calls) == 1 :]  # the callbacks went with the scripts

    monkeypatch.setattr(hold, "_predictions", cut)
    processed = run(host, hold="Subject")
    assert processed.pixels[0].shape == (128, 128, 3)
    assert "held nothing" in processed.comments
