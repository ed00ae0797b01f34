"""The adapter: the short ways of it, against the long ones of urllib3 and requests."""

import time
from typing import Any

import pytest
from requests import PreparedRequest, Response
from requests import exceptions as errors
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from app.upstream.http1 import pool as module
from app.upstream.http1.connection import due
from app.upstream.http1.pool import PooledAdapter
from tests.upstream import Answer, Seen, Upstream, chunk, close, head, whole

BODY = b"0123456789" * 2000
CHUNKED = head(200, "Transfer-Encoding: chunked")
ANSWERS: dict[str, Answer] = {
    "a length": whole(BODY),
    "in pieces": [head(200, f"Content-Length: {len(BODY)}"), BODY[:9], 0.05, BODY[9:]],
    "no body": whole(b""),
    "204": [head(204)],
    "chunks": [CHUNKED, chunk(BODY[:5]), 0.05, chunk(BODY[5:]), b"0\r\n\r\n"],
    "trailers": [CHUNKED, chunk(BODY), b"0\r\nA: b\r\n\r\n"],
    "until closed": [head(200, "Connection: close"), BODY, close],
    "too short": [head(200, "Content-Length: 9"), b"12345", close],
    "a cut chunk": [CHUNKED, chunk(BODY)[:-9], close],
    "no last chunk": [CHUNKED, chunk(BODY), close],
    "a bad chunk": [CHUNKED, b"x\r\n", close],
    "surplus": [*whole(BODY), b"more"],
}


def prepared(url: str, body: bytes = b"{}", **headers: str) -> PreparedRequest:
    request = PreparedRequest()
    request.method, request.url, request.body = "POST", url, body
    length = {"Content-Length": str(len(body))}
    headers = {"User-Agent": "x", "Accept-Encoding": "identity", **headers, **length}
    request.headers = CaseInsensitiveDict(headers)
    return request


def send(adapter: HTTPAdapter, request: PreparedRequest) -> Response:
    with due(time.monotonic() + 5):
        return adapter.send(request, stream=True, timeout=5)


def read_body(response: Response) -> tuple[bytes, type[Exception] | None, bool]:
    """What is read of it, what ends that, and whether its connection goes on."""
    body, raw = b"", response.raw
    connection = raw.connection
    try:
        while piece := raw.read1(65536, decode_content=True):
            body += piece
    except HTTPError as e:
        return body, type(e), connection.sock is not None
    assert raw.isclosed() and raw.connection is None
    return body, None, connection.sock is not None


@pytest.mark.parametrize("name", ANSWERS)
def test_identity_body_reads_like_urllib3(script, monkeypatch, name) -> None:
    upstream = script(*[ANSWERS[name]] * 2)
    plain = read_body(send(PooledAdapter(), prepared(upstream.url)))
    monkeypatch.setattr(module, "IdentityBody", module.decoded_body)

    assert plain == read_body(send(PooledAdapter(), prepared(upstream.url)))


def test_abandoned_response_closes_its_connection(script) -> None:
    upstream = script(*[ANSWERS["in pieces"]] * 2)
    adapter = PooledAdapter()
    for _ in range(2):
        raw = send(adapter, prepared(upstream.url)).raw
        raw.read1(5)
        raw.close()
        raw.release_conn()

    assert upstream.opened == 2


REQUESTS: list[dict[str, Any]] = [
    {},
    {"path": "/a b?c=d e&f=%20#g"},
    {"path": "/\xe4?\u0394"},
    {"path": "/" + "a" * 2000},
    {"body": b""},
    {"body": b"x" * 200_000},
    {"Host": "elsewhere"},
    {"Host": ""},
    {"host": "elsewhere:1"},
    {"X-A": "\xe4 b", "x-b": "  c "},
]


@pytest.mark.parametrize("headers", REQUESTS)
def test_request_bytes_equal_those_of_requests(script, headers) -> None:
    upstream = script(*[whole(b"")] * 2)
    headers = dict(headers)
    url = upstream.url + headers.pop("path", "/v1")
    for adapter in (HTTPAdapter(), PooledAdapter()):
        send(adapter, prepared(url, **headers)).close()
    theirs, ours = upstream.requests

    assert essence(theirs) == essence(ours)


def essence(request: Seen) -> Any:
    return request.path, sorted(request.headers.items()), request.body


@pytest.mark.parametrize("url", ["http://", "http:///a", "ftp://a", "http://a:b/", "a"])
def test_malformed_url_is_invalid(url) -> None:
    with pytest.raises(errors.InvalidURL):
        send(PooledAdapter(), prepared(url))


@pytest.mark.parametrize("field", [("A", "b\r\nC: d"), ("A\n", "b"), ("A", "\u0394")])
def test_malformed_header_is_not_sent(upstream, field) -> None:
    with pytest.raises(errors.InvalidHeader):
        send(PooledAdapter(), prepared(upstream.url, **dict([field])))

    assert upstream.opened == 0


def test_closed_idle_connection_is_replaced(script) -> None:
    upstream: Upstream = script([*whole(BODY), close], whole(BODY))
    adapter = PooledAdapter()
    read_body(send(adapter, prepared(upstream.url)))
    time.sleep(0.05)

    assert read_body(send(adapter, prepared(upstream.url)))[0] == BODY
    assert upstream.opened == 2
