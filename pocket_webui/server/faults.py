"""Errors as A1111 answers them: a JSON object with error, detail, body and errors."""

from __future__ import annotations

import logging

from fastapi import FastAPI, HTTPException, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

log = logging.getLogger("pocket_webui")


def _answer(error: Exception) -> JSONResponse:
    content = {
        "error": type(error).__name__,
        "detail": getattr(error, "detail", ""),
        "body": getattr(error, "body", ""),
        "errors": str(error),
    }
    return JSONResponse(status_code=getattr(error, "status_code", 500), content=jsonable_encoder(content))


def install(app: FastAPI) -> None:
    """Registers the handlers; unexpected errors are answered with 500 and logged with their traceback."""

    @app.exception_handler(HTTPException)
    def known(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(error)

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("API error: %s %s", request.method, request.url.path, exc_info=error)
        return _answer(error)
