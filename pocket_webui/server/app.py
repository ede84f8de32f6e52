"""The web server: the API alone, or the page with the API beside it."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

log = logging.getLogger("pocket_webui")
LOCAL = "127.0.0.1"
SHUTDOWN_SECONDS = 3


def create_app(
    *,
    api_only: bool = False,
    checkpoint: Path | None = None,
    precision: str = "fp32",
    vae_precision: str | None = None,
) -> FastAPI:
    """Boots the host, with a model as `boot` takes it, and returns the application.

    The page is built in either case, as in A1111: the API takes the scripts' defaults from it.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing leaves this machine
    from pocket_webui import boot

    boot.boot(headless=False, checkpoint=checkpoint, precision=precision, vae_precision=vae_precision)
    # these import `modules`, which exists only after boot
    from pocket_webui.server import faults, listings
    from pocket_webui.server.api import Api
    from pocket_webui.server.page import assets
    from pocket_webui.server.page.build import build_page

    page = build_page()
    app = FastAPI(title="Pocket WebUI", docs_url="/docs")
    faults.install(app)
    Api().install(app)
    listings.install(app)
    if not api_only:
        assets.install(app)
    _announce(page, app)
    # the page answers every path that is left, so the scripts' own endpoints come before it
    return app if api_only else _with_page(app, page)


def _with_page(app: FastAPI, page: Any) -> FastAPI:
    import gradio as gr

    page.queue(default_concurrency_limit=1)
    return gr.mount_gradio_app(app, page, path="")


def _announce(page: Any, app: FastAPI) -> None:
    from modules import script_callbacks, shared

    shared.demo = page
    script_callbacks.app_started_callback(page, app)


def port_is_free(host: str, port: int) -> bool:
    """Whether the server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def serve(*, port: int, listen: bool, **app: Any) -> None:
    """Serves until interrupted; on this machine only, unless `listen`. OSError if the port is taken.

    `app`: what `create_app` takes.
    """
    host = "0.0.0.0" if listen else LOCAL
    if not port_is_free(host, port):
        raise OSError(f"port {port} is in use: choose another with --port")
    application = create_app(**app)
    shown = "0.0.0.0 (every network interface)" if listen else LOCAL
    log.info("%s on http://%s:%d", "API" if app.get("api_only") else "page and API", shown, port)
    uvicorn.run(
        application, host=host, port=port, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )
