"""One request format for every provider, over HTTP: batches, bridges, suffixes.

Numbers are those of the cases in docs/contract.md.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.conftest import Caller, events
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Step,
    Upstream,
    close,
    completion,
    cut_stream,
    data,
    delta,
    frame,
    head,
    reply,
    stream,
    until_closed,
    whole,
)

Bridge = Callable[..., Caller]


@pytest.fixture
def asking(call: Callable[..., Caller]) -> Bridge:
    """Creates callers that reach *upstream* by provider name, or by a target."""

    def make(upstream: Upstream, provider: str = "groq", **target: Any) -> Caller:
        caller = call(upstream)
        if target:
            key = {"provider": provider, "api_key": "sk-of-the-target"}
            caller.headers["x-portkey-config"] = json.dumps(key | target)
            del caller.headers["x-portkey-provider"]
        else:
            caller.headers["x-portkey-provider"] = provider
        return caller

    return make


def prompt_of(request: ReceivedRequest) -> str:
    """The prompt of an upstream request, in the legacy or the chat format."""
    body = request.json
    text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    assert isinstance(text, str)
    return text


def parrot(request: ReceivedRequest) -> Answer:
    """A chat that answers `a` with `A`."""
    choices = [
        reply(prompt_of(request).upper())["choices"][0] | {"index": i}
        for i in range(request.json.get("n", 1))
    ]
    return whole(reply(choices=choices))


def streaming_parrot(request: ReceivedRequest) -> Answer:
    """The same in pieces: a role, each letter, the reason, the usage."""
    letters = [data(delta(letter)) for letter in prompt_of(request).upper()]
    counted = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    last = data(delta() | {"choices": [], "usage": counted})
    opening = data(delta("", role="assistant"))
    return stream(opening, *letters, data(delta(finish="stop")), last, DONE)


def texts(body: dict[str, Any]) -> list[str]:
    assert [c["index"] for c in body["choices"]] == list(range(len(body["choices"])))
    return [choice["text"] for choice in body["choices"]]


def texts_by_index(chunks: Sequence[Any]) -> dict[int, str]:
    """The text of each choice of a stream; its format is asserted as well."""
    *frames, done = chunks
    assert done == "[DONE]"
    result: dict[int, str] = {}
    ended: list[int] = []
    for choice in (choice for f in frames for choice in f["choices"]):
        assert choice["index"] not in ended
        result[choice["index"]] = result.get(choice["index"], "") + choice["text"]
        ended += [choice["index"]] if choice["finish_reason"] else []
    assert sorted(ended) == sorted(result)
    assert all(len(f["choices"]) == 1 for f in frames if f["choices"])
    assert len({(f["id"], f["created"], f["object"]) for f in frames}) == 1
    return result


# Batches


def until(upstream: Upstream, count: int) -> Callable[[Any], None]:
    """A step that waits until *count* requests have arrived."""

    def step(_: Any) -> None:
        limit = time.monotonic() + 10
        while len(upstream.requests) < count and time.monotonic() < limit:
            time.sleep(0.002)

    return step


def test_36_batch_is_one_chat_per_prompt(asking, script) -> None:
    second_is_done = threading.Event()

    def answer(request: ReceivedRequest) -> Answer:
        if prompt_of(request) == "a":
            return [lambda _: second_is_done.wait(10) and None, *parrot(request)]
        return [*parrot(request), lambda _: second_is_done.set()]

    upstream = script(answer)
    response = asking(upstream).complete(prompt=["a", "b"])

    assert texts(response.json) == ["A", "B"]
    assert sorted(
        request.json["messages"][0]["content"] for request in upstream.requests
    ) == [
        "a",
        "b",
    ]
    assert all(len(request.json["messages"]) == 1 for request in upstream.requests)
    assert response.headers["x-lastword-via"] == "chat"


@pytest.mark.parametrize(
    "provider, calls", [("openai", 2), ("groq", 4)], ids=["takes n", "does not"]
)
def test_37_choices_share_one_call_if_supported(
    asking, script, provider: str, calls: int
) -> None:
    upstream = script(parrot)
    caller = asking(upstream, provider, via="chat", custom_host=upstream.url)
    response = caller.complete(prompt=["a", "b"], n=2)

    assert texts(response.json) == ["A", "A", "B", "B"]
    assert len(upstream.requests) == calls
    assert {request.json.get("n", 1) for request in upstream.requests} == {4 // calls}


def test_38_failing_call_fails_and_ends_batch(asking, script) -> None:
    """Also calls that the upstream has not begun to answer."""

    def answer(request: ReceivedRequest) -> Answer:
        if prompt_of(request) == "b":
            error = {"error": {"message": "no such luck", "code": "unlucky"}}
            return [until(upstream, 3), *whole(error, 418)]
        return [until_closed]

    upstream = script(answer)
    response = asking(upstream).complete(prompt=["a", "b", "c"])

    assert response.status_code == 418
    assert response.json["error"]["message"] == "no such luck"
    assert "choices" not in response.json
    assert upstream.wait_closed(but=1)


def test_38_retries_precede_batch_failure(asking, script) -> None:
    busy = whole({"error": {"message": "busy"}}, 503)
    upstream = script(busy, parrot)
    caller = asking(upstream, retry={"attempts": 1}, custom_host=upstream.url)
    response = caller.complete(prompt=["a"], n=1)

    assert texts(response.json) == ["A"]
    assert response.headers["x-portkey-retry-attempt-count"] == "1"


def test_39_usage_counts_each_prompt_once(asking, script) -> None:
    upstream = script(parrot)
    usage = asking(upstream).complete(prompt=["a", "b"], n=2).json["usage"]

    assert usage == {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}


def test_batch_calls_run_in_parallel(asking, script) -> None:
    """The upstream answers when all calls have arrived; sequential calls would hang."""
    upstream = script(lambda request: [until(upstream, 8), *parrot(request)])
    response = asking(upstream).complete(prompt=list("abcdefgh"))

    assert texts(response.json) == list("ABCDEFGH")


def test_fanout_bounds_parallel_calls(call, script) -> None:
    running, most = [0], [0]
    lock = threading.Lock()

    def answer(request: ReceivedRequest) -> Answer:
        def count(by: int) -> Callable[[Any], None]:
            def step(_: Any) -> None:
                with lock:
                    running[0] += by
                    most[0] = max(most[0], running[0])

            return step

        return [count(1), 0.02, count(-1), *parrot(request)]

    caller = call(script(answer), fanout=3)
    caller.headers["x-portkey-provider"] = "groq"
    assert texts(caller.complete(prompt=["x"] * 9).json) == ["X"] * 9
    assert most[0] == 3


@pytest.mark.parametrize(
    "provider, answer",
    [
        ("ollama", {"response": "X", "done": True, "eval_count": 1}),
        ("together-ai", completion("X")),
        ("sambanova", completion("X")),
        ("llama-cpp", completion("X")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_40_41_single_prompt_provider_is_called_per_prompt(
    asking, script, provider: str, answer: Any
) -> None:
    upstream = script(whole(answer))
    response = asking(upstream, provider).complete(prompt=["a", "b"])

    assert texts(response.json) == ["X", "X"]
    assert sorted(map(prompt_of, upstream.requests)) == ["a", "b"]
    assert response.json["usage"]["total_tokens"] > 0


def test_41_batch_usage_is_summed(asking, script) -> None:
    upstream = script(whole(completion("X")))
    usage = asking(upstream, "llama-cpp").complete(prompt=["a", "b"]).json["usage"]

    assert usage == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}


@pytest.mark.parametrize("prompt", [[5, 6], [[5], [6, 7]]], ids=str)
def test_35_chat_refuses_token_ids(asking, script, prompt: Any) -> None:
    upstream = script(parrot)
    error = asking(upstream).complete(prompt=prompt)

    assert error.status_code == 400
    assert error.json["error"]["param"] == "prompt"
    assert "groq" in error.json["error"]["message"]
    assert upstream.requests == []


def test_35_token_ids_fall_back_to_supporting_target(call, script) -> None:
    chats, completes = script(parrot), script(whole(completion()))
    caller = call(chats)
    for name in ("x-portkey-provider", "x-portkey-custom-host"):
        del caller.headers[name]
    targets = [
        {"provider": "groq", "api_key": "k", "custom_host": chats.url},
        {"provider": "vllm", "custom_host": completes.url},
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    response = caller.complete(
        prompt=[5, 6], headers={"x-portkey-config": json.dumps(config)}
    )

    assert response.status_code == 200
    assert response.headers["x-portkey-last-used-option-index"] == "config.targets[1]"
    assert chats.requests == [] and completes.last.json["prompt"] == [5, 6]


@pytest.mark.parametrize("prompt", ["", " \n", None], ids=repr)
def test_chat_refuses_blank_prompt(asking, script, prompt: Any) -> None:
    upstream = script(parrot)
    error = asking(upstream).complete(prompt=prompt)

    assert error.status_code == 400 and error.json["error"]["param"] == "prompt"
    assert upstream.requests == []


# Streams


def test_68_streamed_batch_is_one_stream(asking, script) -> None:
    upstream = script(streaming_parrot)
    caller = asking(upstream)
    chunks = events(
        caller.complete(
            prompt=["one", "two"],
            n=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert texts_by_index(chunks) == {0: "ONE", 1: "ONE", 2: "TWO", 3: "TWO"}
    *frames, last, _ = chunks
    assert {frame_["usage"] for frame_ in frames} == {None} and last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 8,
        "completion_tokens": 8,
        "total_tokens": 16,
    }
    assert {f["object"] for f in frames} == {"text_completion"}


def test_63_bridged_stream_has_no_unrequested_usage(asking, script) -> None:
    upstream = script(streaming_parrot)
    chunks = events(asking(upstream).complete(prompt="a", stream=True))

    assert texts_by_index(chunks) == {0: "A"}
    assert all("usage" not in chunk for chunk in chunks if chunk != "[DONE]")
    # Usage is requested all the same: it is needed for charging.
    assert upstream.last.json["stream_options"] == {"include_usage": True}


def test_67_choices_of_one_chat_are_split(asking, script) -> None:
    both = delta("A")
    both["choices"] = [*both["choices"], *delta("B", index=1)["choices"]]
    ends = [data(delta(finish="stop", index=i)) for i in (1, 0)]
    upstream = script(stream(data(both), *ends, DONE))
    caller = asking(upstream, "openai", via="chat", custom_host=upstream.url)
    chunks = events(caller.complete(prompt="a", n=2, stream=True))

    assert texts_by_index(chunks) == {0: "A", 1: "B"}


@pytest.mark.parametrize("n", [1, 2])
def test_69_echo_comes_first_per_index(asking, script, n: int) -> None:
    upstream = script(streaming_parrot)
    chunks = events(asking(upstream).complete(prompt="ab", n=n, echo=True, stream=True))

    assert texts_by_index(chunks) == dict.fromkeys(range(n), "abAB")
    assert all(first_of(chunks, i).startswith("ab") for i in range(n))


def first_of(chunks: Sequence[Any], index: int) -> str:
    result = (c for chunk in chunks[:-1] for c in chunk["choices"])
    return str(next(c["text"] for c in result if c["index"] == index))


def test_108_roles_and_thoughts_are_not_text(asking, script) -> None:
    steps = [
        data(delta("", role="assistant")),
        data(delta(reasoning_content="Let me think.")),
        data(delta(reasoning="And again.")),
        data(delta("<think>aloud")),
        data(delta(" as well</think>\n\nYes")),
        data(delta(".", "stop")),
    ]
    chunks = events(asking(script(stream(*steps, DONE))).complete(stream=True))

    assert texts_by_index(chunks) == {0: "Yes."}
    assert len(chunks) == 3


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]], ids=["one", "batch"])
def test_75_truncated_bridged_stream_ends_in_error(asking, script, prompt: Any) -> None:
    upstream = script(cut_stream(data(delta("so far"))))
    chunks = events(asking(upstream).complete(prompt=prompt, stream=True))

    assert "[DONE]" not in chunks
    assert chunks[-1]["error"]["type"] == "server_error"
    assert chunks[-1]["provider"] == "groq"


def test_76_chat_without_finish_reason_fails(asking, script) -> None:
    upstream = script(stream(data(delta("so far")), DONE))
    chunks = events(asking(upstream).complete(stream=True))

    assert "[DONE]" not in chunks and "error" in chunks[-1]


def test_78_hang_up_cancels_all_batch_calls(asking, script) -> None:
    def endless(request: ReceivedRequest) -> Answer:
        return stream(*[data(delta("x")), 0.02] * 500)

    upstream = script(endless)
    response = asking(upstream).complete(prompt=["a", "b", "c"], stream=True)
    next(response.iter_encoded())
    response.close()

    assert upstream.wait_closed()


def test_65_stream_options_are_dropped_if_unsupported(asking, script) -> None:
    refusal = {"error": {"message": "Unknown field: stream_options"}}
    upstream = script(whole(refusal, 400), stream(data(delta("A", "stop")), DONE))
    caller = asking(upstream)
    chunks = events(
        caller.complete(prompt="a", stream=True, stream_options={"include_usage": True})
    )

    assert texts_by_index(chunks) == {0: "A"}
    assert chunks[-2]["usage_estimated"] is True
    assert ["stream_options" in request.json for request in upstream.requests] == [
        True,
        False,
    ]


def test_65_missing_usage_is_estimated(asking, script) -> None:
    upstream = script(stream(data(frame("Hello", "stop")), DONE))
    chunks = events(
        asking(upstream, "vllm").complete(
            stream=True, stream_options={"include_usage": True}
        )
    )

    assert chunks[-2]["usage"]["total_tokens"] > 0
    assert chunks[-2]["usage_estimated"] is True and chunks[-2]["choices"] == []


# The bridge


def test_100_prompt_is_the_only_message(asking, script) -> None:
    upstream = script(parrot)
    asking(upstream).complete(prompt="Once  upon \n", max_tokens=5, temperature=0)

    assert upstream.last.path == "/v1/chat/completions"
    assert upstream.last.json == {
        "model": "m",
        "messages": [{"role": "user", "content": "Once  upon \n"}],
        "max_tokens": 5,
        "temperature": 0,
    }


def test_100_target_may_set_system_and_template(asking, script) -> None:
    upstream = script(parrot)
    bridge = {"system": "Continue.", "template": "Text: {prompt}{x}"}
    caller = asking(upstream, bridge=bridge, custom_host=upstream.url)
    caller.complete(prompt="{prompt} $& \\1")

    assert upstream.last.json["messages"] == [
        {"role": "system", "content": "Continue."},
        {"role": "user", "content": "Text: {prompt} $& \\1{x}"},
    ]


def test_101_reasoning_model_gets_token_floor(asking, script) -> None:
    upstream = script(parrot)
    caller = asking(upstream, "openai", via="chat", custom_host=upstream.url)
    response = caller.complete(
        model="gpt-5-mini", prompt="a", max_tokens=16, temperature=0.2, stop="|"
    )

    body = upstream.last.json
    assert body["max_completion_tokens"] == 1024 and "max_tokens" not in body
    assert "temperature" not in body and "stop" not in body
    assert response.headers["x-lastword-dropped-params"] == "temperature"
    assert "1024" in response.headers["x-lastword-warning"]


def test_101_hidden_logprobs_are_refused(asking, script) -> None:
    upstream = script(parrot)
    caller = asking(upstream, "openai", via="chat", custom_host=upstream.url)
    error = caller.complete(model="o3", prompt="a", logprobs=1)

    assert error.status_code == 400 and error.json["error"]["param"] == "logprobs"
    assert upstream.requests == []


def test_102_newer_claudes_get_no_sampling_params(asking, script) -> None:
    upstream = script(whole(message("A")))
    response = asking(upstream, "anthropic").complete(
        model="claude-opus-4-7", temperature=0.3, top_p=0.9, top_k=5
    )

    assert {"temperature", "top_p", "top_k"}.isdisjoint(upstream.last.json)
    dropped = response.headers["x-lastword-dropped-params"].split(", ")
    assert sorted(dropped) == ["temperature", "top_k", "top_p"]


def message(text: str, reason: str = "end_turn") -> dict[str, Any]:
    """A whole answer of Anthropic's Messages."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-3-haiku",
        "content": [{"type": "text", "text": text}],
        "stop_reason": reason,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }


