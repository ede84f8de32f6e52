"""The text gate on the pocket host: closed it changes nothing, open it only asks for more."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

PROMPT = "a red star over green bark"


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch, host: Any) -> list[Any]:
    """The gates that jobs have made; each sees a subject in the left half of the picture."""
    from scalediff.hosts.webui import gate as webui_gate
    from scalediff.models import gate as module

    made: list[Any] = []

    class Noted(module.TextGate):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    def left_half(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        assert maps
        assert all(bool(seen.any()) for seen in maps)
        mask = torch.zeros(size)
        mask[:, : size[1] // 2] = 1
        return mask

    monkeypatch.setattr(webui_gate, "TextGate", Noted)
    monkeypatch.setattr(module, "subject_mask", left_half)
    return made


def run(host: Any, **settings: Any) -> Any:
    fields = settings.pop("fields", {})
    return host.run(host.txt2img({"enabled": True, **settings}, **{"prompt": PROMPT, **fields}))


def test_the_gate_changes_the_stages(host: Any, gates: list[Any]) -> None:
    plain = run(host)
    assert not gates
    gated = run(host, subject_gate=1.0)
    assert len(gates) == 1
    assert gates[0].calls > 0
    assert not np.array_equal(plain.pixels[0], gated.pixels[0])
    assert "ScaleDiff subject gate: 1.0" in gated.infotexts[0]


def test_each_image_of_a_batch_equals_the_same_seed_alone(host: Any, gates: list[Any]) -> None:
    both = run(host, subject_gate=1.0, fields={"batch_size": 2})
    alone = run(host, subject_gate=1.0, fields={"seed": 12})
    assert np.abs(both.pixels[1] - alone.pixels[0]).max() <= 2
    assert np.abs(both.pixels[1] - both.pixels[0]).max() > 20


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"prompt": "a red star"}, {}),
        ({"prompt": ""}, {}),
        ({"prompt": PROMPT}, {"gate_subject": "planet"}),
        ({"prompt": "a red star AND green bark"}, {"gate_subject": "star"}),
    ],
)
def test_without_a_subject_in_the_prompt_the_picture_is_the_same(
    host: Any, gates: list[Any], fields: dict, settings: dict
) -> None:
    plain = run(host, fields=fields)
    gated = run(host, subject_gate=1.0, fields=fields, **settings)
    assert not gates
    assert np.array_equal(plain.pixels[0], gated.pixels[0])
    (said,) = gated.comments.splitlines()
    assert said.startswith("ScaleDiff made the picture without the subject gate: ")
    if settings == {"gate_subject": "planet"}:
        assert "the prompt lacks its subject 'planet'" in said
    assert f', ScaleDiff note: "{said}"' in gated.infotexts[0]
    assert plain.infotexts[0] == gated.infotexts[0].replace(f', ScaleDiff note: "{said}"', "")


def test_without_a_subject_in_the_picture_it_is_the_same(
    host: Any, gates: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalediff.models.gate.subject_mask", lambda maps, size: None)
    plain = run(host)
    gated = run(host, subject_gate=1.0)
    assert len(gates) == 1
    assert gates[0].calls == 0
    assert np.array_equal(plain.pixels[0], gated.pixels[0])
    said = "ScaleDiff made the picture without the subject gate: no subject in the picture"
    assert gated.comments.startswith(said)
    assert said in gated.infotexts[0]


def test_the_subject_may_be_named(host: Any, gates: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from scalediff.hosts.webui import gate as webui_gate

    asked: list[list[str]] = []
    conditioning = webui_gate.conditioning_of

    def noted(p: Any, texts: Any, **kwargs: Any) -> Any:
        asked.append(texts.prompts)
        return conditioning(p, texts, **kwargs)

    monkeypatch.setattr(webui_gate, "conditioning_of", noted)
    run(host, subject_gate=0.7, gate_subject="green bark")
    assert asked == [["a red star over"]]


def test_the_hires_prompt_is_the_one_that_is_gated(host: Any, gates: list[Any]) -> None:
    run(host, subject_gate=1.0, fields={"hr_prompt": "green bark"})
    assert not gates  # no subject in it


def test_img2img(host: Any, gates: list[Any]) -> None:
    init = host.ordinary(enable_hr=False).astype(np.uint8)
    from PIL import Image

    pictures = []
    for strength in (0.0, 1.0):
        settings = {"enabled": True, "subject_gate": strength}
        job = host.img2img(settings, prompt=PROMPT, init_images=[Image.fromarray(init)])
        pictures.append(host.run(job).pixels[0])
    assert len(gates) == 1
    assert gates[0].calls > 0
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize(
    "field", [{"cfg_scale": 1.0}, {"sampler_name": "DDIM"}, {"sampler_name": "UniPC", "steps": 12}]
)
def test_samplers_and_no_negative_prompt(host: Any, gates: list[Any], field: dict) -> None:
    run(host, subject_gate=1.0, fields=field)
    assert gates[0].calls > 0
    assert not gates[0].fallbacks


def test_an_error_in_the_look_leaves_the_model_clean(
    host: Any, gates: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no mask today")

    monkeypatch.setattr("scalediff.models.gate.subject_mask", broken)
    with pytest.raises(RuntimeError, match="no mask today"):
        run(host, subject_gate=1.0)
    assert host.state_of_model() == host.clean_state


def test_a_patcher_host_says_itself_which_rows_are_the_prompt() -> None:
    from scalediff.hosts.webui.gate import _PromptRows

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor, *, transformer_options: dict | None = None) -> torch.Tensor:
            return x

    network = Network()
    by_order = SimpleNamespace(
        images_of_call=lambda count: [i % 2 for i in range(count)], prompts_of_call=lambda count: [7]
    )
    rows = _PromptRows(cast(Any, SimpleNamespace(unet=lambda: network, rows=by_order)))
    with rows.noted(nullcontext()):
        network(torch.zeros(1), transformer_options={"cond_or_uncond": [1, 0]})
        assert rows(4) == [None, None, 0, 1]
        network(torch.zeros(1), transformer_options={"cond_or_uncond": [0]})
        assert rows(2) == [0, 1]
        network(torch.zeros(1))  # the options of one call are not those of the next
        assert rows(1) == [7]
    assert not network._forward_pre_hooks
