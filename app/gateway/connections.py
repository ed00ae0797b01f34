"""Connections that remember: requests' adapter over urllib3's pools, with a memory.

Servers close connections that lie idle, some after 5 seconds or 100 requests. A call on
such a connection fails before the first byte of an answer; it was not seen, and may be
sent again on a new one. That is only so if the connection had served before.
"""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

Watch = Callable[[socket.socket], None]

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Show *watch* the socket of every call within, before the call is sent on it.

    What it raises ends the call.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


class NoAnswer(http.client.RemoteDisconnected):
    """The connection ended before the first byte of an answer."""


class StaleConnection(NoAnswer):
    """... and it had served before: the server closed it while it lay idle."""


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        try:
            super().begin()
        except ConnectionError as e:
            if isinstance(self.status, int):  # A status line was read.
                raise
            raise NoAnswer(str(e)) from e


class _LastAnswer(_Answer):
    """The answer to a call that said `Connection: close`, whatever the server says."""

    def begin(self) -> None:
        super().begin()
        self.will_close = True


class Remembering(HTTPConnection):
    """A connection that knows whether it has served, and keeps hold of its socket.

    http.client forgets the socket of an answer that ends with the connection.
    """

    response_class: type[_Answer] = _Answer
    wire: socket.socket | None = None
    served = 0

    def connect(self) -> None:
        super().connect()
        self.wire, self.served = self.sock, 0
        self._show()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._show()
        is_last = kwargs["headers"].get("Connection") == "close"
        self.response_class = _LastAnswer if is_last else _Answer
        super().request(*args, **kwargs)

    def _show(self) -> None:
        if (watch := _watch.get()) and self.wire is not None:
            watch(self.wire)

    def getresponse(self) -> Any:
        try:
            answer = super().getresponse()
        except NoAnswer as e:
            if self.served:
                raise StaleConnection(str(e)) from e
            raise
        self.served += 1
        return answer


class RememberingTLS(Remembering, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = Remembering


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = RememberingTLS


class Adapter(HTTPAdapter):
    """requests' adapter with those connections. `raw.connection.wire` is the socket."""

    pools: tuple[type[HTTPConnectionPool], type[HTTPSConnectionPool]] = _Pool, _TLSPool

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        http_pool, https_pool = self.pools
        schemes = {"http": http_pool, "https": https_pool}
        self.poolmanager.pool_classes_by_scheme = schemes