def test_103_anthropics_required_params_are_sent(asking, script) -> None:
    upstream = script(whole(message("A")))
    response = asking(upstream, "anthropic").complete(prompt="a")

    assert upstream.last.json["max_tokens"] == 4096
    assert upstream.last.headers["anthropic-version"] == "2023-06-01"
    assert upstream.last.headers["x-api-key"] and "authorization" not in (
        upstream.last.headers
    )
    assert response.headers["x-lastword-applied-defaults"] == "max_tokens=4096"
    assert response.json["usage"]["total_tokens"] == 4


def entry(token: str, logprob: float, *others: tuple[str, float]) -> dict[str, Any]:
    likely = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in others]
    own = {"token": token, "logprob": logprob, "bytes": list(token.encode())}
    return own | {"top_logprobs": likely}


def test_104_logprobs_have_legacy_shape(asking, script) -> None:
    content = [
        entry("é", -0.1, ("é", -0.1), ("e", -2.5)),
        entry("t", -0.2, ("x", -0.1), ("t", -0.2)),
    ]
    choice = reply("ét")["choices"][0] | {"logprobs": {"content": content}}
    upstream = script(whole(reply(choices=[choice])))
    caller = asking(upstream, "openai", via="chat", custom_host=upstream.url)
    answer = caller.complete(prompt="Où?", logprobs=2).json

    assert upstream.last.json["logprobs"] is True
    assert upstream.last.json["top_logprobs"] == 2
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["é", "t"],
        "token_logprobs": [-0.1, -0.2],
        "top_logprobs": [{"é": -0.1, "e": -2.5}, {"x": -0.1, "t": -0.2}],
        "text_offset": [3, 4],
    }


