"""Prompt editing, AND, emphasis, extra network tags."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st


def schedule(prompt, steps=10, hires_steps=None, old=False):
    from modules.prompt_parser.schedule import get_learned_conditioning_prompt_schedules

    return get_learned_conditioning_prompt_schedules([prompt], steps, hires_steps, old)[0]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a sun", [[10, "a sun"]]),
        ("a [red:4] sun", [[4, "a  sun"], [10, "a red sun"]]),
        ("a [red: 4] sun", [[4, "a  sun"], [10, "a red sun"]]),
        ("a [red::4] sun", [[4, "a red sun"], [10, "a  sun"]]),
        ("a [red:blue:.3] sun", [[3, "a red sun"], [10, "a blue sun"]]),
        ("[a[x:y:2]:b:6]!", [[2, "ax!"], [6, "ay!"], [10, "b!"]]),
        ("a [plain] (sun:1.2)", [[10, "a [plain] (sun:1.2)"]]),
        ("a [unbalanced:3", [[10, "a [unbalanced:3"]]),
        (r"a \[b:3\]", [[10, r"a \[b:3\]"]]),
        ("[(sun:1.3):2]", [[2, ""], [10, "(sun:1.3)"]]),
        ("[b:0] c", [[10, "b c"]]),
    ],
)
def test_editing_by_step(pocket, prompt, expected):
    assert schedule(prompt) == expected


def test_alternation(pocket):
    assert schedule("[a|b|]c", 4) == [[1, "ac"], [2, "bc"], [3, "c"], [4, "ac"]]


def test_the_second_pass_has_its_own_timeline(pocket):
    assert schedule("[a:b:.5]", 10, 10) == [[10, "b"]]
    assert schedule("[a:b:1.5]", 10, 10) == [[5, "a"], [10, "b"]]
    assert schedule("[a:b:14]", 10, 10) == [[4, "a"], [10, "b"]]
    assert schedule("[a:b:.5]", 10, 20, old=True) == [[5, "a"], [10, "b"]]


@given(st.text(alphabet="ab [](:|)\\.19", max_size=30), st.integers(1, 12))
def test_any_text_gives_a_schedule_that_covers_all_steps(pocket, prompt, steps):
    entries = schedule(prompt, steps)
    ends = [end for end, _ in entries]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
    if not any(c in prompt for c in "[]"):
        assert entries == [[steps, prompt]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", [["plain", 1.0]]),
        ("a (b) c", [["a ", 1.0], ["b", 1.1], [" c", 1.0]]),
        ("(b:1.5)", [["b", 1.5]]),
        ("[b]", [["b", 1 / 1.1]]),
        ("((b)", [["b", 1.1 * 1.1]]),
        (r"\(b\)", [["(b)", 1.0]]),
        ("", [["", 1.0]]),
        ("a BREAK b", [["a", 1.0], ["BREAK", -1], ["b", 1.0]]),
    ],
)
def test_emphasis(pocket, text, expected):
    from modules.prompt_parser import parse_prompt_attention

    parsed = parse_prompt_attention(text)
    assert [t for t, _ in parsed] == [t for t, _ in expected]
    assert [w for _, w in parsed] == pytest.approx([w for _, w in expected])


def test_and_splits_with_weights_and_shares_equal_parts(pocket):
    from modules.prompt_parser import SdConditioning, get_multicond_prompt_list

    prompts = SdConditioning(["a sun AND a star :0.5 AND a sun", "a star"], width=64, height=32)
    indexes, flat, _ = get_multicond_prompt_list(prompts)
    assert [text.strip() for text in flat] == ["a sun", "a star", "a sun", "a star"]
    assert [[weight for _, weight in parts] for parts in indexes] == [[1.0, 0.5, 1.0], [1.0]]
    assert (flat.width, flat.height) == (64, 32)


def test_conds_change_at_their_step(pocket):
    from modules import prompt_parser, shared

    model = shared.sd_model
    learned = prompt_parser.get_learned_conditioning(model, ["[a red sun:a blue star:3]", "a star"], 10)
    early, late = (prompt_parser.reconstruct_cond_batch(learned, step) for step in (3, 4))
    expected = model.get_learned_conditioning(["a red sun", "a blue star", "a star"])
    assert torch.equal(early, expected[[0, 2]])
    assert torch.equal(late, expected[[1, 2]])


def test_conds_of_unequal_length_repeat_their_last_token(pocket):
    from modules.prompt_parser import stack_conds

    short, long = torch.randn(2, 4), torch.randn(5, 4)
    stacked = stack_conds([short, long])
    assert torch.equal(stacked[0], torch.cat([short, short[-1:].expand(3, -1)]))
    assert torch.equal(stacked[1], long)


def test_tags_are_taken_off_the_prompt(pocket):
    from modules.extra_networks import parse_prompts

    prompts, data = parse_prompts(["a <lora:fine:0.5:dyn=4> sun <lora:other>", "b <hypernet:x:1>"])
    assert prompts == ["a  sun ", "b "]
    assert [params.positional for params in data["lora"]] == [["fine", "0.5"], ["other"]]
    assert data["lora"][0].named == {"dyn": "4"}
    assert "hypernet" not in data


def test_registered_networks_are_switched_on_and_off(job):
    from modules import extra_networks

    events = []

    class Recorder(extra_networks.ExtraNetwork):
        def activate(self, p, params_list):
            events.append((self.name, [params.items for params in params_list]))

        def deactivate(self, p):
            events.append((self.name, "off"))

    for name in ("lora", "idle"):
        extra_networks.register_extra_network(Recorder(name))
    try:
        result = job.run(
            job.txt2img(
                prompt="a red sun <lora:fine:0.5> <nothing:1>",
                enable_hr=True,
                hr_scale=2,
                hr_upscaler="Latent",
                hr_prompt="a star <lora:big>",
            )
        )
    finally:
        extra_networks.initialize()
    assert events == [
        ("lora", [["fine", "0.5"]]),
        ("idle", []),
        ("lora", [["big"]]),
        ("idle", []),
        ("lora", "off"),
        ("idle", "off"),
    ]
    assert result.info.startswith("a red sun <lora:fine:0.5> <nothing:1>")


def test_hypernetworks_change_the_context_of_their_width(job):
    from types import SimpleNamespace

    from modules import shared

    plain = job.run(job.txt2img()).images[0].tobytes()
    network = SimpleNamespace(layers={64: (torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))})
    shared.loaded_hypernetworks.append(network)
    try:
        assert job.run(job.txt2img()).images[0].tobytes() != plain
        network.layers = {}
        assert job.run(job.txt2img()).images[0].tobytes() == plain
    finally:
        shared.loaded_hypernetworks.clear()
