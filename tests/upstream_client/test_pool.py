"""The pooled adapter, compared with urllib3 and requests."""

import time
from http.client import HTTPException
from typing import Any

import pytest
from requests import PreparedRequest, Response
from requests import exceptions as errors
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

from app.upstream.http1.pool import PooledAdapter, UpstreamPool, UpstreamTLSPool
from tests.upstream import Answer, ReceivedRequest, Upstream, chunk, close, head, whole

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
    sent = {"User-Agent": "x", "Accept-Encoding": "identity", **headers, **length}
    request.headers = CaseInsensitiveDict(sent)
    return request


def send(adapter: HTTPAdapter, request: PreparedRequest) -> Response:
    if isinstance(adapter, PooledAdapter):
        return adapter.send(request, timeout=5, until=time.monotonic() + 5)
    return adapter.send(request, stream=True, timeout=5)


def read_body(response: Response) -> tuple[bytes, bool, bool]:
    """The body, whether it is complete, and whether the connection is kept."""
    body, raw = b"", response.raw
    connection = raw._connection
    try:
        while piece := raw.read_block():
            body += piece
    except (HTTPException, OSError):
        raw.close()
        return body, False, False
    return body, True, raw.keeps_connection if connection else raw.keeps_connection


def read_body_with_urllib3(response: Response) -> tuple[bytes, bool]:
    """The body as urllib3 reads it, and whether it is complete."""
    body, raw = b"", response.raw
    try:
        while piece := raw.read1(65536, decode_content=True):
            body += piece
    except HTTPError:
        return body, False
    return body, True


@pytest.mark.parametrize("name", ANSWERS)
def test_body_is_read_as_urllib3_reads_it(script, name) -> None:
    upstream = script(*[ANSWERS[name]] * 2)
    ours = read_body(send(PooledAdapter(), prepared(upstream.url)))
    theirs = read_body_with_urllib3(send(HTTPAdapter(), prepared(upstream.url)))

    assert ours[:2] == theirs


@pytest.mark.parametrize("name", ANSWERS)
def test_connection_is_kept_after_clean_end_only(script, name) -> None:
    """After surplus bytes, a close, or no end, the connection is not reused."""
    upstream = script(*[ANSWERS[name]] * 2)
    adapter = PooledAdapter()
    for _ in range(2):
        *_, goes_on = read_body(send(adapter, prepared(upstream.url)))
        # Surplus bytes may arrive a moment later.
        time.sleep(0.02)

    clean = name in {"a length", "in pieces", "no body", "204", "chunks", "trailers"}
    assert goes_on or not clean
    assert upstream.opened == (1 if clean else 2)


@pytest.mark.parametrize("name", ANSWERS)
def test_connection_is_counted_before_its_return(script, name) -> None:
    """The pool may give it to another thread at once: it is not changed afterwards."""
    served: list[int] = []

    class Pool(UpstreamPool):
        def _put_conn(self, conn: Any) -> None:
            served.extend([conn.served] if conn else [])
            super()._put_conn(conn)

    class Adapter(PooledAdapter):
        pools = Pool, UpstreamTLSPool

    read_body(send(Adapter(), prepared(script(ANSWERS[name]).url)))

    assert served in ([1], [])


def test_unread_empty_response_keeps_its_connection(script) -> None:
    upstream = script(*[ANSWERS["204"]] * 2)
    adapter = PooledAdapter()
    for _ in range(2):
        send(adapter, prepared(upstream.url)).raw.close()

    assert upstream.opened == 1


def test_abandoned_response_closes_its_connection(script) -> None:
    upstream = script(*[ANSWERS["in pieces"]] * 2)
    adapter = PooledAdapter()
    for _ in range(2):
        raw = send(adapter, prepared(upstream.url)).raw
        raw.read_block()
        raw.close()

    assert upstream.opened == 2


def test_read_resumes_after_wake_up(script) -> None:
    """A timeout in the middle of a chunk's size or data loses nothing."""
    slow = [
        CHUNKED,
        b"1",
        0.2,
        b"0\r",
        0.2,
        b"\n01234567",
        0.2,
        b"89abcdef\r\n0\r\n\r\n",
    ]
    raw = send(PooledAdapter(), prepared(script(slow).url)).raw
    blocks: list[bytes | None] = []
    while (block := raw.read_block(time.monotonic() + 0.05)) != b"":
        blocks.append(block)

    assert blocks.count(None) >= 6
    assert b"".join(block for block in blocks if block) == b"0123456789abcdef"


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


@pytest.mark.parametrize("fields", REQUESTS)
def test_request_bytes_equal_those_of_requests(script, fields) -> None:
    upstream = script(*[whole(b"")] * 2)
    fields = dict(fields)
    url = upstream.url + fields.pop("path", "/v1")
    for adapter in (HTTPAdapter(), PooledAdapter()):
        send(adapter, prepared(url, **fields)).close()
    theirs, ours = upstream.requests

    assert comparable(theirs) == comparable(ours)


def comparable(request: ReceivedRequest) -> Any:
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