@pytest.mark.parametrize("provider", ["groq", "anthropic", "together-ai"])
def test_105_unsupported_logprobs_are_refused(asking, script, provider: str) -> None:
    upstream = script(parrot)
    caller = asking(upstream, provider, via="chat", custom_host=upstream.url)
    error = caller.complete(logprobs=1)

    assert error.status_code == 400 and error.json["error"]["param"] == "logprobs"
    assert upstream.requests == []


REASONS = [
    ("stop", "stop"),
    ("length", "length"),
    ("content_filter", "content_filter"),
    ("tool_calls", "stop"),
    ("function_call", "stop"),
    ("eos", "stop"),
    ("end_turn", "stop"),
    ("max_tokens", "length"),
    ("SAFETY", "content_filter"),
    (None, "stop"),
    ("", "stop"),
    ("a_word_of_tomorrow", "stop"),
]


@pytest.mark.parametrize("upstream_reason, result", REASONS)
def test_106_finish_reasons_are_normalised(
    asking, script, upstream_reason: Any, result: str
) -> None:
    choice = reply()["choices"][0] | {"finish_reason": upstream_reason}
    answer = asking(script(whole(reply(choices=[choice])))).complete().json

    assert answer["choices"][0]["finish_reason"] == result


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_106_failure_reason_is_an_error(asking, script, reason: str) -> None:
    choice = reply()["choices"][0] | {"finish_reason": reason}
    answer = asking(script(whole(reply(choices=[choice])))).complete()

    assert answer.status_code == 502 and reason in answer.json["error"]["message"]


