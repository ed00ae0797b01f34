"""Refusals of an upstream lead to a second call, and are remembered, over HTTP."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.conftest import Caller, events
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Upstream,
    completion,
    data,
    delta,
    frame,
    reply,
    stream,
    whole,
)

MAX_TOKENS = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead."
)
OLD_SERVER = "Unrecognized request argument supplied: max_completion_tokens"
CHAT_MODEL = "This is a chat model and not supported in the v1/completions endpoint."
STREAM_OPTIONS = "Unrecognized request argument supplied: stream_options"


def refused(message: str, status: int = 400, **fields: Any) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None}
    return whole({"error": error | {"code": None} | fields}, status)


def answered(request: ReceivedRequest) -> Answer:
    """A completion or a chat, whole or streamed, as the request has it."""
    chats = "messages" in request.json
    if not request.json.get("stream"):
        return whole(reply(" yes") if chats else completion(" yes"))
    piece = delta(" yes", "stop") if chats else frame(" yes", "stop")
    return stream(data(piece), DONE)


def lacks_max_tokens(request: ReceivedRequest) -> Answer:
    if "max_tokens" in request.json:
        fields = {"param": "max_tokens", "code": "unsupported_parameter"}
        return refused(MAX_TOKENS, **fields)
    return answered(request)


def lacks_max_completion_tokens(request: ReceivedRequest) -> Answer:
    if "max_completion_tokens" in request.json:
        return refused(OLD_SERVER)
    return answered(request)


def only_chats(request: ReceivedRequest) -> Answer:
    if "messages" not in request.json:
        return refused(CHAT_MODEL, 404)
    return answered(request)


def lacks_stream_options(request: ReceivedRequest) -> Answer:
    if "stream_options" in request.json:
        return refused(STREAM_OPTIONS)
    return answered(request)


@dataclass(frozen=True)
class Case:
    """A target whose upstream refuses something, and how that is seen in requests."""

    answer: Callable[[ReceivedRequest], Answer]
    target: dict[str, Any]
    refused_field: str
    accepted_field: str
    body: dict[str, Any]


CHAT = {"provider": "azure-openai", "via": "chat"}
CASES = {
    "max_tokens": Case(
        lacks_max_tokens, CHAT, "max_tokens", "max_completion_tokens", {"max_tokens": 7}
    ),
    "max_completion_tokens": Case(
        lacks_max_completion_tokens,
        CHAT | {"override_params": {"model": "gpt-4o"}},
        "max_completion_tokens",
        "max_tokens",
        {"max_tokens": 7},
    ),
    "chat": Case(only_chats, {"provider": "openai"}, "prompt", "messages", {}),
    "stream_options": Case(
        lacks_stream_options,
        {"provider": "openai"},
        "stream_options",
        "stream",
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
}
# The reverse is refused where the table of models names the newer parameter.
CASES["max_completion_tokens"].target["model_info"] = {
    "max_tokens": "max_completion_tokens"
}


def config(case: Case, upstream: Upstream, **fields: Any) -> dict[str, str]:
    target = {"custom_host": upstream.url, "api_key": "sk-of-the-target"}
    return {"x-portkey-config": json.dumps(target | case.target | fields)}


@pytest.fixture
def asking(call: Any) -> Callable[..., Caller]:
    def make(upstream: Upstream, case: Case, **changes: Any) -> Caller:
        caller: Caller = call(upstream, **changes)
        caller.headers.clear()
        caller.headers.update(config(case, upstream))
        return caller

    return make


def text(response: Any) -> str:
    if response.content_type.startswith("text/event-stream"):
        chunks = [chunk for chunk in events(response) if isinstance(chunk, dict)]
        return "".join(c["text"] for chunk in chunks for c in chunk["choices"])
    return "".join(choice["text"] for choice in response.json["choices"])


def refusals(upstream: Upstream, case: Case) -> list[bool]:
    """Of each request, whether it held what is refused."""
    return [case.refused_field in request.json for request in upstream.requests]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", CASES)
def test_refusal_is_learned_once(asking, script, name: str, streamed: bool) -> None:
    case = CASES[name]
    upstream = script(case.answer)
    caller = asking(upstream, case)
    body = {"stream": streamed} | case.body
    responses = [caller.complete(**body) for _ in range(3)]

    assert [(r.status_code, text(r)) for r in responses] == [(200, " yes")] * 3
    assert refusals(upstream, case) == [True, False, False, False]
    assert case.accepted_field in upstream.last.json


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "chat"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_batch_learns_refusal_once(asking, script, name: str, streamed: bool) -> None:
    case = CASES[name]
    upstream = script(case.answer)
    caller = asking(upstream, case, fanout=1)
    body = {"prompt": ["a", "b", "c"], "stream": streamed} | case.body
    if name == "chat":
        # Or all prompts are in one call.
        case = replace(case, target=case.target | {"provider": "deepseek"})
        caller = asking(upstream, case, fanout=1)
    responses = [caller.complete(**body) for _ in range(2)]

    assert [text(response) for response in responses] == [" yes" * 3] * 2
    assert refusals(upstream, case) == [True, *[False] * 6]


def test_concurrent_requests_all_succeed(asking, script) -> None:
    case = CASES["max_tokens"]
    upstream = script(case.answer)
    caller = asking(upstream, case)
    together = threading.Barrier(8)

    def ask(_: int) -> Any:
        together.wait(10)
        return caller.complete(**case.body)

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(ask, range(8)))
    before = len(upstream.requests)
    caller.complete(**case.body)

    assert [text(response) for response in responses] == [" yes"] * 8
    assert refusals(upstream, case)[before:] == [False]


def test_both_limits_refused_is_an_error(asking, script) -> None:
    case = CASES["max_tokens"]

    def refuse_both(request: ReceivedRequest) -> Answer:
        (name,) = {"max_tokens", "max_completion_tokens"} & set(request.json)
        return refused(f"Unsupported parameter: '{name}'.")

    upstream = script(refuse_both)
    responses = [asking(upstream, case).complete(**case.body) for _ in range(2)]

    assert [response.status_code for response in responses] == [400, 400]
    assert "max_completion_tokens" in responses[0].json["error"]["message"]
    assert refusals(upstream, case) == [True, False] * 2


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 5000. This model supports at most 4096.",
        "Invalid 'max_tokens': integer below minimum value.",
        "Could not finish the message because max_tokens was reached.",
    ],
)
def test_refused_value_is_not_retried(asking, script, message: str) -> None:
    case = CASES["max_tokens"]
    upstream = script(refused(message, param="max_tokens", code="invalid_value"))
    response = asking(upstream, case).complete(**case.body)

    assert response.status_code == 400 and len(upstream.requests) == 1


def test_second_failure_teaches_nothing(asking, script) -> None:
    case = CASES["chat"]
    failing = [True]

    def answer(request: ReceivedRequest) -> Answer:
        if "messages" in request.json and failing:
            failing.clear()
            return refused("no such model", 404)
        return only_chats(request)

    upstream = script(answer)
    caller = asking(upstream, case)
    first, second = caller.complete(), caller.complete()

    assert (first.status_code, second.status_code) == (404, 200)
    assert refusals(upstream, case) == [True, False, True, False]


# Hosts without a version


@pytest.mark.parametrize("prefix", ["", "/openai", "/a/b/"])
@pytest.mark.parametrize(
    "unknown", [whole({"detail": "Not Found"}, 404), whole({}, 405)]
)
def test_host_without_version_is_learned(
    asking, script, prefix: str, unknown: Answer
) -> None:
    """A server at which nothing is below /v1: what worked before goes on to work."""

    def answer(request: ReceivedRequest) -> Answer:
        return unknown if "/v1/" in request.path else answered(request)

    upstream = script(answer)
    host = upstream.url.removesuffix("/v1") + prefix
    headers = config(CASES["chat"], upstream, custom_host=host)
    caller = asking(upstream, CASES["chat"])
    responses = [caller.complete(headers=headers) for _ in range(2)]

    base = prefix.rstrip("/")
    assert [text(response) for response in responses] == [" yes"] * 2
    assert [request.path for request in upstream.requests] == [
        f"{base}/v1/completions",
        *[f"{base}/completions"] * 2,
    ]


@pytest.mark.parametrize(
    "host, error",
    [
        ("", {"message": "The model `m` does not exist", "code": "model_not_found"}),
        ("/v1", {"message": "Not Found"}),
        ("/completions", {"message": "Not Found"}),
    ],
)
def test_missing_model_or_path_is_final(
    asking, script, host: str, error: dict[str, Any]
) -> None:
    upstream = script(whole({"error": error}, 404))
    url = upstream.url.removesuffix("/v1") + host
    headers = config(CASES["chat"], upstream, custom_host=url)
    response = asking(upstream, CASES["chat"]).complete(headers=headers)

    assert response.status_code == 404 and len(upstream.requests) == 1


# Whose calls a refusal concerns


@pytest.mark.parametrize(
    "other",
    [
        {"api_key": "sk-of-another"},
        {"override_params": {"model": "another"}},
        {"azure_deployment_id": "another"},
        {"custom_host": "/another/v1"},
        {"forward_headers": ["x-tenant"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_other_deployments_are_asked_themselves(
    asking, script, other: dict[str, Any]
) -> None:
    case = CASES["max_tokens"]
    upstream = script(case.answer)
    caller = asking(upstream, case)
    caller.complete(**case.body)
    host = other.get("custom_host")
    if host:
        other = {"custom_host": upstream.url.removesuffix("/v1") + host}
    headers = config(case, upstream, **other) | {"x-tenant": "another"}
    caller.complete(headers=headers, **case.body)

    assert refusals(upstream, case) == [True, False] * 2


@pytest.mark.parametrize("field", ["prompt", "user", "stop", "metadata"])
def test_quoted_words_teach_others_nothing(asking, script, field: str) -> None:
    """An error that may quote the request leads to another try, and is forgotten."""
    case = CASES["chat"]
    value: Any = {"x": CHAT_MODEL} if field == "metadata" else CHAT_MODEL

    def answer(request: ReceivedRequest) -> Answer:
        if "messages" not in request.json and CHAT_MODEL in json.dumps(request.json):
            return refused(f"Invalid input: {CHAT_MODEL}")
        return answered(request)

    upstream = script(answer)
    caller = asking(upstream, case)
    quoting = caller.complete(**{field: value})
    other = caller.complete()

    assert (quoting.status_code, text(other)) == (200, " yes")
    assert refusals(upstream, case) == [True, False, True]


def test_callers_extension_teaches_others_nothing(asking, script) -> None:
    case = CASES["stream_options"]

    def answer(request: ReceivedRequest) -> Answer:
        if "x" in request.json.get("stream_options", {}):
            return refused("Unknown parameter: 'stream_options.x'.")
        return answered(request)

    upstream = script(answer)
    caller = asking(upstream, case)
    options = {"include_usage": True, "x": 1}
    extended = caller.complete(stream=True, stream_options=options)
    plain = caller.complete(**case.body)

    assert (text(extended), text(plain)) == (" yes", " yes")
    assert refusals(upstream, case) == [True, False, True]
