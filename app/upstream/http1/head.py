"""Heads of HTTP/1 messages: requests' headers encoded, responses' heads parsed.

http.client writes a head line by line, and parses one as if it were a mail. This module
does either in one go, and more strictly: no folded lines, no header without a name.

Source: https://www.rfc-editor.org/rfc/rfc9112
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import NamedTuple


class Malformed(HTTPException):
    """The response is not HTTP/1, or could be read in more than one way."""


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
_END_OF_HEAD = (b"\r\n", b"\n")


class HeadDecoder:
    """Finds the head of the final response in what comes from a connection.

    Sans-IO: feed it what the socket gives, in pieces of any size. Interim responses are
    skipped. *unread* is what stands behind the head: the beginning of the body.
    """

    def __init__(self) -> None:
        self.unread = b""
        self._interim_responses = 0
        # Minor version and status, once there is a status line; the lines behind it.
        self._status: tuple[int, int] | None = None
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> ResponseHead | None:
        """The head, if *data* completes it. Raises Malformed."""
        data, self.unread = self.unread + data, b""
        at = 0
        while end := data.find(b"\n", at) + 1:
            line, at = data[at:end], end
            _check_length(line)
            if self._status is None:
                self._status = _parse_status(line)
            elif line not in _END_OF_HEAD:
                if len(self._lines) == MAX_FIELDS:
                    raise Malformed("a head without end")
                self._lines.append(line)
            elif self._status[1] >= HTTPStatus.OK:
                self.unread = data[at:]
                return self._head(*self._status)
            else:
                self._skip_interim_response()
        self.unread = data[at:]
        _check_length(self.unread)
        return None

    def _skip_interim_response(self) -> None:
        self._status, self._lines = None, []
        self._interim_responses += 1
        if self._interim_responses == _MAX_INTERIM:
            raise Malformed("no answer, only announcements")

    def _head(self, minor: int, status: int) -> ResponseHead:
        headers: dict[str, str] = {}
        for line in self._lines:
            match = _FIELD_LINE.fullmatch(line)
            if match is None:
                raise Malformed("a header that is none")
            name, value = match[1].decode("ascii").lower(), match[2].decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return ResponseHead(minor, status, headers, _is_last(minor, headers))


def _parse_status(line: bytes) -> tuple[int, int]:
    """Minor version and status. Raises Malformed, also for a change of protocol."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Malformed("no status")
    minor, status = int(match[1] or 0), int(match[2])
    if status == HTTPStatus.SWITCHING_PROTOCOLS:
        raise Malformed("another protocol, which nobody asked for")
    return minor, status


def _check_length(line: bytes) -> None:
    if len(line) > LONGEST_LINE:
        raise Malformed("a line of a head without end")


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