def test_106_own_finish_reason_is_kept_on_request(asking, script) -> None:
    upstream = script(whole(message("A", "stop_sequence")))
    answer = asking(upstream, "anthropic").complete(
        headers={"x-portkey-strict-open-ai-compliance": "false"}
    )

    assert answer.json["choices"][0]["finish_reason"] == "stop_sequence"


def test_106_no_content_is_empty_text(asking, script) -> None:
    choice = reply()["choices"][0] | {"message": {"role": "assistant", "content": None}}
    answer = asking(script(whole(reply(choices=[choice])))).complete().json

    assert answer["choices"][0]["text"] == ""


def test_refusal_is_content_filtered(asking, script) -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I would rather not."}
    choice = reply()["choices"][0] | {"message": refused}
    upstream = script(whole(reply(choices=[choice])))
    answer = asking(upstream, "openai", via="chat", custom_host=upstream.url)

    (result,) = answer.complete().json["choices"]
    assert (result["text"], result["finish_reason"]) == ("", "content_filter")


STOPLESS = {"model_info": {"lacks": ["stop"]}}


def test_107_gateway_enforces_stop_sequences(asking, script) -> None:
    upstream = script(whole(reply("one two END three")))
    caller = asking(upstream, custom_host=upstream.url, **STOPLESS)
    answer = caller.complete(stop=["END", "x"]).json

    assert answer["choices"][0]["text"] == "one two "
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert "stop" not in upstream.last.json


