"""requests' adapter, made lean: from its pool of connections to an answer at once.

urllib3 still resolves, connects, speaks TLS, keeps the connections, and decodes what
is encoded. What its `urlopen` does beside that, no call of a gateway needs: proxies,
retries, redirects, bodies that are no bytes.
"""

import ssl
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
from .head import written


class _Pool(HTTPConnectionPool):
    ConnectionCls = UpstreamConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = UpstreamTLSConnection


class _Target(NamedTuple):
    """What all calls of a URL have in common: their pool, and how their heads begin."""

    key: PoolKey
    context: Mapping[str, Any]
    line: bytes
    host: bytes


# How many URLs are remembered, the last ones; and how long one may be for that.
_MOST_TARGETS = 512
_LONGEST_TARGET = 1000


class PooledAdapter(HTTPAdapter):
    """requests' adapter with connections that remember."""

    pools: tuple[type[HTTPConnectionPool], type[HTTPSConnectionPool]] = _Pool, _TLSPool

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        http_pool, https_pool = self.pools
        schemes = {"http": http_pool, "https": https_pool}
        self.poolmanager.pool_classes_by_scheme = schemes
        self._remembered = lru_cache(_MOST_TARGETS)(self._aimed)
        self._tls = lru_cache(1)(tls.context)

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
        """The response to *request*, once its head is there; `raw` reads its body.

        It is always a stream. In *timeout* seconds there has to be a connection; by
        *until*, on the monotonic clock, the head. There are no *cert* and no *proxies*.
        Raises what urllib3 and http.client do; InvalidURL, InvalidHeader, SSLError.
        """
        target = self._target(str(request.method), str(request.url), verify)
        head = _head(target, request.headers)
        body: Any = request.body or b""
        pool = self._pool(target)
        connection: Any = pool._get_conn()
        try:
            connection.timeout = timeout
            connection.give_back = pool._put_conn
            is_last = request.headers.get("Connection") == "close"
            raw = connection.exchange(
                head, body, until=until, is_last=is_last, observer=observer
            )
        except BaseException as e:
            connection.close()
            pool._put_conn(None)
            if isinstance(e, (ssl.SSLError, SSLError, CertificateError)):
                raise errors.SSLError(e) from e
            raise
        return _response(request, raw)

    def _target(self, method: str, url: str, verify: Any) -> _Target:
        aim = self._remembered if len(url) <= _LONGEST_TARGET else self._aimed
        return aim(method, url, verify)

    def _pool(self, target: _Target) -> HTTPConnectionPool:
        return self.poolmanager.connection_from_pool_key(
            target.key, dict(target.context)
        )

    def _aimed(self, method: str, url: str, verify: Any) -> _Target:
        """The target of *url*. Raises InvalidURL; SSLError if there is no trust."""
        request = PreparedRequest()
        request.method, request.url = method, url
        try:
            context = self._context(request, verify)
            key = self.poolmanager.key_fn_by_scheme[context["scheme"]](context)
            pool = self.poolmanager.connection_from_pool_key(key, dict(context))
            return _Target(key, context, *_opening(pool, method, request.path_url))
        except (ValueError, KeyError, HTTPException) as e:
            raise errors.InvalidURL(e) from e
        except OSError as e:
            raise errors.SSLError(e) from e

    def _context(self, request: PreparedRequest, verify: Any) -> dict[str, Any]:
        """What urllib3 makes the pool of. Raises ValueError, KeyError."""
        place, own = self.build_connection_pool_key_attributes(request, verify)
        if not place["host"]:
            raise ValueError("no host")
        place["port"] = place["port"] or port_by_scheme[place["scheme"]]
        if place["scheme"] == "https":
            trusted = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
            own = {"ssl_context": self._tls(trusted)}
        return self.poolmanager.connection_pool_kw | own | place

    def close(self) -> None:
        """Close what lies idle now; urllib3 would wait for the last answer's memory."""
        pools = self.poolmanager.pools
        for key in pools.keys():
            pools[key].close()
        super().close()


def _opening(pool: HTTPConnectionPool, method: str, path: str) -> tuple[bytes, bytes]:
    """The request line, and the header Host: as http.client writes them, and no other.

    Raises ValueError, http.client's InvalidURL.
    """
    connection: Any = pool._new_conn()
    connection.putrequest(method, _encode_target(path), skip_accept_encoding=True)
    line, host = connection._buffer
    return line + b"\r\n", host + b"\r\n"


def _head(target: _Target, headers: Mapping[str, Any]) -> bytes:
    """Raises InvalidHeader."""
    host = target.host if headers.get("Host") is None else b""
    try:
        return b"".join((target.line, host, written(headers), b"\r\n"))
    except ValueError as e:
        raise errors.InvalidHeader(e) from e


def _response(request: PreparedRequest, raw: HTTP1Response) -> Response:
    """requests' response, without a jar for cookies, which takes longest to make."""
    response = Response.__new__(Response)
    response.status_code, response.headers = raw.status, raw.headers
    response.request, response.url, response.raw = request, str(request.url), raw
    response.history, response.encoding, response.reason = [], None, ""
    response._content, response._content_consumed = False, False
    return response
