"""The client: a picture, or which of four things went wrong; nothing is followed, nothing is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fleet_samples import SMALL

from benchmarks.fleet.simulated import Simulated, playing
from fleet.answer import DeniedError, RefusedError, UnreachableError, WrongAnswerError
from fleet.credentials import Credentials, from_environment
from fleet.webui import TASK, Patience, WebUI, check_address

QUICK = Patience(connect=1, look=0.05, silence=0.3, job=5)
OURS = {**SMALL, "alwayson_scripts": {"ScaleDiff": {"args": [{"enabled": True, "target": "2x"}]}}}


def _make(
    webui: Simulated, request: dict[str, Any] = SMALL, ours: bool = False, patience: Patience = QUICK
) -> Any:
    return WebUI(webui.address, None, patience).make("txt2img", {**request, TASK: "t"}, ours=ours)


def test_a_picture() -> None:
    told: list[float] = []
    with playing(Simulated(seconds=0.3)) as fleet:
        webui = fleet.webuis[0]
        client = WebUI(webui.address, None, QUICK)
        made = client.make("txt2img", {**OURS, "seed": 9, TASK: "t"}, ours=True, told=told.append)
    assert (made.size, made.kind, made.seed) == ((128, 128), "png", 9)
    assert told
    assert set(told) == {0.5}
    assert webui.jobs[0]["prompt"] == "a red flower"


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("drop", UnreachableError, ""),
        ("hang", UnreachableError, "no sign of life for 0.3 s"),
        ("500", WrongAnswerError, "HTTP 500: <b>fault 500</b>"),
        ("422", RefusedError, "HTTP 422"),
        ("401", DeniedError, "refuses name and password"),
        ("redirect", DeniedError, "redirect"),
        ("page", WrongAnswerError, "no JSON"),
        ("broken", WrongAnswerError, "broken picture"),
        ("note", RefusedError, "ScaleDiff was not applied: no."),
    ],
)
def test_what_goes_wrong_is_told_apart(fault: str, error: type[Exception], words: str) -> None:
    with playing(Simulated(always=fault)) as fleet:
        with pytest.raises(error) as raised:
            _make(fleet.webuis[0], OURS, ours=True)
        assert type(raised.value) is error
        assert words in str(raised.value)


def test_nobody_is_there() -> None:
    webui = Simulated()
    with playing(webui):
        pass
    with pytest.raises(UnreachableError, match="ConnectError"):
        _make(webui)


def test_a_job_that_takes_too_long_is_stopped_there() -> None:
    with playing(Simulated(seconds=60)) as fleet:
        with pytest.raises(WrongAnswerError, match="not done after"):
            _make(fleet.webuis[0], patience=Patience(connect=1, look=0.05, silence=5, job=0.2))
        assert fleet.webuis[0].interrupted


def test_a_job_that_somebody_stopped_is_no_picture() -> None:
    with playing(Simulated(seconds=10)) as fleet:
        webui = fleet.webuis[0]
        fleet.later(0.3, lambda: asyncio.run(WebUI(webui.address).interrupt("t")) and None)
        begun = time.monotonic()
        with pytest.raises(RefusedError, match="stopped by somebody"):
            _make(webui)
    assert time.monotonic() - begun < 8


def test_only_our_own_job_is_interrupted() -> None:
    webui = Simulated()
    with playing(webui):
        webui.task = "somebody else's"
        assert not asyncio.run(WebUI(webui.address).interrupt("ours"))
        assert webui.counts["/sdapi/v1/interrupt"] == 0


def test_credentials_open_it_and_are_not_shown() -> None:
    with playing(Simulated(secret="me:pass:word")) as fleet:
        webui = fleet.webuis[0]
        with pytest.raises(DeniedError):
            asyncio.run(WebUI(webui.address).check())
        (credentials,) = from_environment({"FLEET_API_AUTH": "me:pass:word"}, 1)
        asyncio.run(WebUI(webui.address, credentials).check())
    assert "pass" not in repr(credentials) + str(credentials) + f"{[credentials]}"


def test_credentials_of_each() -> None:
    found = from_environment({"FLEET_API_AUTH": "a:1", "FLEET_API_AUTH_2": "b:2"}, 3)
    assert [c.pair() for c in found if c] == [("a", "1"), ("b", "2"), ("a", "1")]
    assert from_environment({}, 1) == [None]
    with pytest.raises(ValueError, match=r"^FLEET_API_AUTH must be name:password$"):
        from_environment({"FLEET_API_AUTH": "secret"}, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a:7860",
        "ftp://a",
        "http://",
        "http://a:x",
        "http://a/?q",
        "file:///etc/passwd",
        "http://[::1",
        "http://a\x7fb:1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="address must"):
        check_address(text)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="FLEET_API_AUTH") as raised:
        check_address("http://me:hunter2@a:7860")
    assert "hunter2" not in str(raised.value)
    assert check_address("https://a:7860/sub/") == "https://a:7860/sub"


def test_proxies_and_netrc_of_the_machine_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with playing(Simulated()) as fleet:
        assert _make(fleet.webuis[0]).size == (64, 64)


def test_credentials_class_pairs() -> None:
    assert Credentials("a", "b:c").pair() == ("a", "b:c")