def test_107_stop_across_chunks_never_leaks(asking, script) -> None:
    pieces: list[Step] = [
        data(delta(p)) for p in ("one E", "N", "x EN", "D three", " four")
    ]
    upstream = script(stream(*pieces, until_closed))
    caller = asking(upstream, custom_host=upstream.url, **STOPLESS)
    chunks = events(caller.complete(stop="END", stream=True))

    assert texts_by_index(chunks) == {0: "one ENx "}
    # The upstream is cancelled before its end: nothing more is read or paid for.
    assert upstream.wait_closed()


def test_109_budget_used_by_thoughts_is_no_failure(asking, script) -> None:
    choice = reply("")["choices"][0] | {"finish_reason": "length"}
    answer = asking(script(whole(reply(choices=[choice])))).complete(max_tokens=5)

    assert answer.status_code == 200
    assert answer.json["choices"][0] == {
        "text": "",
        "index": 0,
        "logprobs": None,
        "finish_reason": "length",
    }
    assert "max_tokens" in answer.headers["x-lastword-warning"]


def test_109_thoughts_warning_reaches_streams(asking, script) -> None:
    steps = [data(delta(reasoning="Hmm")), data(delta(finish="length")), DONE]
    answer = asking(script(stream(*steps))).complete(max_tokens=5, stream=True)

    assert texts_by_index(events(answer)) == {0: ""}
    assert "max_tokens" in answer.headers["x-lastword-warning"]


