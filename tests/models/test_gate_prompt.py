"""Prompts without their subject."""

from __future__ import annotations

import pytest

from scalediff.models.gate import without_subject


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [
        ("a yellow star over green bark", "green bark"),
        ("a red fox in the snow, oil painting", "snow, oil painting"),
        ("portrait of a woman, sunset, bokeh", "sunset, bokeh"),
        ("(red fox:1.2), snow", "snow"),
        ("a lighthouse on a cliff above the sea", "cliff above the sea"),
        ("a cat. a garden", "garden"),
        ("(a fox in deep snow:1.2), pines", "(deep snow:1.2), pines"),
        ("a 1.5 m fox near trees", "trees"),
    ],
)
def test_the_first_phrase_is_the_subject(prompt, rest):
    assert without_subject(prompt) == rest


@pytest.mark.parametrize(
    ("prompt", "subject", "rest"),
    [
        ("snow, a red fox under pines", "a red fox", "snow, under pines"),
        ("snow, a Red  Fox, pines", "red fox", "snow, a, pines"),
        ("a fox, a foxglove", "fox", "a, a foxglove"),
        ("(fox:1.3), ((fox)), [fox], snow", "fox", "snow"),
        ("fox, owl, snow", "fox, owl", "snow"),
        ("c++ (code), rain", "c++", "(code), rain"),
    ],
)
def test_named_words_are_left_out_wherever_they_stand(prompt, subject, rest):
    assert without_subject(prompt, subject) == rest


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [("", ""), ("a red fox", ""), ("a red fox", "a red fox"), ("snow", "fox"), ("snow, fox", " , ,x")],
)
def test_nothing_to_remove_or_nothing_left(prompt, subject):
    assert without_subject(prompt, subject) is None
