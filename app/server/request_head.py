"""Requests as gunicorn reads them, with stricter rules for their heads.

gunicorn lets through heads that a proxy in front of it may read in another way, which
is what request smuggling is made of. This module is imported in its master, so it loads
nothing that gevent patches later.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from gunicorn.http.errors import InvalidHeader
from gunicorn.http.message import Request

# All headers of a request together, in bytes. A config takes up to a quarter.
_MAX_HEAD_BYTES = 2**18

# A name, an IPv4 or a bracketed IPv6 address, and a port: no user, blank or path.
_HOST = re.compile(
    r"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)


class AmbiguousHead(InvalidHeader):  # type: ignore[misc]  # gunicorn has no types
    """A head that is valid HTTP, but that another server could read differently."""

    def __str__(self) -> str:
        return str(self.hdr)


class GatewayRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """A request whose head is bounded, names one host, and frames its body plainly.

    Source: https://www.rfc-editor.org/rfc/rfc9112#section-3.2 and section 6.1
    """

    @property
    def max_buffer_headers(self) -> int:
        """The bound of a head that has not ended yet.

        gunicorn allows as many headers as it takes, each of the longest, 6.5 MB, and
        looks through all of it again with every piece that arrives. That takes seconds,
        in which a gevent worker does nothing else.
        """
        return _MAX_HEAD_BYTES

    @max_buffer_headers.setter
    def max_buffer_headers(self, value: int) -> None:
        """gunicorn's own bound, which its constructor computes, is dropped."""

    def set_body_reader(self) -> None:
        check_host(self)
        # gunicorn also accepts `gzip, chunked`, but does not decompress.
        for name, value in self.headers:
            if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
                raise AmbiguousHead(
                    f"Transfer-Encoding must be chunked alone, not {value[:80]!r}"
                )
        super().set_body_reader()


def check_host(request: Any) -> None:
    """Raise AmbiguousHead unless *request* names one host, in Host and in its target.

    HTTP/1.0 may do without. Two servers that take the host from different places would
    route, cache or protect the same request differently.
    """
    hosts = [value for name, value in request.headers if name == "HOST"]
    if not hosts:
        if request.version >= (1, 1):
            raise AmbiguousHead("a header Host is required from version 1.1 on")
    elif len(hosts) > 1 or not _HOST.fullmatch(hosts[0]):
        received = f"{len(hosts)} of them" if len(hosts) > 1 else repr(hosts[0][:80])
        raise AmbiguousHead(
            "Host must be one name or address, with a port or without, not "
            f"{received}"
        )
    # The absolute form of a target, `GET http://host/path`, which proxies use.
    if request.uri[0] != "/" and "://" in request.uri:
        authority = urlsplit(request.uri).netloc
        is_same = not hosts or authority.lower() == hosts[0].lower()
        if not _HOST.fullmatch(authority) or not is_same:
            raise AmbiguousHead(
                f"the target and Host must name the same host, not {authority[:80]!r} "
                f"and {hosts[0][:80] if hosts else ''!r}"
            )