def test_49_echo_precedes_the_text(asking, script) -> None:
    answer = asking(script(parrot)).complete(prompt=["ab", "c"], echo=True).json

    assert texts(answer) == ["abAB", "cC"]


def test_best_of_keeps_the_best_chat(asking, script) -> None:
    def drawn(request: ReceivedRequest) -> Answer:
        choices = [
            reply(word)["choices"][0]
            | {"index": i, "logprobs": {"content": [entry(word, -i % 3 - 3.0)]}}
            for i, word in enumerate(["a", "b", "c"][: request.json["n"]])
        ]
        return whole(reply(choices=choices))

    upstream = script(drawn)
    caller = asking(upstream, "openai", via="chat", custom_host=upstream.url)
    answer = caller.complete(best_of=3).json

    assert upstream.last.json["n"] == 3 and upstream.last.json["logprobs"] is True
    assert texts(answer) == ["b"] and answer["choices"][0]["logprobs"] is None


def test_best_of_without_logprobs_is_refused(asking, script) -> None:
    upstream = script(parrot)
    error = asking(upstream).complete(best_of=3)

    assert error.status_code == 400 and error.json["error"]["param"] == "best_of"
    assert upstream.requests == []


# Switching the mode after a refusal


CHAT_ONLY = {
    "openai": (
        404,
        {
            "error": {
                "message": "This is a chat model and not supported in the "
                "v1/completions endpoint. Did you mean to use v1/chat/completions?",
                "type": "invalid_request_error",
                "param": "model",
                "code": None,
            }
        },
    ),
    "azure-openai": (
        400,
        {
            "error": {
                "code": "OperationNotSupported",
                "message": "The completion operation does not work with the specified "
                "model, gpt-4. Please choose different model and try again.",
            }
        },
    ),
}


@pytest.mark.parametrize("provider", CHAT_ONLY)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_85_chat_only_model_is_retried_through_chat(
    asking, script, provider: str, streamed: bool
) -> None:
    status, body = CHAT_ONLY[provider]
    second = streaming_parrot if streamed else parrot
    upstream = script(whole(body, status), second)
    response = asking(upstream, provider).complete(prompt="a", stream=streamed)

    first, last = (request.path for request in upstream.requests)
    assert "/chat/" not in first and "/chat/completions" in last
    assert response.headers["x-lastword-via"] == "chat"
    if streamed:
        assert texts_by_index(events(response)) == {0: "A"}
    else:
        assert texts(response.json) == ["A"]


def test_85_via_native_keeps_its_error(asking, script) -> None:
    status, body = CHAT_ONLY["openai"]
    upstream = script(whole(body, status))
    caller = asking(upstream, "openai", via="native", custom_host=upstream.url)
    response = caller.complete()

    assert response.status_code == 404 and len(upstream.requests) == 1
    assert response.json["error"]["message"] == body["error"]["message"]


def test_85_chat_retry_happens_once(asking, script) -> None:
    status, body = CHAT_ONLY["openai"]
    upstream = script(whole(body, status))

    assert asking(upstream, "openai").complete().status_code == 404
    assert len(upstream.requests) == 2


def test_unsupported_via_is_refused(asking, script) -> None:
    upstream = script(parrot)
    error = asking(upstream, "groq", via="native", custom_host=upstream.url).complete()

    assert error.status_code == 400
    assert "cannot be asked via native, but via chat" in error.json["error"]["message"]


# Suffixes


@pytest.mark.parametrize(
    "provider, path", [("openai", "/v1/completions"), ("deepseek", "/beta/completions")]
)
def test_53_suffix_goes_to_supporting_target(
    asking, script, provider: str, path: str
) -> None:
    upstream = script(whole(completion("x")))
    host = upstream.url if provider == "openai" else upstream.url[: -len("/v1")]
    caller = asking(upstream, provider, custom_host=host)
    del caller.headers["x-portkey-custom-host"]
    caller.complete(prompt="def f(", suffix="return y")

    assert upstream.last.path == path
    assert upstream.last.json["suffix"] == "return y"


