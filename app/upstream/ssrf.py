"""Connections to hosts that callers name: none into the network of the gateway.

A name is resolved once, every address that it has is looked at, and the connection goes
to an address that was looked at. TLS still checks the certificate for the name.
"""

import socket
import time
from collections.abc import Sequence
from typing import Any

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
)

from ..core.hosts import may_be_called
from ..errors import HostRefused
from .http1.connection import UpstreamConnection, UpstreamTLSConnection
from .http1.pool import PooledAdapter


def ssrf_safe_adapter(trusted: Sequence[str]) -> type[PooledAdapter]:
    """An adapter for custom hosts; *trusted* are hosts and networks that are exempt."""

    class Guarded(_Guarded, UpstreamConnection):
        rules = tuple(trusted)

    class GuardedTLS(_Guarded, UpstreamTLSConnection):
        rules = tuple(trusted)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Guarded

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = GuardedTLS

    class GuardedAdapter(PooledAdapter):
        pools = Pool, TLSPool

    return GuardedAdapter


class _Guarded:
    """Resolves the host itself, and connects to what it has looked at.

    urllib3 connects to `_dns_host`, and takes `host`, the same, for the Host header and
    the certificate: so the address stands there only while it connects.
    """

    rules: tuple[str, ...] = ()
    host: str
    port: int
    timeout: Any
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        name, timeout = self._dns_host, self.timeout
        try:
            return self._connected(self._addresses())
        finally:
            self._dns_host, self.timeout = name, timeout

    def _addresses(self) -> list[str]:
        """Where the name leads. Raises HostRefused if that is nowhere to go."""
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as e:
            connection: Any = self
            raise NameResolutionError(self.host, connection, _as_gaierror(e)) from e
        addresses = [str(entry[4][0]) for entry in found]
        if not may_be_called(self.host, addresses, self.rules):
            raise HostRefused
        return addresses

    def _connected(self, addresses: list[str]) -> socket.socket:
        """A connection to the first of *addresses* that accepts one.

        The connect timeout holds for all of them together.
        """
        until = time.monotonic() + self.timeout
        while True:
            self._dns_host, *addresses = addresses
            self.timeout = max(until - time.monotonic(), 0.01)
            try:
                return self._connect()
            except (NewConnectionError, ConnectTimeoutError):
                if not addresses:
                    raise

    def _connect(self) -> socket.socket:
        connection: socket.socket = super()._new_conn()  # type: ignore[misc]
        return connection


def _as_gaierror(error: Exception) -> socket.gaierror:
    """*error*, or one in place of a name that cannot even be encoded."""
    return error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
