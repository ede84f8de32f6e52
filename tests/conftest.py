"""Options and fixtures shared by the whole suite: which WebUI the URL-based tests talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from pocket_process import answers, served

# How long an example takes says nothing about the code on a machine that is busy with something else.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# The longest files, each by programs of its own: begun first, so that none of them runs on alone at the end.
LONGEST = ("training/test_trained_model.py", "benchmarks/test_soak.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, else in the order of the folders, which tests of two hosts in one process rely on."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).as_posix() not in LONGEST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--webui-url",
        default=None,
        help="run tests/contract and the browser tests against this running WebUI (it needs --api) instead of "
        "starting the pocket",
    )
    parser.addoption(
        "--webui-request",
        default="{}",
        help="JSON of request fields that the running WebUI's model needs, e.g. a scheduler for FLUX",
    )


@pytest.fixture(scope="session")
def given_url(request: pytest.FixtureRequest) -> str | None:
    """The WebUI named on the command line, if any; it must answer."""
    given = request.config.getoption("--webui-url")
    if given is None:
        return None
    url = given.rstrip("/")
    if not answers(url):
        pytest.fail(f"no WebUI API answers at {url}: start it with --api", pytrace=False)
    return url


@pytest.fixture(scope="session")
def webui_url(given_url: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a WebUI with this extension: the one on the command line, else a pocket of our own."""
    if given_url:
        yield given_url
        return
    with served(tmp_path_factory.mktemp("pocket"), "--api-only") as url:
        yield url