def test_54_suffix_uses_mistrals_fim_endpoint(asking, script) -> None:
    upstream = script(whole(reply("x")))
    response = asking(upstream, "mistral-ai").complete(
        prompt="def f(", suffix="return y", seed=5, stop="\n", user="u"
    )

    assert upstream.last.path == "/v1/fim/completions"
    assert upstream.last.json == {
        "model": "m",
        "prompt": "def f(",
        "suffix": "return y",
        "random_seed": 5,
        "stop": "\n",
    }
    assert texts(response.json) == ["x"]
    assert response.json["object"] == "text_completion"
    assert response.headers["x-lastword-via"] == "fim"
    assert response.headers["x-lastword-dropped-params"] == "user"


def test_54_fim_stream_becomes_legacy_stream(asking, script) -> None:
    steps = [
        data(delta("", role="assistant")),
        data(delta("x")),
        data(delta("", "stop")),
    ]
    upstream = script(stream(*steps, DONE))
    caller = asking(upstream, "mistral-ai")
    chunks = events(caller.complete(suffix="y", stream=True))

    assert texts_by_index(chunks) == {0: "x"}


def test_55_suffix_uses_llama_cpps_infill(asking, script) -> None:
    filled = {
        "content": "x",
        "stop": True,
        "stop_type": "eos",
        "tokens_evaluated": 4,
        "tokens_predicted": 1,
    }
    upstream = script(whole(filled))
    response = asking(upstream, "llama-cpp").complete(prompt="def f(", suffix="y")

    assert upstream.last.path == "/infill"
    assert upstream.last.json["input_suffix"] == "y"
    assert texts(response.json) == ["x"]


def test_suffix_uses_ollamas_template(asking, script) -> None:
    answer = {"response": "x", "done": True, "done_reason": "stop"}
    upstream = script(whole(answer))
    asking(upstream, "ollama").complete(prompt="def f(", suffix="y")

    assert upstream.last.path == "/api/generate"
    assert upstream.last.json["suffix"] == "y" and "raw" not in upstream.last.json


@pytest.mark.parametrize("provider", ["tgi", "groq", "anthropic", "cohere", "google"])
def test_56_unsupported_suffix_is_refused(asking, script, provider: str) -> None:
    upstream = script(parrot)
    error = asking(upstream, provider).complete(suffix="y")

    assert error.status_code == 400 and error.json["error"]["param"] == "suffix"
    assert upstream.requests == []


@pytest.mark.parametrize("provider", ["groq", "mistral-ai", "llama-cpp", "ollama"])
def test_57_tabbys_request_works_everywhere(asking, script, provider: str) -> None:
    if provider == "ollama":
        line = {"response": "x", "done": True, "done_reason": "stop"}
        steps = [head(200, "Content-Type: application/x-ndjson", "Connection: close")]
        upstream = script([*steps, json.dumps(line).encode(), close])
    else:
        piece = frame("x", "stop") if provider == "llama-cpp" else delta("x", "stop")
        upstream = script(stream(data(piece), DONE))
    chunks = events(
        asking(upstream, provider).complete(
            suffix=None,
            max_tokens=64,
            temperature=0.1,
            stream=True,
            presence_penalty=0.0,
        )
    )

    assert texts_by_index(chunks) == {0: "x"}


# Evaluation: lm-eval's requests


PROMPTS = [[504, 3575, 282], [504, 3575]]
LOGLIKELIHOOD: dict[str, Any] = {
    "prompt": PROMPTS,
    "temperature": 0,
    "max_tokens": 1,
    "logprobs": 1,
    "seed": 1234,
    "echo": True,
}


def scored(tokens: list[int], index: int) -> dict[str, Any]:
    """A choice in the format of vLLM: all prompt tokens and one generated token."""
    words = [f"t{token}" for token in [*tokens, 7]]
    values: list[float | None] = [None, *(-0.1 * i - 1e-17 for i in range(len(tokens)))]
    top = [
        None,
        *({word: value} for word, value in zip(words[1:], values[1:], strict=True)),
    ]
    logprobs = {
        "tokens": words,
        "token_logprobs": values,
        "top_logprobs": top,
        "text_offset": [3 * i for i in range(len(words))],
    }
    text = "".join(words)
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": "length",
        "stop_reason": None,
        "prompt_logprobs": None,
    }


def test_47_51_scores_pass_through_exactly(asking, script) -> None:
    choices = [scored(prompt, i) for i, prompt in enumerate(PROMPTS)]
    answer = completion() | {"choices": choices}
    upstream = script(whole(answer))
    response = asking(upstream, "vllm").complete(**LOGLIKELIHOOD)

    assert upstream.last.json == {"model": "m", **LOGLIKELIHOOD}
    assert response.get_data() == json.dumps(answer).encode()


