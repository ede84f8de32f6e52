"""One WebUI over its HTTP API: whether it answers, one picture of it, an interrupt. Never anywhere else.

Redirects are not followed, proxies and credentials of the machine are not used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from fleet.answer import (
    DeniedError,
    Made,
    RefusedError,
    UnreachableError,
    WrongAnswerError,
    read_json,
    read_picture,
)
from fleet.credentials import Credentials
from scalediff.settings.parameter import shown

API = "/sdapi/v1"
TASK = "force_task_id"  # field of a request
LARGEST_ANSWER = 1 << 30  # bytes; 16384 x 16384 pixels are about half of it


@dataclass(frozen=True)
class Patience:
    """Seconds: for a connection, between two looks at a running job, without a sign of life, for one job."""

    connect: float = 10.0
    look: float = 2.0
    silence: float = 120.0
    job: float = 3600.0


def check_address(text: str) -> str:
    """The address of a WebUI, without a slash at its end; ValueError in one sentence that repeats no password."""
    try:
        parts = urlsplit(text)
        port = parts.port
        httpx.URL(text)
    except (ValueError, httpx.InvalidURL):
        raise ValueError(
            "a WebUI's address must look like http://host:7860, this one cannot be read"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("a WebUI's address must hold no name and password; put them into FLEET_API_AUTH")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or parts.query
        or parts.fragment
    ):
        raise ValueError(f"a WebUI's address must look like http://host:7860, got {shown(text)}")
    return text.rstrip("/")


class WebUI:
    """A WebUI started with --api."""

    def __init__(
        self, address: str, credentials: Credentials | None = None, patience: Patience | None = None
    ) -> None:
        self.address = address
        self.patience = patience or Patience()
        self.credentials = credentials

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.address,
            auth=self.credentials.pair() if self.credentials else None,
            timeout=httpx.Timeout(
                None, connect=self.patience.connect
            ),  # `_watch` says how long a job may take
            verify=self.address.startswith("https"),  # reading all certificates takes longer than a question
            follow_redirects=False,
            trust_env=False,
        )

    # -- what is asked of it

    async def check(self) -> None:
        """Whether it answers and would take jobs; UnreachableError, DeniedError or WrongAnswerError say why not."""
        async with self._client() as client:
            await _progress(client, self.patience.connect)

    def make(
        self, route: str, request: dict[str, Any], *, ours: bool, told: Callable[[float], None] | None = None
    ) -> Made:
        """One picture, `ours` if ScaleDiff was asked for. `told` hears now and then how much of it is done (0..1).

        UnreachableError, DeniedError, WrongAnswerError or RefusedError; nothing else for a fault of network or WebUI.
        """
        return asyncio.run(self._make(route, request, ours, told or (lambda _: None)))

    async def interrupt(self, task: str) -> bool:
        """Stops the task if it is running there; whether it was. Never raises for what the WebUI does."""
        async with self._client() as client:
            try:
                if not await _is_running(client, task, self.patience.connect):
                    return False
                await client.post(f"{API}/interrupt", json={}, timeout=self.patience.connect)
            except (httpx.HTTPError, UnreachableError, WrongAnswerError):
                return False
        return True

    # -- one job

    async def _make(
        self, route: str, request: dict[str, Any], ours: bool, told: Callable[[float], None]
    ) -> Made:
        async with self._client() as client:
            sent = asyncio.create_task(_send(client, route, request))
            try:
                await self._watch(client, sent, str(request.get(TASK)), told)
                answer = await sent
            except BaseException:
                sent.cancel()
                raise
            made = read_picture(answer, ours=ours)
            if await _was_interrupted(client, self.patience.connect):
                raise RefusedError("stopped by somebody at the WebUI")
        return made

    async def _watch(
        self, client: httpx.AsyncClient, sent: asyncio.Task, task: str, told: Callable[[float], None]
    ) -> None:
        """Returns once there is an answer; looks at the job meanwhile."""
        begun = alive = time.monotonic()
        while not (await asyncio.wait({sent}, timeout=self.patience.look))[0]:
            try:
                progress = await _progress(client, min(self.patience.silence, self.patience.connect))
                alive = time.monotonic()
                told(float(progress.get("progress") or 0))
            except (UnreachableError, WrongAnswerError, TypeError, ValueError):
                if time.monotonic() - alive > self.patience.silence:
                    raise UnreachableError(f"no sign of life for {self.patience.silence:g} s") from None
            if time.monotonic() - begun > self.patience.job:
                await self.interrupt(task)
                raise WrongAnswerError(f"not done after {self.patience.job:g} s")


async def _send(client: httpx.AsyncClient, route: str, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request for a picture, as JSON."""
    try:
        async with client.stream("POST", f"{API}/{route}", json=request) as response:
            parts, length = [], 0
            async for part in response.aiter_bytes():
                parts.append(part)
                length += len(part)
                if length > LARGEST_ANSWER:
                    raise WrongAnswerError(f"an answer of more than {LARGEST_ANSWER} bytes")
            return read_json(response.status_code, b"".join(parts))
    except httpx.HTTPError as error:
        raise UnreachableError(f"{type(error).__name__}: {error}".rstrip(": ")) from None


# -- small questions


async def _progress(client: httpx.AsyncClient, seconds: float) -> dict[str, Any]:
    try:
        path = f"{API}/progress?skip_current_image=true"
        response = await client.get(path, timeout=httpx.Timeout(seconds))
    except httpx.HTTPError as error:
        raise UnreachableError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    try:
        return read_json(response.status_code, response.content)
    except RefusedError as error:
        raise DeniedError(f"has no API, start it with --api ({error})") from None


async def _was_interrupted(client: httpx.AsyncClient, seconds: float) -> bool:
    """Whether the job that ended last was stopped by a button; a WebUI that does not say was not."""
    try:
        state = (await _progress(client, seconds)).get("state")
    except (UnreachableError, WrongAnswerError):
        return False
    return isinstance(state, dict) and bool(state.get("interrupted") or state.get("stopping_generation"))


async def _is_running(client: httpx.AsyncClient, task: str, seconds: float) -> bool:
    """Whether that task is the one that is made; where a WebUI cannot say, whatever it makes is taken for it."""
    response = await client.post(
        "/internal/progress", json={"id_task": task, "live_preview": False}, timeout=seconds
    )
    try:
        told = read_json(response.status_code, response.content)
    except (RefusedError, DeniedError, WrongAnswerError):
        return True
    return bool(told.get("active", True))
