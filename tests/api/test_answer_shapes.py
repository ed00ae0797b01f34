"""Answers on the native way whose shape is not that of their endpoint, over HTTP."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Caller, events
from tests.upstream import (
    DONE,
    Answer,
    Upstream,
    closing_stream,
    completion,
    data,
    stream,
    whole,
)

TEXT = " Paris – of course."
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
COUNTED = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def natively(call: Callable[..., Caller]) -> Callable[..., Caller]:
    """Creates callers that reach *upstream* as *provider*, on its native way."""

    def make(upstream: Upstream, provider: str) -> Caller:
        caller = call(upstream)
        config = {"provider": provider, "api_key": "k", "via": "native"}
        caller.headers["x-portkey-config"] = json.dumps(config)
        del caller.headers["x-portkey-provider"]
        return caller

    return make


def streamed(response: Any) -> tuple[str, str | None, Any]:
    """Text, finish reason and usage of a stream, which ends regularly."""
    *chunks, done = events(response)
    assert done == "[DONE]"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    reasons = [c["finish_reason"] for c in choices if c["finish_reason"]]
    (reason,) = reasons
    return "".join(c["text"] for c in choices), reason, chunks[-1]["usage"]


def answered(response: Any) -> tuple[str, str | None, Any]:
    assert response.status_code == 200, response.json
    (choice,) = response.json["choices"]
    return choice["text"], choice["finish_reason"], response.json["usage"]


# Workers AI: what newer models answer to `/run`


def message(content: Any = TEXT, **more: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": content, **more}}


def piece(content: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content, **more}}
    return {"choices": [choice | {"finish_reason": finish}]}


RESULTS = {
    "message": {"choices": [message() | {"finish_reason": "length"}]},
    "empty text beside": {
        "choices": [message() | {"finish_reason": "length", "text": ""}]
    },
    "null response": {
        "response": None,
        "choices": [message() | {"finish_reason": "length"}],
    },
    "response beside": {
        "response": TEXT,
        "choices": [message(None) | {"finish_reason": "length"}],
    },
    "parts": {
        "choices": [
            message([{"type": "text", "text": TEXT}]) | {"finish_reason": "length"}
        ]
    },
    "reasoning": {
        "choices": [message(reasoning_content="Hm.") | {"finish_reason": "length"}]
    },
    "think tags": {
        "choices": [message(f"<think>Hm.</think>{TEXT}") | {"finish_reason": "length"}]
    },
    "no reason": {"choices": [message()]},
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "in a stream"])
def test_cloudflare_chat_has_its_text(natively, script, name, is_stream) -> None:
    """Also where a model answers a streamed request with one document."""
    result = RESULTS[name] | {"usage": USAGE}
    body = {"result": result, "success": True, "errors": [], "messages": []}
    caller = natively(script(whole(body)), "workers-ai")
    response = caller.complete(max_tokens=3, **(COUNTED if is_stream else {}))

    read = streamed if is_stream else answered
    assert read(response) == (TEXT, "length", USAGE)


STREAMS = {
    "deltas": [
        piece("", role="assistant"),
        piece(" Paris –"),
        piece(" of course."),
        piece("", "length"),
        {"choices": [], "usage": USAGE},
    ],
    "reason and usage with text": [
        piece(" Paris –"),
        piece(" of course.", "length") | {"usage": USAGE},
    ],
    "reasoning first": [
        piece("", reasoning_content="Hm."),
        piece(None, reasoning_content="So."),
        piece(TEXT),
        piece(None, "length"),
        {"response": "", "usage": USAGE},
    ],
    "think tags": [
        piece("<think>H"),
        piece("m.</thi"),
        piece(f"nk>{TEXT}"),
        piece("", "length") | {"usage": USAGE},
    ],
    "no reason": [piece(TEXT) | {"usage": USAGE}],
    "may be a think tag": [piece(" Paris – of course"), piece("."), {"usage": USAGE}],
}


@pytest.mark.parametrize("name", STREAMS)
def test_cloudflare_deltas_are_text(natively, script, name) -> None:
    steps = stream(*map(data, STREAMS[name]), DONE)
    caller = natively(script(steps), "workers-ai")

    assert streamed(caller.complete(max_tokens=3, **COUNTED)) == (TEXT, "length", USAGE)


def test_cloudflare_stream_without_done_is_cut(natively, script) -> None:
    steps = closing_stream(data(piece(" Paris")), data(piece("", "stop")))
    chunks = events(natively(script(steps), "workers-ai").complete(stream=True))

    assert "error" in chunks[-1]


def test_cloudflare_error_in_a_stream_is_its_own(natively, script) -> None:
    refused = {"success": False, "result": None, "errors": [{"message": "No route"}]}
    error = natively(script(whole(refused)), "workers-ai").complete(stream=True)

    assert error.status_code == 502 or error.status_code == 400
    assert "No route" in error.json["error"]["message"]


# Messages in place of texts


def openai_shaped(choice: dict[str, Any]) -> dict[str, Any]:
    return completion(choices=[choice | {"finish_reason": "length"}], usage=USAGE)


MESSAGES: dict[str, tuple[str, Any]] = {
    "vllm": ("vllm", openai_shaped(message())),
    "vllm, empty text": ("vllm", openai_shaped(message() | {"text": ""})),
    "vllm, delta": ("vllm", openai_shaped({"index": 0, "delta": {"content": TEXT}})),
    "llama.cpp": ("llama-cpp", openai_shaped(message())),
    "ollama": (
        "ollama",
        {
            "message": {"role": "assistant", "content": TEXT},
            "done": True,
            "done_reason": "length",
            "prompt_eval_count": 5,
            "eval_count": 3,
        },
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "in a stream"])
def test_message_on_native_way_is_text(natively, script, name, is_stream) -> None:
    provider, body = MESSAGES[name]
    answer = stream(data(body), DONE) if is_stream else whole(body)
    if is_stream and provider == "ollama":
        line = json.dumps(body).encode() + b"\n"
        answer = whole(line, content_type="application/x-ndjson")
    caller = natively(script(answer), provider)
    response = caller.complete(**(COUNTED if is_stream else {}))

    read = streamed if is_stream else answered
    assert read(response) == (TEXT, "length", USAGE)


# Bedrock: counts in headers

MISTRAL, TITAN = "mistral.mistral-7b-instruct-v0:2", "amazon.titan-text-express-v1"
OUTPUT = {"outputs": [{"text": TEXT, "stop_reason": "stop"}]}
RESULT = {"outputText": TEXT, "completionReason": "FINISH", "tokenCount": 2.0}
COUNTS = (
    "x-amzn-bedrock-input-token-count: 7",
    "X-Amzn-Bedrock-Output-Token-Count: 9",
)


def invoked(body: Any, *headers: str) -> Answer:
    return whole(body, 200, *headers)


@pytest.mark.parametrize(
    "model, body, headers, expected, estimated",
    [
        (MISTRAL, OUTPUT, COUNTS, (7, 9), False),
        (MISTRAL, OUTPUT, COUNTS[:1], (7, 6), True),
        (MISTRAL, OUTPUT, COUNTS[1:], (1, 9), True),
        (MISTRAL, OUTPUT, (), (1, 6), True),
        (MISTRAL, OUTPUT, ("x-amzn-bedrock-input-token-count: x",), (1, 6), True),
        (TITAN, {"inputTextTokenCount": 3.0, "results": [RESULT]}, (), (3, 2), False),
        (TITAN, {"inputTextTokenCount": 3, "results": [RESULT]}, COUNTS, (7, 9), False),
        (
            MISTRAL,
            OUTPUT,
            (*COUNTS, "x-amzn-bedrock-cache-read-input-token-count: 4"),
            (11, 9),
            False,
        ),
        (
            MISTRAL,
            {"choices": [message() | {"stop_reason": "stop"}]},
            COUNTS,
            (7, 9),
            False,
        ),
    ],
)
def test_bedrock_headers_count(
    natively, script, model, body, headers, expected, estimated
) -> None:
    caller = natively(script(invoked(body, *headers)), "bedrock")
    response = caller.complete(model=model)
    text, reason, usage = answered(response)

    assert (text, reason) == (TEXT, "stop")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == expected
    assert response.json.get("usage_estimated", False) is estimated


def test_bedrock_headers_of_parallel_calls_add_up(natively, script) -> None:
    """Each call is counted by its own headers."""

    def answer(request: Any) -> Answer:
        count = len(request.json["prompt"])
        return invoked(
            OUTPUT,
            f"x-amzn-bedrock-input-token-count: {count}",
            "x-amzn-bedrock-output-token-count: 2",
        )

    caller = natively(script(answer), "bedrock")
    prompts = ["a" * length for length in (1, 10, 100, 1000)]
    usage = caller.complete(model=MISTRAL, prompt=prompts, n=2).json["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1111, 16)