@pytest.mark.parametrize("provider", ["llama-cpp", "ollama", "groq"])
def test_48_answer_scores_are_not_prompt_scores(asking, script, provider: str) -> None:
    upstream = script(parrot)
    error = asking(upstream, provider).complete(**LOGLIKELIHOOD | {"prompt": "Hi"})

    assert error.status_code == 400
    assert error.json["error"]["param"] in ("echo", "logprobs")
    assert upstream.requests == []


def test_48_missing_prompt_scores_are_detected(asking, script) -> None:
    """Some versions of llama.cpp's server returned no scores for the prompt."""
    choices = [scored([], i) for i in range(2)]
    upstream = script(whole(completion() | {"choices": choices}))
    error = asking(upstream, "vllm").complete(**LOGLIKELIHOOD)

    assert error.status_code == 502
    assert "log probabilities of the prompt" in error.json["error"]["message"]


@pytest.mark.parametrize("provider", ["sglang", "deepinfra"])
def test_12_echo_alone_drops_required_token(asking, script, provider: str) -> None:
    upstream = script(whole(completion(" there")))
    answer = asking(upstream, provider).complete(echo=True, max_tokens=0).json

    assert upstream.last.json["max_tokens"] == 1 and "echo" not in upstream.last.json
    assert texts(answer) == ["Hi"] and answer["usage"]["completion_tokens"] == 0


def test_12_prompt_scores_alone_may_be_refused(asking, script) -> None:
    upstream = script(whole(completion()))
    error = asking(upstream, "sglang").complete(echo=True, max_tokens=0, logprobs=1)

    assert error.status_code == 400 and upstream.requests == []
    assert error.json["error"]["param"] == "max_tokens"


def test_52_generate_until_keeps_order(asking, script) -> None:
    """Batches of token ids, also for upstreams that take one prompt per call."""

    def answer(request: ReceivedRequest) -> Answer:
        return whole(completion(f"<{request.json['prompt'][0]}>"))

    upstream = script(answer)
    response = asking(upstream, "llama-cpp").complete(
        prompt=[[4], [3], [2], [1]], max_tokens=6, temperature=0, stop=["\n\n"], seed=1
    )

    assert texts(response.json) == ["<4>", "<3>", "<2>", "<1>"]


# Errors, dropped and refused parameters


@pytest.mark.parametrize(
    "provider, status, body, result",
    [
        (
            "sglang",
            400,
            {
                "object": "error",
                "message": "too long",
                "type": "BadRequest",
                "code": 400,
            },
            {"message": "too long", "type": "BadRequest", "param": None, "code": None},
        ),
        (
            "tgi",
            422,
            {"error": "too long", "error_type": "validation"},
            {"message": "too long", "type": "validation", "param": None, "code": None},
        ),
    ],
    ids=["sglang", "tgi"],
)
def test_91_92_engine_errors_have_openais_shape(
    asking, script, provider: str, status: int, body: Any, result: Any
) -> None:
    response = asking(script(whole(body, status)), provider).complete()

    assert response.status_code == status
    assert response.json == {"error": result, "provider": provider}


def test_26_dropped_params_are_named(asking, script) -> None:
    upstream = script(whole(message("A")))
    response = asking(upstream, "anthropic").complete(
        presence_penalty=0.5, seed=5, logit_bias={"5": 1}, min_p=0.1, user="u"
    )

    dropped = response.headers["x-lastword-dropped-params"].split(", ")
    assert sorted(dropped) == ["logit_bias", "min_p", "presence_penalty", "seed"]
    assert upstream.last.json["metadata"] == {"user_id": "u"}


def test_strict_params_refuse_before_sending(asking, script) -> None:
    upstream = script(whole(message("A")))
    caller = asking(upstream, "anthropic", strict_params=True, custom_host=upstream.url)
    error = caller.complete(seed=5)

    assert error.status_code == 400 and error.json["error"]["param"] == "seed"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "provider, why",
    [
        ("jina", "vectors"),
        ("stability-ai", "images"),
        ("qdrant", "searches"),
        ("hyperbolic", "decommissioned"),
        ("palm", "switched"),
    ],
)
def test_unsupported_provider_explains_itself(
    caller: Caller, upstream: Upstream, provider: str, why: str
) -> None:
    del caller.headers["x-portkey-custom-host"]
    error = caller.complete(headers={"x-portkey-provider": provider})

    assert error.status_code == 400
    assert error.json["error"]["code"] == "unsupported_provider"
    assert why in error.json["error"]["message"]
    assert upstream.requests == []
