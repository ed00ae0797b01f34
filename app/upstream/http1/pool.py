"""requests' adapter over the gateway's own connections: one call, one response.

urllib3 still resolves names, connects, speaks TLS, keeps idle connections, and decodes
bodies that are encoded. What its `urlopen` does besides, the gateway never needs:
proxies, retries, redirects, bodies that are no bytes.
"""

import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from http.client import HTTPException
from math import inf
from typing import Any, NamedTuple

from requests import PreparedRequest, Response
from requests import exceptions as errors
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import port_by_scheme
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import SSLError
from urllib3.poolmanager import PoolKey
from urllib3.util.ssl_match_hostname import CertificateError
from urllib3.util.url import _encode_target

from .. import tls
from .connection import (
    CallObserver,
    HTTP1Response,
    UpstreamConnection,
    UpstreamTLSConnection,
)
from .head import encode_headers


class UpstreamPool(HTTPConnectionPool):
    ConnectionCls = UpstreamConnection


class UpstreamTLSPool(HTTPSConnectionPool):
    ConnectionCls = UpstreamTLSConnection


class RequestTarget(NamedTuple):
    """What all calls of a method and URL share: their pool, and how heads begin."""

    pool_key: PoolKey
    pool_context: Mapping[str, Any]
    request_line: bytes
    host_line: bytes


# Request targets that are cached, and the characters of a URL that is.
_MAX_TARGETS = 512
_MAX_CACHED_URL = 1000


class PooledAdapter(HTTPAdapter):
    """Sends a prepared request on a pooled connection, always as a stream."""

    pools: tuple[type[HTTPConnectionPool], type[HTTPSConnectionPool]]
    pools = UpstreamPool, UpstreamTLSPool

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        http_pool, https_pool = self.pools
        schemes = {"http": http_pool, "https": https_pool}
        self.poolmanager.pool_classes_by_scheme = schemes
        # A gateway calls few URLs: to take one apart is half of what a call costs.
        self._cached_target = lru_cache(_MAX_TARGETS)(self._build_target)
        self._tls_context = lru_cache(1)(tls.client_context)
        # Lines of heads by the lower-case names of their headers.
        self._default_lines: list[tuple[str, bytes]] = []

    def set_default_headers(self, headers: Mapping[str, str]) -> None:
        """Send *headers* with each request that has none of the same name."""
        self._default_lines = [
            (name.lower(), encode_headers({name: value}))
            for name, value in headers.items()
        ]

    def send(
        self,
        request: PreparedRequest,
        stream: bool = True,
        timeout: Any = None,
        verify: bool | str | None = True,
        cert: Any = None,
        proxies: Any = None,
        *,
        until: float = inf,
        observer: CallObserver | None = None,
    ) -> Response:
        """Send *request*; return the response as soon as its head is there.

        *timeout* is in seconds, for connecting. The head has to be there at *until*, on
        the monotonic clock; *observer* is shown the socket that the call is sent on.
        *cert* and *proxies* are ignored. Raises what urllib3 and http.client do;
        InvalidURL, InvalidHeader, SSLError.
        """
        method, url = str(request.method), str(request.url)
        is_cached = len(url) <= _MAX_CACHED_URL
        find = self._cached_target if is_cached else self._build_target
        target = find(method, url, verify)
        head = self._encode_head(target, request.headers)
        body: Any = request.body or b""
        pool = self.poolmanager.connection_from_pool_key(
            target.pool_key, dict(target.pool_context)
        )
        connection: Any = pool._get_conn()
        try:
            # Of connecting. A socket takes 0 for "do not wait".
            connection.timeout = min(timeout, max(until - time.monotonic(), 0.001))
            connection.give_back = pool._put_conn
            raw = connection.exchange(
                head,
                body,
                until=until,
                is_last=request.headers.get("Connection") == "close",
                observer=observer,
            )
        except BaseException as e:
            connection.close()
            # None frees the place of the connection, for a new one.
            pool._put_conn(None)
            if isinstance(e, (ssl.SSLError, SSLError, CertificateError)):
                raise errors.SSLError(e) from e
            raise
        return UpstreamResponse(request, raw)

    def _build_target(self, method: str, url: str, verify: Any) -> RequestTarget:
        """Raises InvalidURL; SSLError if the certificate authorities are missing."""
        request = PreparedRequest()
        request.method, request.url = method, url
        try:
            context = self._pool_context(request, verify)
            key = self.poolmanager.key_fn_by_scheme[context["scheme"]](context)
            pool = self.poolmanager.connection_from_pool_key(key, dict(context))
            # http.client itself writes the first two lines, on a connection that is
            # never opened: they are checked and encoded as its own.
            connection: Any = pool._new_conn()
            path = _encode_target(request.path_url)
            connection.putrequest(method, path, skip_accept_encoding=True)
            request_line, host_line = connection._buffer
        except (ValueError, KeyError, HTTPException) as e:
            raise errors.InvalidURL(e) from e
        except OSError as e:
            raise errors.SSLError(e) from e
        return RequestTarget(key, context, request_line + b"\r\n", host_line + b"\r\n")

    def _pool_context(self, request: PreparedRequest, verify: Any) -> dict[str, Any]:
        """What urllib3 makes a pool of. Raises ValueError, KeyError, OSError."""
        host, options = self.build_connection_pool_key_attributes(request, verify)
        if not host["host"]:
            raise ValueError("no host")
        host["port"] = host["port"] or port_by_scheme[host["scheme"]]
        if host["scheme"] == "https":
            authorities = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
            options = {"ssl_context": self._tls_context(authorities)}
        return self.poolmanager.connection_pool_kw | options | host

    def _encode_head(self, target: RequestTarget, headers: Mapping[str, Any]) -> bytes:
        """Raises InvalidHeader."""
        names = set(map(str.lower, headers))
        lines = [target.request_line]
        if "host" not in names:
            lines.append(target.host_line)
        lines += [line for name, line in self._default_lines if name not in names]
        try:
            lines.append(encode_headers(headers))
        except ValueError as e:
            raise errors.InvalidHeader(e) from e
        return b"".join((*lines, b"\r\n"))

    def close(self) -> None:
        """Close idle connections now; urllib3 would wait for the garbage collector."""
        pools = self.poolmanager.pools
        for key in pools.keys():
            pools[key].close()
        super().close()


class UpstreamResponse(Response):
    """requests' response, without its jar of cookies, which takes longest to make."""

    def __init__(self, request: PreparedRequest, raw: HTTP1Response) -> None:
        headers: Any = raw.headers
        self.status_code, self.headers = raw.status, headers
        self.request, self.url, self.raw = request, str(request.url), raw
        self.history, self.encoding, self.reason = [], None, ""
        self._content, self._content_consumed = False, False
