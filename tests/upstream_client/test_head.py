"""The parser of response heads, compared with http.client."""

import io
from http.client import HTTPConnection, HTTPException, parse_headers
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.http1.head import (
    HeadDecoder,
    Malformed,
    ResponseHead,
    encode_headers,
)

OK = b"HTTP/1.1 200 OK\r\n"
TEXT = st.text(st.characters(max_codepoint=300), max_size=12)
NAMES = st.sampled_from(["Content-Length", "content-length", "X-A", "Age"]) | TEXT
ENDS = st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n", b""])


def read_head(raw: bytes) -> ResponseHead | None:
    return HeadDecoder().feed(raw)


def lines(*fields: tuple[str, str]) -> bytes:
    return b"".join(f"{n}: {v}\r\n".encode("latin-1") for n, v in fields)


@st.composite
def heads(draw: Any) -> bytes:
    """Lines that are almost headers."""
    field = st.tuples(NAMES, st.sampled_from([":", ": ", ":\t ", " : ", ""]), TEXT)
    drawn = draw(st.lists(st.tuples(field, ENDS), max_size=5))
    text = (("".join(parts).encode("latin-1", "replace"), end) for parts, end in drawn)
    return b"".join(line + end for line, end in text) + b"\r\n"


@given(heads())
def test_parsed_headers_agree_with_http_client(raw: bytes) -> None:
    try:
        head = read_head(OK + raw)
    except Malformed:
        return
    if head is None:
        return
    message = parse_headers(io.BytesIO(raw))
    names = {name.lower() for name in message.keys()}

    assert message.get_payload() == ""
    assert head.headers == {
        name: ", ".join(message.get_all(name, [])) for name in names
    }


@given(st.lists(st.tuples(NAMES, TEXT), max_size=4, unique_by=lambda each: each[0]))
def test_encoded_headers_agree_with_http_client(fields: Any) -> None:
    try:
        raw = encode_headers(dict(fields))
    except ValueError:
        return
    connection: Any = HTTPConnection("host")
    connection.putrequest("GET", "/", skip_host=True, skip_accept_encoding=True)
    for name, value in fields:
        connection.putheader(name, value)

    assert raw == b"".join(line + b"\r\n" for line in connection._buffer[1:])


@given(st.tuples(NAMES, TEXT))
def test_headers_http_client_refuses_are_refused(field: Any) -> None:
    connection: Any = HTTPConnection("host")
    connection.putrequest("GET", "/")
    try:
        connection.putheader(*field)
    except ValueError:
        with pytest.raises(ValueError):
            encode_headers(dict([field]))


@pytest.mark.parametrize(
    "field",
    [("A", "b\r\nC: d"), ("A", "b\n c"), ("A", "b\rc"), ("A\r\nB", "c"), ("", "a")]
    + [("A:", "b"), (" A", "b"), ("\xe4", "b"), ("A", "\u0394")],
)
def test_header_injection_is_refused(field: tuple[str, str]) -> None:
    with pytest.raises(ValueError):
        encode_headers(dict([field]))


@pytest.mark.parametrize(
    "line, read",
    [(b"HTTP/1.1 200 OK", (1, 200)), (b"HTTP/1.0 404", (0, 404))]
    + [(b"HTTP/1.1  200  Fine ", (1, 200)), (b"HTTP/0.9 500 \xff", (0, 500))],
)
def test_status_line_is_parsed(line: bytes, read: tuple[int, int]) -> None:
    assert read_head(line + b"\r\n\r\n")[:2] == read


@pytest.mark.parametrize(
    "line",
    [b"HTTP/2 200 OK", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 +200 OK"]
    + [b"HTTP/1.1 2_0_0", b"HTTP/1.1 099", b"ICY 200 OK", b"", b" HTTP/1.1 200 OK"],
)
def test_malformed_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(Malformed):
        read_head(line + b"\r\n\r\n")


def test_header_count_limit_of_http_client() -> None:
    most = lines(*[("A", "b")] * 99)
    parse_headers(io.BytesIO(most + b"\r\n"))
    with pytest.raises(HTTPException):
        parse_headers(io.BytesIO(most + b"A: b\r\n\r\n"))

    assert read_head(OK + most + b"\r\n").status == 200
    with pytest.raises(Malformed):
        read_head(OK + most + b"A: b\r\n\r\n")


@pytest.mark.parametrize("length, is_allowed", [(2**16, True), (2**16 + 1, False)])
def test_line_length_limit_of_http_client(length: int, is_allowed: bool) -> None:
    raw = b"A: " + b"b" * (length - 5) + b"\r\n\r\n"
    accepted = []
    for read in (parse_headers, read_head):
        try:
            read(io.BytesIO(raw) if read is parse_headers else OK + raw)
            accepted.append(True)
        except HTTPException:
            accepted.append(False)

    assert accepted == [is_allowed, is_allowed]


@given(heads(), st.data())
def test_head_in_pieces_is_the_same_head(raw: bytes, data: st.DataObject) -> None:
    """However the connection splits it, and followed by a part of the body."""
    raw = b"HTTP/1.1 103 Early\r\n\r\n" + OK + raw + b"\r\nbody"
    decoder, whole = HeadDecoder(), HeadDecoder()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    try:
        expected = whole.feed(raw)
    except Malformed:
        with pytest.raises(Malformed):
            for piece in pieces:
                assert decoder.feed(piece) is None
        return
    heads = []
    while pieces and not heads:
        heads += [head for head in [decoder.feed(pieces.pop(0))] if head]

    assert heads == [expected]
    assert decoder.unread + b"".join(pieces) == whole.unread


def test_interim_responses_are_skipped() -> None:
    early = b"HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\n"

    assert read_head(early * 99 + OK + b"\r\n").status == 200
    with pytest.raises(Malformed):
        read_head(early * 100 + OK + b"\r\n")
    with pytest.raises(Malformed):
        read_head(b"HTTP/1.1 101 Switching\r\n\r\n" + OK + b"\r\n")


@pytest.mark.parametrize(
    "version, fields, is_last",
    [
        (b"1.1", [], False),
        (b"1.1", [("Connection", "Close")], True),
        (b"1.1", [("Connection", "keep-alive"), ("Connection", "close")], True),
        (b"1.0", [], True),
        (b"1.0", [("Connection", "Keep-Alive")], False),
        (b"1.0", [("Keep-Alive", "timeout=5")], False),
        (b"1.0", [("Proxy-Connection", "keep-alive")], False),
    ],
)
def test_connection_persistence_by_headers(version, fields, is_last) -> None:
    raw = b"HTTP/%b 200 OK\r\n" % version + lines(*fields) + b"\r\n"

    assert read_head(raw).is_last is is_last
