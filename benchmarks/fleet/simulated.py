"""WebUIs that wait instead of computing, and go wrong where told: for counting what the fleet runner costs.

All of them live in one thread of this process. Their HTTP is the least that a client can be fooled with, so that every
way to break a connection can be played.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

ON = "ScaleDiff: True"
Request = dict[str, Any]


def png(size: tuple[int, int], seed: int = 0) -> bytes:
    """A picture of one colour, which tells seeds apart."""
    sink = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256 % 256, 80)).save(sink, "PNG")
    return sink.getvalue()


@dataclass
class Simulated:
    """One WebUI. `faults`: what goes wrong with its next jobs, by name; None for a job that goes well.

    drop: the connection ends. 500, 422: that answer. broken: half a picture. page: HTML. redirect. hang: neither the
    job nor anything else is answered. small: another size. note: ScaleDiff was refused.
    """

    seconds: float = 0.0
    faults: list[str | None] = field(default_factory=list)
    always: str | None = None  # goes wrong with every job
    secret: str | None = None  # name:password that it asks for
    file: bytes | None = None  # the picture of every job
    port: int = 0
    keep: bool = True  # all requests, in `jobs`
    jobs: list[Request] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    silent: bool = False
    task: str = ""
    interrupted: bool = False
    server: asyncio.Server | None = None
    connections: set[asyncio.StreamWriter] = field(default_factory=set)
    stop_job: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """As if it was killed: nothing listens, and connections end in the middle."""
        if self.server is not None:
            self.server.close()
        for writer in list(self.connections):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        _method, path, _ = head.split(" ", 2)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        self.counts[path.partition("?")[0]] += 1
        if self.silent:
            await asyncio.sleep(3600)
        wanted = self.secret and "basic " + base64.b64encode(self.secret.encode()).decode().lower()
        if wanted and fields.get("authorization") != wanted:
            return _send(writer, 401, {"detail": "Incorrect username or password"})
        return await self._route(path.partition("?")[0], json.loads(body or b"{}"), writer)

    async def _route(self, path: str, request: Request, writer: asyncio.StreamWriter) -> bool:
        if path.endswith(("/txt2img", "/img2img")):
            return await self._make(request, writer)
        if path.endswith("/interrupt"):
            self.interrupted = True
            self.stop_job.set()
            return _send(writer, 200, {})
        if path == "/internal/progress":
            active = bool(self.task) and request.get("id_task") == self.task
            return _send(writer, 200, {"active": active, "queued": False, "completed": False})
        if path.endswith("/progress"):
            return _send(writer, 200, {"progress": 0.5, "state": {"interrupted": self.interrupted}})
        return _send(writer, 404, {"detail": "Not Found"})

    async def _make(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        if self.keep:
            self.jobs.append(request)
        self.task, self.interrupted = str(request.get("force_task_id")), False
        self.stop_job.clear()
        fault = self.faults.pop(0) if self.faults else self.always
        if fault == "hang":
            self.silent = True
            await asyncio.sleep(3600)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop_job.wait(), self.seconds)
        self.task = ""
        return _fail(writer, fault) if fault in FAILURES else _send(writer, 200, self._answer(request, fault))

    def _answer(self, request: Request, fault: str | None) -> dict[str, Any]:
        size = (int(request.get("width") or 64), int(request.get("height") or 64))
        settings = ((request.get("alwayson_scripts") or {}).get("ScaleDiff") or {}).get("args", [{}])[0]
        factor = str(settings.get("target", "1x")).removesuffix("x")
        size = (int(size[0] * float(factor)), int(size[1] * float(factor)))
        seed = int(request.get("seed") or 0)
        file = self.file or png((8, 8) if fault == "small" else size, seed)
        ours = settings.get("enabled") and fault != "note"
        note = {"ScaleDiff note": "ScaleDiff was not applied: no."} if fault == "note" else {}
        info = {
            "seed": seed,
            "all_seeds": [seed],
            "index_of_first_image": 0,
            "infotexts": [f"Steps: 1, {ON if ours else 'x: y'}"],
            "extra_generation_params": note,
        }
        file = file[: len(file) // 2] if fault == "broken" else file
        return {"images": [base64.b64encode(file).decode()], "parameters": {}, "info": json.dumps(info)}


FAILURES = ("drop", "500", "422", "page", "redirect", "401")


def _fail(writer: asyncio.StreamWriter, fault: str | None) -> bool:
    if fault == "drop":
        writer.transport.abort()
        return False
    if fault == "redirect":
        writer.write(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n")
        return True
    if fault == "page":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
        return True
    return _send(writer, int(fault or 500), {"detail": f"<b>fault {fault}</b>"})


def _send(writer: asyncio.StreamWriter, status: int, answer: Any) -> bool:
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return True


@dataclass
class Playing:
    """The WebUIs that are simulated, and how to reach into their thread."""

    webuis: Sequence[Simulated]
    loop: asyncio.AbstractEventLoop

    def kill(self, webui: Simulated) -> None:
        asyncio.run_coroutine_threadsafe(webui.close(), self.loop).result(10)

    def start(self, webui: Simulated) -> None:
        webui.silent = False
        asyncio.run_coroutine_threadsafe(webui.open(), self.loop).result(10)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()


@contextmanager
def playing(*webuis: Simulated) -> Iterator[Playing]:
    """All of them answering until the end of the `with`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    played = Playing(webuis, loop)
    for webui in webuis:
        played.start(webui)
    try:
        yield played
    finally:
        for webui in webuis:
            played.kill(webui)
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _end_all() -> None:
    """Ends what is still waiting in the thread of the WebUIs."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
