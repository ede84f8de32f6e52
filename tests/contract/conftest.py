"""Fixtures of the URL-based contract suite."""

from __future__ import annotations

import json

import numpy as np
import pytest
from webui_client import Answer, Webui


@pytest.fixture(scope="session")
def webui(webui_url: str, request: pytest.FixtureRequest) -> Webui:
    return Webui(webui_url, json.loads(request.config.getoption("--webui-request")))


@pytest.fixture(scope="session")
def ordinary(webui: Webui) -> Answer:
    """The stock 2x hires picture, the script not named: what a disabled or refused ScaleDiff must give."""
    return webui.hires()


@pytest.fixture(scope="session")
def base_picture(webui: Webui) -> np.ndarray:
    """A native-size picture for img2img, [H, W, 3] uint8."""
    return webui.txt2img().image
