"""The errors that callers get for each failure of an upstream.

Numbers are those of the cases in docs/contract.md.
"""

import threading
from typing import Any

import pytest

from tests.conftest import KEY, Caller
from tests.ports import free_port
from tests.upstream import (
    Answer,
    Upstream,
    close,
    completion,
    head,
    reset,
    wait_for,
    whole,
)


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.content_type == "application/json"
    assert set(response.json["error"]) == {"message", "type", "param", "code"}
    assert response.json["provider"] == "openai"
    error: dict[str, Any] = response.json["error"]
    return error


def test_83_upstream_error_keeps_status_and_message(call, script) -> None:
    sent = {
        "message": "Incorrect API key provided: sk-***.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    upstream = script(whole({"error": sent}, 401))

    assert error_of(call(upstream).complete(), 401) == sent
    assert len(upstream.requests) == 1


def test_83_key_quoted_by_upstream_is_hidden(call, script) -> None:
    upstream = script(whole({"error": {"message": f"Bad key {KEY}!"}}, 401))
    response = call(upstream).complete()

    assert KEY not in response.get_data(as_text=True)
    assert error_of(response, 401)["message"] == "Bad key [redacted]!"


def test_84_missing_model_error_is_relayed(call, script) -> None:
    gone = {
        "message": "The model `text-davinci-003` has been deprecated, learn more here",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }

    assert error_of(call(script(whole({"error": gone}, 404))).complete(), 404) == gone


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 502, 503, 529])
def test_89_every_error_status_is_kept(call, script, status: int) -> None:
    upstream = script(whole({"error": {"message": "boom", "param": "p"}}, status))
    error = error_of(call(upstream).complete(), status)

    assert (error["message"], error["param"]) == ("boom", "p")
    assert len(upstream.requests) == 1


SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "91 SGLang": (
        {"object": "error", "message": "m", "type": "BadRequest", "code": 400},
        {"message": "m", "type": "BadRequest", "param": None, "code": None},
    ),
    "92 TGI": (
        {"error": "m", "error_type": "validation"},
        {"message": "m", "type": "validation", "param": None, "code": None},
    ),
    "vLLM": (
        {
            "error": {
                "message": "m",
                "type": "BadRequestError",
                "param": "n",
                "code": 400,
            }
        },
        {"message": "m", "type": "BadRequestError", "param": "n", "code": None},
    ),
    "code of its own": (
        {"error": {"message": "m", "code": 40401}},
        {"message": "m", "type": "invalid_request_error", "param": None}
        | {"code": "40401"},
    ),
    "FastAPI": (
        {"detail": [{"loc": ["body", "n"], "msg": "too big"}, {"msg": "bad"}]},
        {"message": "body.n: too big; bad", "type": "invalid_request_error"}
        | {"param": None, "code": None},
    ),
    "detail": (
        {"detail": "m"},
        {"message": "m", "type": "invalid_request_error", "param": None, "code": None},
    ),
    "message": (
        {"message": "m", "id": "1"},
        {"message": "m", "type": "invalid_request_error", "param": None, "code": None},
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_91_92_any_error_gets_openais_shape(call, script, shape: str) -> None:
    sent, expected = SHAPES[shape]

    assert error_of(call(script(whole(sent, 400))).complete(), 400) == expected


@pytest.mark.parametrize("body", [{}, [], 5, "text", None, {"error": None}], ids=str)
def test_unreadable_errors_are_quoted(call, script, body: Any) -> None:
    error = error_of(call(script(whole(body, 503))).complete(), 503)

    assert "upstream answered 503" in error["message"]


@pytest.mark.parametrize("status", [502, 503])
def test_93_html_error_is_quoted_briefly(call, script, status) -> None:
    page = b"<html><h1>Bad\x00 Gateway\xff</h1>" + b"x" * 10_000
    upstream = script(whole(page, status, content_type="text/html"))
    error = error_of(call(upstream).complete(), status)

    assert "<html><h1>Bad" in error["message"]
    assert len(error["message"]) < 250
    assert error["message"].isprintable()


NO_COMPLETIONS: dict[str, Answer] = {
    "html": whole(b"<html>Welcome</html>", content_type="text/html"),
    "broken json": whole(b'{"id": "cmpl'),
    "empty": whole(b""),
    "array": whole([1]),
    "no choices": whole({"id": "x"}),
    "empty choices": whole(completion(choices=[])),
    "choices of text": whole(completion(choices=["a"])),
    "204": [head(204)],
    "deep": whole(b'{"choices": ' + b"[" * 300 + b"]" * 300 + b"}"),
    "binary": whole(bytes(range(256))),
    "events": whole(b'data: {"a": 1}\n\n', content_type="text/event-stream"),
}


@pytest.mark.parametrize("name", NO_COMPLETIONS)
def test_90_invalid_completion_is_bad_gateway(call, script, name) -> None:
    error = error_of(call(script(NO_COMPLETIONS[name])).complete(), 502)

    assert error["type"] == "server_error"
    assert len(error["message"]) < 300


def test_error_in_200_answer_is_an_error(call, script) -> None:
    upstream = script(whole({"error": {"message": "busy", "code": 503}}))

    assert error_of(call(upstream).complete(), 503)["message"] == "busy"


def test_redirects_are_not_followed(call, script, upstream: Upstream) -> None:
    elsewhere = whole(b"", 307, f"Location: {upstream.url}/completions")

    assert "307" in error_of(call(script(elsewhere)).complete(), 502)["message"]
    assert upstream.requests == []


# Case 90: no connection


def test_90_refused_connection_is_bad_gateway(caller: Caller) -> None:
    host = {"x-portkey-custom-host": f"http://127.0.0.1:{free_port()}"}
    error = error_of(caller.complete(headers=host), 502)

    assert error["message"] == "upstream refused the connection"


def test_90_unknown_host_is_bad_gateway(call, upstream: Upstream) -> None:
    caller = call(upstream, trusted_custom_hosts=("*.invalid",))
    host = {"x-portkey-custom-host": "http://nowhere.invalid"}

    assert "resolved" in error_of(caller.complete(headers=host), 502)["message"]


@pytest.mark.parametrize("step", [close, reset], ids=["close", "reset"])
def test_90_closed_connection_is_bad_gateway(call, script, step) -> None:
    upstream = script([step])
    error = error_of(call(upstream).complete(), 502)

    assert "without an answer" in error["message"]
    assert len(upstream.requests) == 1


def test_90_invalid_http_is_bad_gateway(call, script) -> None:
    error = error_of(call(script([b"SSH-2.0-OpenSSH\r\n", close])).complete(), 502)

    assert "not HTTP" in error["message"]


def test_90_http_instead_of_tls_is_bad_gateway(caller: Caller, upstream) -> None:
    host = {"x-portkey-custom-host": upstream.url.replace("http:", "https:")}

    error_of(caller.complete(headers=host), 502)


def test_90_truncated_body_is_bad_gateway(call, script) -> None:
    short = [head(200, "Content-Type: application/json", "Content-Length: 99"), b"{"]

    assert (
        "broke off"
        in error_of(call(script([*short, close])).complete(), 502)["message"]
    )


def test_endless_answer_is_cut(call, script) -> None:
    caller = call(script(whole(completion("x" * 100_000))), max_answer_bytes=50_000)

    assert "longer than 50000" in error_of(caller.complete(), 502)["message"]


# Timeouts


@pytest.mark.parametrize("stream", [False, True])
def test_request_timeout_is_portkeys_408(call, script, stream: bool) -> None:
    never = threading.Event()
    response = call(script([wait_for(never)])).complete(
        stream=stream, headers={"x-portkey-request-timeout": "150"}
    )
    never.set()

    assert response.status_code == 408
    assert response.json["error"] == {
        "message": "Request exceeded the timeout sent in the request: 150ms",
        "type": "timeout_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize("value", ["abc", "0", "-5", "nan", "inf", ""])
def test_invalid_timeout_sets_no_limit(caller: Caller, value: str) -> None:
    headers = {"x-portkey-request-timeout": value}

    assert caller.complete(headers=headers).status_code == 200


def test_first_byte_timeout_is_gateway_timeout(call, script) -> None:
    never = threading.Event()
    caller = call(script([wait_for(never)]), first_byte_timeout=0.15)
    error = error_of(caller.complete(), 504)
    never.set()

    assert "0.15 s" in error["message"]


def test_silent_answer_is_gateway_timeout(call, script) -> None:
    never = threading.Event()
    begun = [head(200, "Content-Length: 99", "Content-Type: application/json"), b"{"]
    caller = call(script([*begun, wait_for(never)]), idle_timeout=0.15)
    error = error_of(caller.complete(), 504)
    never.set()

    assert "fell silent" in error["message"]


# Stale connections


@pytest.mark.parametrize("step", [close, reset], ids=["close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
def test_stale_connection_is_retried_once(call, script, step, stream: bool) -> None:
    """The server reads the second request and closes without answering."""
    upstream = script(whole(completion()), [step], whole(completion()))
    caller = call(upstream)
    first, second = caller.complete(), caller.complete(stream=stream)

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.get_data()
    assert [request.connection for request in upstream.requests] == [1, 1, 2]
    assert upstream.requests[1].body == upstream.requests[2].body


def test_resent_calls_get_fresh_connections(call, script) -> None:
    """Also if the server keeps a connection open despite `Connection: close`."""
    hung_up = [whole(completion()), [close], whole(completion())]
    upstream = script(*hung_up, *hung_up)
    caller = call(upstream)

    assert [caller.complete().status_code for _ in range(4)] == [200] * 4
    assert [request.connection for request in upstream.requests] == [1, 1, 2, 3, 3, 4]


def test_fresh_connection_failure_is_reported(call, script) -> None:
    upstream = script(whole(completion()), [close], [close])
    caller = call(upstream)
    caller.complete()

    error_of(caller.complete(), 502)
    assert len(upstream.requests) == 3


def test_reset_after_first_byte_is_final(call, script) -> None:
    upstream = script(
        whole(completion()), [b"HTTP/1.1 200 OK\r\nContent-", 0.05, reset]
    )
    caller = call(upstream)
    caller.complete()

    error_of(caller.complete(), 502)
    assert len(upstream.requests) == 2


# Repairs of whole answers


def test_estimated_usage_is_marked(call, script) -> None:
    counted_by_nobody = completion("x" * 40)
    del counted_by_nobody["usage"]
    answer = call(script(whole(counted_by_nobody))).complete(prompt=["abcd", [1, 2]][0])

    assert answer.json["usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 10,
        "total_tokens": 11,
    }
    assert answer.json["usage_estimated"] is True


@pytest.mark.parametrize(
    "sent, due",
    [("", "stop"), (None, "stop"), ("eos", "stop"), ("max_tokens", "length")]
    + [("content_filter", "content_filter")],
)
def test_finish_reason_is_always_standard(call, script, sent, due) -> None:
    choice = {"text": "a", "index": 0, "logprobs": None, "finish_reason": sent}
    answer = call(script(whole(completion(choices=[choice])))).complete()

    assert answer.json["choices"][0]["finish_reason"] == due


def test_choices_have_all_fields(call, script) -> None:
    sent = completion(choices=[{"text": "a"}], id="", object="text.completion")
    answer = call(script(whole(sent))).complete().json

    assert answer["choices"] == [
        {"text": "a", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")


def test_gzipped_answer_is_decoded(call, script) -> None:
    import gzip

    body = gzip.compress(b'{"choices": [{"text": "zipped"}], "usage": {}}')
    answer = call(script(whole(body, 200, "Content-Encoding: gzip"))).complete()

    assert answer.json["choices"][0]["text"] == "zipped"
    assert "Content-Encoding" not in answer.headers


def test_corrupt_compression_is_bad_gateway(call, script) -> None:
    upstream = script(whole(b"not gzip", 200, "Content-Encoding: gzip"))

    error_of(call(upstream).complete(), 502)
