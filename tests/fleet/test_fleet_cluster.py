"""Starting Ray: a machine that is too busy at first is asked again, other errors are told."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from fleet import cluster


@pytest.mark.parametrize(("failures", "begun"), [(0, 1), (2, 3)])
def test_a_busy_machine_is_asked_again(monkeypatch: pytest.MonkeyPatch, failures: int, begun: int) -> None:
    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        calls.append(options)
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup. ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with cluster.joined(None, 5):
        assert len(calls) == begun
    assert {call["num_cpus"] for call in calls} == {7}
    assert not any(call["include_dashboard"] for call in calls)


def test_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("no such cluster")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ConnectionError, match="no such cluster"), cluster.joined("auto"):
        pass
