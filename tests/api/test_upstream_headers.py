"""Headers of an upstream's answer: invalid ones are dropped, and the answer is kept."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.conftest import Caller, events
from tests.upstream import DONE, close, completion, data, frame, stream, whole

# What gunicorn accepts. Source: TOKEN_RE and HEADER_VALUE_RE of gunicorn 27.
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-zA-Z]+")
VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

Call = Callable[..., Caller]

UNFIT = {
    "a name with a bracket": b"openai-x(y: 1",
    "a name with a slash": b"x-ratelimit-a/b: 1",
    "a name with quotes": b'openai-"a": 1',
    "a name with @": b"openai-a@b: 1",
    "a control of Latin-1": b"openai-a: b\x85c",
    "a tab": b"openai-a: b\tc",
    "a long value": b"openai-a: " + b"x" * 4097,
    "a long name": b"openai-" + b"x" * 200 + b": 1",
}
FIT = {
    "Latin-1": b"openai-a: caf\xe9",
    "empty": b"openai-a: ",
    "all marks": b"openai-!#$%&'*+-.^_`|~: !#$%&'*+-.^_`|~",
    "quite long": b"openai-a: " + b"x" * 4096,
    "x-request-id": b"X-Request-Id: abc",
}


def with_header(line: bytes, answer: bytes) -> bytes:
    first, _, rest = answer.partition(b"\r\n")
    return first + b"\r\n" + line + b"\r\n" + rest


def assert_sendable(response: Any) -> None:
    headers = list(response.headers)
    assert all(TOKEN.fullmatch(name) for name, _ in headers)
    assert all(VALUE.fullmatch(value) for _, value in headers)
    assert sum(len(name) + len(value) for name, value in headers) < 40_000


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("name", UNFIT)
def test_invalid_headers_are_left_out(
    call: Call, script: Any, name: str, status: int
) -> None:
    (good,) = whole(completion() if status == 200 else {"error": {}}, status)
    response = call(script([with_header(UNFIT[name], good)])).complete()

    assert response.status_code == status
    assert_sendable(response)
    header = UNFIT[name].partition(b":")[0].decode("latin-1").lower()
    assert header not in response.headers


@pytest.mark.parametrize("name", FIT)
def test_valid_headers_are_passed_on(call: Call, script: Any, name: str) -> None:
    (good,) = whole(completion())
    response = call(script([with_header(FIT[name], good)])).complete()

    header, _, value = FIT[name].decode("latin-1").partition(": ")
    assert response.headers[header] == value
    assert_sendable(response)


def test_passed_on_headers_are_bounded(call: Call, script: Any) -> None:
    """The headers fit a proxy that accepts 64 KiB."""
    lines = [f"openai-{number}: {'x' * 4000}" for number in range(80)]
    (good,) = whole(completion(), 200, *lines)
    response = call(script([good])).complete()

    assert response.status_code == 200
    assert_sendable(response)
    short = [f"openai-{number}: x" for number in range(80)]
    response = call(script(whole(completion(), 200, *short))).complete()
    assert sum(name.startswith("openai-") for name, _ in response.headers) == 32


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"openai-", b"x-ratelimit-", b"retry-after", b"x-a", b""]),
        st.binary(max_size=6),
        st.sampled_from([b":", b": ", b" : ", b""]),
        st.binary(max_size=12),
    ).map(b"".join),
    max_size=4,
).filter(lambda lines: not any(b"\n" in line or not line for line in lines))


@examples(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=HEADERS, streams=st.booleans(), status=st.sampled_from([200, 429]))
def test_random_headers_lose_no_answer(
    call: Call, script: Any, lines: list[bytes], streams: bool, status: int
) -> None:
    """Either the head is not HTTP, which is a 502; or the answer comes through."""
    ok = stream(data(frame("x", "stop")), DONE) if streams else whole(completion())
    answer = b"".join(step for step in ok if isinstance(step, bytes))
    if status != 200:
        answer = whole({"error": {"message": "m"}}, status)[0]  # type: ignore
    answer = with_header(b"\r\n".join(lines), answer) if lines else answer
    caller = call(script([answer, close]), first_byte_timeout=5)
    response = caller.complete(stream=streams)
    text = response.get_data()
    response.close()

    assert response.status_code in (status, 502)
    assert_sendable(response)
    if response.status_code == 502:
        assert b"upstream" in text
    elif status == 200 and streams:
        assert events(response)[-1] == "[DONE]"
    elif status == 200:
        assert response.json == completion()


def test_cached_headers_are_checked(call: Call, script: Any, tmp_path: Any) -> None:
    """A cache entry may have been written by another version."""
    (good,) = whole(completion())
    caller = call(script([with_header(b"openai-model: a\x85b", good)]))
    caller.headers["x-portkey-config"] = '{"cache": {"mode": "simple"}}'
    first, again = caller.complete(), caller.complete()

    assert again.headers["x-portkey-cache-status"] == "HIT"
    for response in (first, again):
        assert "openai-model" not in response.headers


def test_model_list_headers_are_checked(call: Call, script: Any) -> None:
    listed = {"object": "list", "data": []}
    (good,) = whole(listed)
    caller = call(script([with_header(b"openai-x(y: 1", good)]))
    response = caller.get("/v1/models")

    assert response.status_code == 200
    assert_sendable(response)


def test_long_attempt_lists_fit_into_headers(call: Call, script: Any) -> None:
    """The path of a target is as long as the config is deep."""
    upstream = script(whole({"error": {}}, 500))
    target: Any = {"provider": "openai", "api_key": "k", "custom_host": upstream.url}
    config: Any = {"strategy": {"mode": "fallback"}, "targets": [target] * 40}
    for _ in range(14):
        config = {"strategy": {"mode": "fallback"}, "targets": [config]}
    caller = call(upstream)
    caller.headers = {"x-portkey-config": json.dumps(config)}
    response = caller.complete()

    assert response.status_code == 500
    assert_sendable(response)
    assert all(len(value) < 4200 for _, value in response.headers)
