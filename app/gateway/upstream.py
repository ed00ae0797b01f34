"""The only HTTP client. A Call goes in, an open Reply comes out.

It is requests' adapter without requests' session: nothing from the environment, no
netrc, no cookies, no redirects, no retries of its own can change a call.
"""

import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from requests import PreparedRequest, Response
from requests import exceptions as errors
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import exceptions as pool_errors
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..errors import (
    UpstreamCut,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..providers import Call
from ..providers.spec import excerpt

# How long to wait for the end of an answer that has said [DONE], in seconds, so that
# its connection can serve again.
_LINGER = 0.02


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds until a connection, until an answer begins, between two pieces of it."""

    connect: float
    first_byte: float
    idle: float


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer has to have begun. *own* if the caller set it, not the gateway."""

    at: float
    seconds: float
    own: bool

    @classmethod
    def after(cls, limit: float, request_timeout: float | None = None) -> "Deadline":
        """In *limit* seconds, or earlier if the caller says so."""
        own = request_timeout is not None and request_timeout < limit
        seconds = request_timeout if own and request_timeout else limit
        return cls(time.monotonic() + seconds, seconds, own)

    @property
    def left(self) -> float:
        """Seconds left, never quite 0: a socket would take that for "do not wait"."""
        return max(self.at - time.monotonic(), 0.001)

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def missed(self) -> UpstreamTimeout:
        if self.own:
            return UpstreamTimeout(
                "Request exceeded the timeout sent in the request: "
                f"{round(self.seconds * 1000)}ms",
                status=408,
            )
        return UpstreamTimeout(
            f"upstream did not begin to answer within {self.seconds:g} s",
            code="timeout",
        )


class _NoAnswer(http.client.RemoteDisconnected):
    """The connection ended before the first byte of an answer."""


class _StaleConnection(_NoAnswer):
    """... and it had served before: the server closed it while it lay idle."""


class _Answer(http.client.HTTPResponse):
    def begin(self) -> None:
        try:
            super().begin()
        except ConnectionError as e:
            if isinstance(self.status, int):  # A status line was read.
                raise
            raise _NoAnswer(str(e)) from e


class _Remembering(HTTPConnection):
    """A connection that knows whether it has served, and keeps hold of its socket.

    http.client forgets the socket of an answer that ends with the connection.
    """

    response_class = _Answer
    wire: socket.socket | None = None
    served = 0

    def connect(self) -> None:
        super().connect()
        self.wire, self.served = self.sock, 0

    def getresponse(self) -> Any:
        try:
            answer = super().getresponse()
        except _NoAnswer as e:
            if self.served:
                raise _StaleConnection(str(e)) from e
            raise
        self.served += 1
        return answer


class _RememberingTLS(_Remembering, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Remembering


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _RememberingTLS


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class Upstream:
    """Sends calls. One for a whole process; it may be used from many threads.

    *pool* is the number of idle connections kept for each host.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        user_agent: str = "lastword",
        ca_bundle: str = "",
        pool: int = 256,
    ) -> None:
        self.limits = limits
        self._user_agent = user_agent
        self._verify = ca_bundle or True
        self._adapter = _Adapter(pool_connections=64, pool_maxsize=pool)
        self._fresh = _Adapter(pool_connections=64, pool_maxsize=1)

    def send(self, call: Call, deadline: Deadline) -> "HTTPReply":
        """The answer to *call*, once its head is there. Raises UpstreamError.

        A reused connection that ends before the first byte of an answer was closed
        by the server while it lay idle; the call is sent again, once, on a new one.
        """
        request = _prepared(call, self._user_agent)
        try:
            return self._send(self._adapter, request, deadline)
        except _StaleConnection:
            request.headers["Connection"] = "close"
            return self._send(self._fresh, request, deadline)

    def close(self) -> None:
        """Close the connections that lie idle."""
        self._adapter.close()
        self._fresh.close()

    def _send(
        self, adapter: HTTPAdapter, request: PreparedRequest, deadline: Deadline
    ) -> "HTTPReply":
        timeout = (min(self.limits.connect, deadline.left), deadline.left)
        try:
            response = adapter.send(
                request, stream=True, timeout=timeout, verify=self._verify
            )
        except (errors.RequestException, pool_errors.HTTPError, OSError) as e:
            if _cause(e, _StaleConnection) and adapter is not self._fresh:
                raise _StaleConnection("") from e
            raise self._translated(e, deadline) from e
        return HTTPReply(response, deadline, self.limits.idle)

    def _translated(self, e: Exception, deadline: Deadline) -> UpstreamError:
        """A failure before the head of the answer, in our words."""
        if isinstance(e, errors.ConnectTimeout):
            if deadline.own and deadline.seconds <= self.limits.connect:
                return deadline.missed()
            limit = self.limits.connect
            return UpstreamTimeout(f"upstream could not be reached within {limit:g} s")
        if isinstance(e, errors.ReadTimeout) or _cause(e, TimeoutError):
            return deadline.missed()
        if isinstance(e, errors.SSLError):
            return UpstreamRefused("no trustworthy TLS connection to upstream")
        if _cause(e, pool_errors.NameResolutionError):
            return UpstreamRefused("upstream's host name could not be resolved")
        if _cause(e, pool_errors.NewConnectionError):
            return UpstreamRefused("upstream refused the connection")
        if _cause(e, _NoAnswer) or _cause(e, ConnectionError):
            return UpstreamUnreachable(
                "upstream closed the connection without an answer"
            )
        if isinstance(e, (errors.InvalidURL, errors.InvalidHeader)):
            return UpstreamRefused("upstream's address or a header to it is malformed")
        return UpstreamProtocol("upstream's answer is not HTTP")


def _prepared(call: Call, user_agent: str) -> PreparedRequest:
    """*call* for the adapter. A stream that is compressed would come in lumps."""
    request = PreparedRequest()
    request.method, request.url, request.body = call.method, call.url, call.body
    own = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
    request.headers = CaseInsensitiveDict(own | dict(call.headers))
    if call.body is not None:
        request.headers["Content-Length"] = str(len(call.body))
    return request


def _cause(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether *error* is, or was caused by, or wraps an exception of *kind*.

    requests and urllib3 wrap in all three of Python's ways, and in `reason`.
    """
    found: list[BaseException] = [error]
    for e in found:
        inner = [e.__cause__, e.__context__, getattr(e, "reason", None), *e.args]
        found += [i for i in inner if isinstance(i, BaseException) and i not in found]
    return any(isinstance(e, kind) for e in found)


class HTTPReply:
    """The open answer to a call.

    The deadline of the call holds until `begin` says that the answer has begun (a
    server's heartbeats are no beginning); after that, the idle limit does.
    """

    def __init__(self, response: Response, deadline: Deadline, idle: float) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw: Any = response.raw
        self._wire: Any = getattr(self._raw.connection, "wire", None)
        self._deadline = deadline
        self._idle = idle
        self._begun = False

    def begin(self) -> None:
        """Note that the first event, or the first byte of a whole answer, is here."""
        self._begun = True

    def blocks(self) -> Iterator[bytes]:
        """The body, decoded, as it arrives."""
        while block := self._block():
            yield block

    def _block(self) -> bytes:
        if not self._begun and self._deadline.passed:
            raise self._deadline.missed()
        self._wait_at_most(self._idle if self._begun else self._deadline.left)
        try:
            return self._raw.read1(65536, decode_content=True) or b""
        except pool_errors.ReadTimeoutError as e:
            raise self._late() from e
        except (pool_errors.DecodeError, pool_errors.SSLError) as e:
            raise UpstreamProtocol("upstream's answer cannot be decoded") from e
        except (pool_errors.HTTPError, OSError, ValueError, AttributeError) as e:
            # The last two: the answer was closed from another thread.
            raise UpstreamCut("upstream broke off in the middle of its answer") from e

    def _late(self) -> UpstreamTimeout:
        if not self._begun:
            return self._deadline.missed()
        return UpstreamTimeout(
            f"upstream fell silent for {self._idle:g} s in the middle of its answer",
            code="timeout",
        )

    def _wait_at_most(self, seconds: float) -> None:
        if self._wire is not None and self._wire.fileno() >= 0:
            self._wire.settimeout(seconds)

    def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamProtocol if it exceeds *limit* bytes."""
        pieces: list[bytes] = []
        size = 0
        for block in self.blocks():
            self.begin()
            size += len(block)
            if size > limit:
                raise UpstreamProtocol(
                    f"the answer is longer than {limit} bytes; it starts: "
                    f"{excerpt(pieces[0] if pieces else block)}"
                )
            pieces.append(block)
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of an answer that was read, and keep its connection for the next."""
        if not self._raw.isclosed():
            self._finish()
        self._raw.close()
        self._raw.release_conn()

    def _finish(self) -> None:
        """Read the end of an answer that has said its last word, if it is there."""
        self._wait_at_most(_LINGER)
        try:
            self._raw.read1(1024)
        except (pool_errors.HTTPError, OSError, ValueError, AttributeError):
            pass

    def abort(self) -> None:
        """Break the connection off, from any thread; whoever reads it gets an error."""
        if self._wire is not None:
            try:
                self._wire.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._raw.close()
