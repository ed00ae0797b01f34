"""Connections to hosts that callers name: none into the network of the gateway.

A name is resolved once, all its addresses are checked, and the connection goes to one
that was checked: a name that resolves otherwise the next time (DNS rebinding) gains
nothing. TLS still verifies the certificate for the name.
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

    # urllib3 chooses a connection by its pool's class, and a pool by the adapter's, and
    # passes none of our arguments on: so each *trusted* has classes of its own.
    class SafeConnection(_AddressCheck, UpstreamConnection):
        trusted_hosts = tuple(trusted)

    class SafeTLSConnection(_AddressCheck, UpstreamTLSConnection):
        trusted_hosts = tuple(trusted)

    class SafePool(HTTPConnectionPool):
        ConnectionCls = SafeConnection

    class SafeTLSPool(HTTPSConnectionPool):
        ConnectionCls = SafeTLSConnection

    class SafeAdapter(PooledAdapter):
        pools = SafePool, SafeTLSPool

    return SafeAdapter


class _AddressCheck:
    """Resolves the host itself, and connects to an address that it has checked."""

    # To check a name and then let urllib3 connect to it would resolve it twice, and the
    # second answer may be 127.0.0.1 or the cloud's metadata service (DNS rebinding). To
    # put the address into the URL would check the certificate for the address. urllib3
    # connects to `_dns_host`, and derives `host`, the name for the Host header and the
    # certificate, from it: so the address is there only while the socket connects, and
    # the name is back for the TLS handshake, also after an error.
    # Source: HTTPConnection.host in urllib3's connection.py

    trusted_hosts: tuple[str, ...] = ()
    host: str
    port: int
    timeout: Any
    _dns_host: str

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that accepts, all within the connect timeout."""
        name, timeout = self._dns_host, self.timeout
        try:
            addresses = self._resolve()
            # It begins here: resolving has the limits of the system's resolver.
            deadline = time.monotonic() + timeout
            while True:
                self._dns_host, *addresses = addresses
                # Never 0, which would mean "do not wait" to the socket.
                self.timeout = max(deadline - time.monotonic(), 0.01)
                try:
                    wire: socket.socket = super()._new_conn()  # type: ignore[misc]
                    return wire
                except (NewConnectionError, ConnectTimeoutError):
                    if not addresses:
                        raise
        finally:
            self._dns_host, self.timeout = name, timeout

    def _resolve(self) -> list[str]:
        """The addresses of the host. Raises HostRefused if one must not be called."""
        try:
            entries = socket.getaddrinfo(
                self._dns_host, self.port, 0, socket.SOCK_STREAM
            )
        except (socket.gaierror, UnicodeError) as e:
            # A name that cannot even be encoded is one that does not resolve.
            reason = e if isinstance(e, socket.gaierror) else socket.gaierror(str(e))
            connection: Any = self
            raise NameResolutionError(self.host, connection, reason) from e
        addresses = [str(entry[4][0]) for entry in entries]
        # One internal address refuses the name: any of them may be connected to.
        if not may_be_called(self.host, addresses, self.trusted_hosts):
            raise HostRefused
        return addresses
