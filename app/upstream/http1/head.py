"""Heads of HTTP/1 messages: requests' headers encoded, responses' heads parsed.

http.client writes a head line by line, and parses one as if it were a mail. This module
does either in one go, and more strictly: no folded lines, no header without a name.

Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import NamedTuple, Protocol


class Malformed(HTTPException):
    """The response is not HTTP/1, or could be read in more than one way."""


class Lines(Protocol):
    """The source of a head, such as a buffered socket."""

    def readline(self, limit: int, /) -> bytes: ...


class ResponseHead(NamedTuple):
    """Minor version of HTTP/1, status and headers of a response.

    *headers* are by their names in lower case, the values of a repeated one joined by
    commas. *is_last* says that the server closes the connection after this response.
    """

    minor: int
    status: int
    headers: dict[str, str]
    is_last: bool


# Interim responses (1xx, such as "103 Early Hints") before the final one.
_MAX_INTERIM = 100
# As http.client: bytes in a line, and headers in a head.
LONGEST_LINE = 2**16
MAX_FIELDS = 99

# The reason phrase is optional, and ignored. Some servers call their HTTP/1.0 0.9.
_STATUS_LINE = re.compile(
    rb"HTTP/(?:1\.([0-9]+)|0\.9)[ \t]+([1-9][0-9]{2})(?:[ \t][^\n]*)?\r?\n"
)
# A name is any visible characters but a colon, with no blank before it: a line that
# begins with one would continue the header before (obs-fold), and of "Name : value" two
# readers may see two names. A value has no control characters but tabs.
_FIELD_LINE = re.compile(rb"([!-9;-~]+):[ \t]*([^\0-\x08\n-\x1f\x7f]*)\r?\n")
_END_OF_HEAD = (b"\r\n", b"\n", b"")


def read_head(source: Lines) -> ResponseHead:
    """Read the head of the final response from *source*, past interim ones.

    Raises ConnectionResetError if not even its first byte comes, and Malformed. The end
    of *source* ends a head as well: whether it was cut, the caller has to see.
    """
    for _ in range(_MAX_INTERIM):
        line = source.readline(LONGEST_LINE + 1)
        if not line:
            raise ConnectionResetError("closed without an answer")
        match = _STATUS_LINE.fullmatch(line)
        if match is None or len(line) > LONGEST_LINE:
            raise Malformed("no status")
        minor, status = int(match[1] or 0), int(match[2])
        if status >= 200:
            headers = _parse_fields(read_lines(source))
            return ResponseHead(minor, status, headers, _is_last(minor, headers))
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            break
        read_lines(source)
    raise Malformed("no answer, only announcements")


def read_lines(source: Lines) -> list[bytes]:
    """Read the lines of headers, or trailers, up to a blank line or the end.

    Raises Malformed if one is too long, or they are too many.
    """
    lines: list[bytes] = []
    while (line := source.readline(LONGEST_LINE + 1)) not in _END_OF_HEAD:
        if len(line) > LONGEST_LINE or len(lines) == MAX_FIELDS:
            raise Malformed("a head, or a line of it, without end")
        lines.append(line)
    return lines


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise Malformed("a header that is none")
        name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _is_last(minor: int, headers: Mapping[str, str]) -> bool:
    """Whether the server closes the connection: HTTP/1.0 does unless it says it won't.

    `Proxy-Connection` and `Keep-Alive` are what servers of HTTP/1.0 send to say so.
    """
    options = headers.get("connection", "").lower()
    if minor:
        return "close" in options
    options += headers.get("proxy-connection", "").lower()
    return not (headers.get("keep-alive") or "keep-alive" in options)


# As http.client checks a name before it sends it (_is_legal_header_name); here all
# names of a head at once, each behind a line break.
_FIELD_NAMES = re.compile(r"(?:\n[^:\s][^:\r\n]*)*", re.ASCII)


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """*headers* as lines of a head.

    Raises ValueError for a name that is none, a value that would end its line, and one
    that latin-1 cannot express.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # One CR and one LF for each: no value, and no name, brings a line of its own.
    line_ends = lines.count("\r"), lines.count("\n")
    names = "".join([f"\n{name}" for name in headers])
    is_valid = names.isascii() and _FIELD_NAMES.fullmatch(names)
    if line_ends != (len(headers), len(headers)) or not is_valid:
        raise ValueError("a header that is none")
    return lines.encode("latin-1")
