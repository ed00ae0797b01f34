"""A real gunicorn in its own process, as an operator starts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests

from app.core.hosts import LOCALHOST
from tests.upstream import Upstream

ROOT = Path(__file__).parent.parent.parent
# A connection that a test leaves open would delay the stop of the server.
_CLOSE = {"Connection": "close"}

LISTENING = re.compile(r"(?:Listening at:|Running on) (http://[\d.:]+)")


class Server:
    """gunicorn (or *command*) on a free port, with *environ* and the needed variables.

    The gateway's variables of the caller's own environment are not passed on. Custom
    hosts may be on this machine; a variable that is None is not set.
    """

    def __init__(
        self, command: tuple[str, ...] = ("gunicorn",), **environ: str | None
    ) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GATEWAY_", "GUNICORN_", "FLASK_", "WEB_", "OTEL_"))
        }
        self.log: list[str] = []
        # It has its own instance folder, unless a test sets one.
        self._folder = tempfile.TemporaryDirectory()
        own = {
            "GATEWAY_INSTANCE": self._folder.name,
            "GATEWAY_BIND": "127.0.0.1:0",
            "GATEWAY_TRUSTED_CUSTOM_HOSTS": ",".join(LOCALHOST),
        }
        chosen = {name: v for name, v in (own | environ).items() if v is not None}
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=inherited | chosen,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = self._wait_for_address()
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log_text(self) -> str:
        """The log so far."""
        return "\n".join(self.log)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        """The exit code, once it has ended."""
        code = self._process.wait(seconds)
        self._reader.join(10)
        assert not self._reader.is_alive(), "a process that it started lives on"
        assert self._process.stdout
        self._process.stdout.close()
        self._folder.cleanup()
        return code

    def stop(self) -> None:
        """Stop it, and wait until it has ended."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def complete(self, headers: dict[str, str] | None = None, **body: Any) -> Any:
        """Post a completion request."""
        return requests.post(
            self.url + "/v1/completions",
            json={"model": "m", "prompt": "Hi"} | body,
            headers=_CLOSE | (headers or {}),
            stream=bool(body.get("stream")),
            timeout=60,
        )

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, headers=_CLOSE, timeout=10)

    def connect(self) -> socket.socket:
        """A plain socket connected to it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait_until_ready(self, seconds: float = 30) -> None:
        eventually(lambda: self.get("/readyz").ok, seconds)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.log.append(line.rstrip())

    def _wait_for_address(self) -> str:
        eventually(lambda: LISTENING.search(self.log_text), 20)
        match = LISTENING.search(self.log_text)
        assert match
        return match[1]


def route_headers(upstream: Upstream) -> dict[str, str]:
    """Headers that send a request to *upstream* as provider openai."""
    return {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": upstream.url,
        "Authorization": "Bearer sk-of-the-caller",
    }


def eventually(condition: Any, seconds: float = 10, actual: Any = lambda: "") -> None:
    """Wait until *condition* holds; fail if it does not within so many seconds.

    *actual* returns the actual state, for the error message.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {actual()}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    """The processes that *pid* has started and that still run."""
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in paths for child in path.read_text().split()]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
