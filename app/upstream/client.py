"""The only HTTP client. An HTTPRequest goes in, an open HTTPReply comes out.

It is requests' adapter without requests' session: nothing from the environment, no
netrc, no cookies, no redirects, no retries of its own can change a call.
"""

import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from math import inf
from typing import Any

from requests import PreparedRequest, Response
from requests import exceptions as errors
from requests.structures import CaseInsensitiveDict
from urllib3 import exceptions as pool_errors
from urllib3.exceptions import DecodeError

from ..errors import (
    UpstreamCut,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..providers import HTTPRequest
from ..providers.parsing.excerpts import excerpt
from .http1.body import CODINGS
from .http1.connection import CallObserver, CutHead, HTTP1Response, StaleConnection
from .http1.head import Malformed
from .http1.pool import PooledAdapter
from .ssrf import ssrf_safe_adapter
from .timeouts import Deadline, Timeouts

# How long to wait for the end of an answer that has said [DONE], in seconds, so that
# its connection can serve again.
_LINGER = 0.02


class _Pair:
    """An adapter that keeps connections, and one whose connections are all new."""

    def __init__(
        self, kind: type[PooledAdapter], pool: int, headers: Mapping[str, str]
    ) -> None:
        self.kept = kind(pool_connections=64, pool_maxsize=pool)
        self.fresh = kind(pool_connections=64, pool_maxsize=1)
        for adapter in (self.kept, self.fresh):
            adapter.set_default_headers(headers)


class HTTPClient:
    """Sends calls. One for a whole process; it may be used from many threads.

    Of each host, *pool* connections are kept for later calls: as many as a worker may
    need at once.
    """

    def __init__(
        self,
        limits: Timeouts,
        *,
        user_agent: str = "lastword",
        ca_bundle: str = "",
        pool: int = 2048,
    ) -> None:
        self.limits = limits
        # Compressed, a stream would come in lumps.
        self._default_headers = {
            "User-Agent": user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        self._verify = ca_bundle or True
        self._pool = pool
        self._making = threading.Lock()
        # By what they trust. Connections are kept with those who may use them: what was
        # reached by one set of rules says nothing for the other.
        self._adapters: dict[tuple[str, ...] | None, _Pair] = {
            None: _Pair(PooledAdapter, pool, self._default_headers)
        }

    def send(
        self,
        call: HTTPRequest,
        deadline: Deadline,
        *,
        observer: CallObserver | None = None,
        trusted: tuple[str, ...] | None = None,
        once: bool = False,
    ) -> "HTTPReply":
        """The answer to *call*, once its head is there. Raises UpstreamError.

        With *trusted*, an address that the host resolves to is looked at before it is
        called: none but those may be internal. Raises HostRefused. There are two such
        sets at most, of what callers name and of what is stored.

        A reused connection that ends before the first byte of an answer was closed
        by the server while it lay idle; the call is sent again, once, on a new one.
        With *once*, no connection is reused, so that no call is ever sent again.
        """
        request = _prepared(call)
        adapters = self._adapters.get(trusted) or self._guarded(trusted)
        if once:
            request.headers["Connection"] = "close"
            return self._send(adapters.fresh, request, deadline, observer)
        try:
            return self._send(adapters.kept, request, deadline, observer)
        except StaleConnection:
            request.headers["Connection"] = "close"
            return self._send(adapters.fresh, request, deadline, observer)

    def close(self) -> None:
        """Close the connections that lie idle."""
        for adapters in [*self._adapters.values()]:
            adapters.kept.close()
            adapters.fresh.close()

    def _guarded(self, trusted: tuple[str, ...] | None) -> _Pair:
        with self._making:
            if trusted not in self._adapters:
                adapter = ssrf_safe_adapter(trusted or ())
                made = _Pair(adapter, self._pool, self._default_headers)
                self._adapters[trusted] = made
            return self._adapters[trusted]

    def _send(
        self,
        adapter: PooledAdapter,
        request: PreparedRequest,
        deadline: Deadline,
        observer: CallObserver | None,
    ) -> "HTTPReply":
        try:
            response = adapter.send(
                request,
                timeout=self.limits.connect,
                verify=self._verify,
                until=deadline.at,
                observer=observer,
            )
        except (HTTPException, pool_errors.HTTPError, OSError) as e:
            again = request.headers.get("Connection") == "close"
            if _cause(e, StaleConnection) and not again:
                raise StaleConnection("") from e
            raise self._translated(e, deadline) from e
        return HTTPReply(response, deadline, self.limits.idle)

    def _translated(self, e: Exception, deadline: Deadline) -> UpstreamError:
        """A failure before the head of the answer, in our words."""
        refused = pool_errors.NewConnectionError
        is_late = isinstance(e, pool_errors.ConnectTimeoutError)
        if is_late and not isinstance(e, refused):
            return self._not_connected(deadline)
        if _cause(e, TimeoutError):
            return deadline.timeout_error()
        named = (
            kind(message) for cause, kind, message in _FAILURES if _cause(e, cause)
        )
        return next(named, UpstreamProtocol("upstream's answer is not HTTP"))

    def _not_connected(self, deadline: Deadline) -> UpstreamTimeout:
        limit = self.limits.connect
        if deadline.set_by_caller and deadline.seconds <= limit:
            return deadline.timeout_error()
        return UpstreamTimeout(f"upstream could not be reached within {limit:g} s")


# What can go wrong before an answer, the special before the general.
_FAILURES: tuple[tuple[type[Exception], type[UpstreamError], str], ...] = (
    (errors.SSLError, UpstreamRefused, "no trustworthy TLS connection to upstream"),
    (errors.InvalidURL, UpstreamRefused, "upstream's address is malformed"),
    (errors.InvalidHeader, UpstreamRefused, "a header for upstream is malformed"),
    (
        pool_errors.NameResolutionError,
        UpstreamRefused,
        "upstream's host name could not be resolved",
    ),
    (
        pool_errors.NewConnectionError,
        UpstreamRefused,
        "upstream refused the connection",
    ),
    (CutHead, UpstreamCut, "upstream broke off in the head of its answer"),
    (
        ConnectionError,
        UpstreamUnreachable,
        "upstream closed the connection without an answer",
    ),
)


def _prepared(call: HTTPRequest) -> PreparedRequest:
    """*call* for the adapter, which adds the headers that all calls have."""
    request = PreparedRequest()
    request.method, request.url, request.body = call.method, call.url, call.body
    headers: Any = dict(call.headers)
    request.headers = headers
    if call.body is not None or call.method != "GET":
        headers["Content-Length"] = str(len(call.body or b""))
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


class ByteBudget:
    """How many bytes of answers may be held: by all calls of one request together."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit
        self._lock = threading.Lock()

    def spend(self, body: bytearray, count: int) -> None:
        """Take *count* bytes, the last ones of *body*, from it.

        Raises UpstreamProtocol, with the beginning of *body*, if there are not as many.
        """
        with self._lock:
            self.left -= count
            is_spent = self.left < 0
        if is_spent:
            raise UpstreamProtocol(
                f"the answer is longer than {self.limit} bytes; it starts: "
                f"{excerpt(bytes(body[:1000]))}"
            )


class HTTPReply:
    """The open answer to a call.

    The deadline of the call holds until `begin` says that the answer has begun; after
    that, the idle limit does, from one `begin` to the next. A server's heartbeats are
    neither beginning nor progress, and a piece that drips in is not there until it is.
    """

    def __init__(self, response: Response, deadline: Deadline, idle: float) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw: HTTP1Response = response.raw
        self._deadline = deadline
        self._idle = idle
        self._begun = self._renewed = False
        self._is_refused = self._has_unknown_coding()

    @property
    def headers_in_any_case(self) -> Mapping[str, str]:
        """The headers for libraries that look them up in a spelling of their own."""
        return CaseInsensitiveDict(self.headers)

    def begin(self) -> None:
        """Note that an event, or a piece of a whole answer, is here."""
        self._begun = self._renewed = True

    def _has_unknown_coding(self) -> bool:
        """Whether it is encoded unasked. An error is read all the same: its status
        says enough.
        """
        value = self.headers.get("content-encoding")
        if not value or self.status >= 400:
            return False
        return not {coding.strip() for coding in value.lower().split(",")} <= CODINGS

    def read_block(self, wake_at: float = inf) -> bytes | None:
        """The next piece of the body, decoded; b"" at its end.

        None if nothing has come until *wake_at*, on the monotonic clock; nothing is
        lost then. Raises UpstreamTimeout, UpstreamCut, UpstreamProtocol.
        """
        if self._is_refused:
            coding = self.headers.get("content-encoding", "")[:40].lower()
            raise UpstreamProtocol(
                f"upstream's answer is encoded, unasked, as {coding!r}"
            )
        if self._renewed:
            self._raw.until = time.monotonic() + self._idle
            self._renewed = False
        try:
            return self._raw.read_block(wake_at)
        except TimeoutError as e:
            raise self._late() from e
        except (zlib.error, DecodeError, ssl.SSLError) as e:
            raise UpstreamProtocol("upstream's answer cannot be decoded") from e
        except Malformed as e:
            raise UpstreamProtocol("upstream's answer is not HTTP") from e
        except (HTTPException, OSError, ValueError) as e:
            # ValueError: the socket was closed from another thread.
            raise UpstreamCut("upstream broke off in the middle of its answer") from e

    def _late(self) -> UpstreamTimeout:
        if not self._begun:
            return self._deadline.timeout_error()
        return UpstreamTimeout(
            f"upstream fell silent for {self._idle:g} s in the middle of its answer",
            code="timeout",
        )

    def blocks(self) -> Iterator[bytes]:
        """The body, decoded, as it arrives."""
        while block := self.read_block():
            yield block
            if self._raw.ended:
                break

    def read(self, budget: ByteBudget) -> bytes:
        """The whole body. Raises UpstreamProtocol if it exceeds what *budget* has left.

        Nothing is read of one whose head says that it does. When it raises, what was
        read is gone: the traceback of an error would keep it.
        """
        self.refuse_length(budget)
        body = bytearray()
        try:
            for block in self._progress():
                body += block
                budget.spend(body, len(block))
            return bytes(body)
        finally:
            body.clear()

    def read_start(self, limit: int) -> bytes:
        """The body up to *limit* bytes. The rest of a longer one is not read."""
        body = bytearray()
        try:
            for block in self._progress():
                body += block
                if len(body) >= limit:
                    break
            return bytes(body[:limit])
        finally:
            body.clear()

    def refuse_length(self, budget: ByteBudget) -> None:
        """Refuse an answer that is longer than *budget* by what its head says."""
        length = self.headers.get("content-length", "").partition(",")[0].strip()
        if length.isdecimal() and int(length) > budget.left:
            raise UpstreamProtocol(
                f"the answer is longer than {budget.limit} bytes: its head announces "
                f"{int(length)}"
            )

    def _progress(self) -> Iterator[bytes]:
        """The blocks of a whole answer. Blank space before it is a heartbeat."""
        for block in self.blocks():
            if self._begun or not block.isspace():
                self.begin()
            yield block

    def close(self) -> None:
        """Let go of an answer that was read, and keep its connection for the next.

        The answer may have said its last word before its body has ended: that end is
        read if it is there, since the connection can serve again only behind it.
        """
        if self._raw.ended:
            # It has given its connection back already.
            return
        self._raw.until = time.monotonic() + _LINGER
        try:
            self._raw.read_block()
        except (HTTPException, DecodeError, zlib.error, OSError, ValueError):
            pass
        self._raw.close()

    def abort(self) -> None:
        """Break the connection off, and let go of it."""
        self.break_off()
        self._raw.close()

    def break_off(self) -> None:
        """End the connection, from any thread; whoever reads it gets an error."""
        self._raw.break_off()
