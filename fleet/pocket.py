"""WebUIs of our own where none is given: the pocket WebUI in processes of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS, STOP_SECONDS = 240, 20
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Pocket:
    """One pocket WebUI in a process of its own; all it writes is in `folder`."""

    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Starts the process, which is then loading for a while. Ctrl-C at the terminal does not reach it."""
        command = [sys.executable, "-m", "pocket_webui", "serve", "--api-only", "--port", str(self.port)]
        threads = str(max(1, (os.cpu_count() or 1) // 2))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, "POCKET_WEBUI_DATA": str(self.folder)}
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=sink, stderr=sink, start_new_session=True
            )

    def wait(self) -> None:
        """Returns once it answers; RuntimeError with the end of its log where it does not."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                _direct.open(f"{self.address}/sdapi/v1/progress?skip_current_image=true", timeout=5),
            ):
                return
            time.sleep(0.25)
        tail = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the pocket WebUI did not start at {self.address}:\n{tail}")

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def started(count: int) -> Iterator[list[Pocket]]:
    """`count` of them, ready; ended afterwards. OSError or RuntimeError where one does not start."""
    with tempfile.TemporaryDirectory(prefix="fleet_pocket_") as folder, contextlib.ExitStack() as ending:
        pockets = []
        for number in range(count):
            own = Path(folder) / str(number)
            own.mkdir()
            pockets.append(Pocket(own, _free_port()))
        for pocket in pockets:
            ending.callback(pocket.stop)
            pocket.start()
        for pocket in pockets:
            pocket.wait()
        yield pockets


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
