"""llama.cpp's server, from recordings of a real one."""

import json
import math
from typing import Any

import pytest

from app.core.completion import Completion, Usage
from app.core.sse import SSEDecoder
from app.errors import GatewayError, UnsupportedParameter, UpstreamCut, UpstreamProtocol
from app.providers.llama_cpp import LOCAL, LegacyLogprobs
from tests.providers import harness
from tests.wire import answer

PROMPT = "The capital of France is"


def body_of(prompt: Any = PROMPT, **params: Any) -> dict[str, Any]:
    return harness.body("local", prompt=prompt, **params)


def whole(name: str, **params: Any) -> Completion:
    _, body = answer(f"llamacpp/{name}")
    return harness.whole("local", body, prompt=PROMPT, **params)


def streamed(name: str, **params: Any) -> list[Completion]:
    """The pieces with choices; the usage is in `counted`."""
    return [piece for piece in everything(name, **params) if piece.choices]


def counted(name: str, **params: Any) -> Usage | None:
    return everything(name, **params)[-1].usage


def everything(name: str, **params: Any) -> list[Completion]:
    _, body = answer(f"llamacpp/{name}")
    events = SSEDecoder(2**20).feed(body)
    return [*harness.streamed("local", events, prompt=PROMPT, **params)]


# Requests


def test_prompt_goes_to_completions() -> None:
    (call,) = harness.calls("local", max_tokens=5)

    assert call.url == "http://upstream/v1/completions"
    assert call.headers["Authorization"] == f"Bearer {harness.KEY}"
    assert harness.KEY not in repr(call)


def test_suffix_goes_to_infill() -> None:
    gap: dict[str, Any] = {"suffix": "return y", "max_tokens": 4, "logprobs": 2}
    (call,) = harness.calls("local", prompt="def f(x):", **gap)

    assert call.url == "http://upstream/infill"
    sent = json.loads(call.body or b"")
    assert (sent["input_prefix"], sent["input_suffix"]) == ("def f(x):", "return y")
    assert (sent["n_predict"], sent["n_probs"]) == (4, 2)


def test_ignored_params_are_not_sent() -> None:
    sent = body_of(echo=True, best_of=1, n=1, stream=True, stream_options={})

    assert sent == {"model": "m", "prompt": PROMPT, "stream": True}


@pytest.mark.parametrize("requested, sent", [(0, 1), (1, 1), (5, 5)])
def test_zero_logprobs_request_chosen_token(requested: int, sent: int) -> None:
    assert body_of(logprobs=requested)["logprobs"] == sent


def test_seed_is_never_the_random_one() -> None:
    for seed in (-1, 2**32 - 1, 2**63 - 1, 0, 5):
        assert 0 <= body_of(seed=seed)["seed"] < 2**32 - 1
    assert body_of(seed=5)["seed"] == 5


@pytest.mark.parametrize(
    "param, params",
    [
        ("prompt", {"prompt": None}),
        ("echo", {"echo": True, "logprobs": 0}),
        ("echo", {"prompt": [1, 2], "echo": True}),
        ("prompt", {"prompt": [[1], [2]], "suffix": "x"}),
    ],
    ids=["no prompt", "echo with logprobs", "echo of ids", "suffix to ids"],
)
def test_unsupported_param_is_refused_by_name(
    param: str, params: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        harness.plan("local", **params)

    assert refused.value.param == param
    assert refused.value.code == "unsupported_parameter"


# Answers


def test_whole_answer_is_read() -> None:
    answered = whole("ok_nonstream")

    (choice,) = answered.choices
    assert choice.text == " Paris.\n\nThe United States has"
    assert (choice.finish_reason, choice.logprobs) == ("length", None)
    assert answered.usage == Usage(5, 8)
    assert answered.id == "cmpl-6W8IEtVfkSNEGq5BdxTeyK02MLDaDKU6"
    assert answered.model == "smollm2-135m"


def test_stream_equals_whole_answer() -> None:
    pieces = streamed("ok_stream")

    text = "".join(piece.choices[0].text for piece in pieces)
    assert text == " Paris.\n\nThe United States has"
    assert [p.choices[0].finish_reason for p in pieces] == [None] * 8 + ["length"]
    assert counted("ok_stream") == Usage(5, 8, cached_tokens=4)
    assert {p.usage for p in pieces} == {None}


def test_logprobs_have_legacy_shape() -> None:
    logprobs = whole("ok_logprobs", logprobs=2).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.tokens == [" Paris", ".", "\n"]
    assert logprobs.token_logprobs == [
        -0.25889989733695984,
        -0.3981500566005707,
        -0.9538998007774353,
    ]
    assert logprobs.top_logprobs[0] == {
        " Paris": -0.25889989733695984,
        " the": -2.764557123184204,
    }
    assert logprobs.text_offset == [24, 30, 31]


def test_streamed_logprobs_offsets_continue() -> None:
    pieces = streamed("ok_stream_logprobs", logprobs=2)
    offsets = [
        p.choices[0].logprobs.text_offset for p in pieces if p.choices[0].logprobs
    ]

    assert offsets == [[24], [30], [31]]
    assert pieces[-1].choices[0].logprobs is None


def test_zero_logprobs_show_chosen_token_only() -> None:
    logprobs = whole("ok_echo_logprobs0", logprobs=0).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.top_logprobs == [{" Paris": -0.25889989733695984}]


def test_echo_precedes_text_once() -> None:
    assert whole("ok_echo", echo=True).choices[0].text.startswith(PROMPT)
    pieces = streamed("ok_stream", echo=True)
    texts = [piece.choices[0].text for piece in pieces]
    assert texts[0] == PROMPT + " Paris"
    assert not any(PROMPT in text for text in texts[1:])


def test_zero_max_tokens_gives_no_text() -> None:
    answered = whole("ok_echo_logprobs0", max_tokens=0, logprobs=0)

    (choice,) = answered.choices
    assert (choice.text, choice.finish_reason) == ("", "length")
    assert choice.logprobs is not None and not choice.logprobs.tokens
    assert answered.usage == Usage(5, 0, cached_tokens=4)


def test_opening_null_event_is_ignored() -> None:
    assert streamed("ok_batch2_stream")[0].choices[0].text == "-"


def test_stream_cut_anywhere_errs_or_completes() -> None:
    _, body = answer("llamacpp/ok_stream")
    end_of_finish = body.index(b"\n\ndata: [DONE]") + 2
    for cut in range(len(body)):
        events = SSEDecoder(2**20).feed(body[:cut])
        if cut >= end_of_finish:
            assert harness.streamed("local", events)[-1].usage == counted("ok_stream")
        else:
            with pytest.raises(UpstreamCut):
                harness.streamed("local", events)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"choices": []}',
        b'{"choices": [5]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"text": "a", "logprobs": 5, "finish_reason": "stop"}]}',
        b'{"content": "a"}',
        b"<html>",
    ],
)
def test_incomplete_answer_is_upstream_error(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        harness.whole("local", body)


# Characters and tokens


def entry(raw: bytes, **top: float) -> dict[str, Any]:
    return {"token": "\ufffd", "bytes": list(raw), "logprob": -0.5, "top_logprobs": []}


def test_split_character_counts_once() -> None:
    party = "🎉".encode()
    content = [entry(b"a"), entry(party[:2]), entry(party[2:]), entry(b"b")]
    logprobs = LegacyLogprobs(10, 1).read(content)

    assert logprobs.tokens == ["a", "bytes:\\xf0\\x9f", "bytes:\\x8e\\x89", "b"]
    assert logprobs.text_offset == [10, 11, 11, 12]


def test_token_without_bytes_is_its_text() -> None:
    logprobs = LegacyLogprobs(0, 1).read([{"token": "é", "logprob": -1.0}] * 2)

    assert (logprobs.tokens, logprobs.text_offset) == (["é", "é"], [0, 1])


def test_chosen_token_is_among_alternatives() -> None:
    chosen = {"token": "c", "bytes": [99], "logprob": -3.0}
    likely = [{"token": t, "bytes": list(t.encode()), "logprob": -1.0} for t in "ab"]
    logprobs = LegacyLogprobs(0, 2).read([chosen | {"top_logprobs": likely}])

    assert logprobs.top_logprobs == [{"a": -1.0, "b": -1.0, "c": -3.0}]
    assert math.isclose(logprobs.mean, -3.0)


def test_held_token_keeps_its_text() -> None:
    """Its entry has no text, and the next one has the text of both."""
    held = whole("infill_held_logprobs", suffix="x", logprobs=1).choices[0]

    assert held.logprobs is not None
    assert held.logprobs.tokens[-4:] == ["-", "year", "-", "old"]
    assert "".join(held.logprobs.tokens) == held.text
    assert {len(top or {}) for top in held.logprobs.top_logprobs} == {1}
    ends = [*held.logprobs.text_offset[1:], len(PROMPT + held.text)]
    starts = held.logprobs.text_offset
    lengths = [len(token) for token in held.logprobs.tokens]
    assert [b - a for a, b in zip(starts, ends, strict=True)] == lengths


def test_stop_sequence_tokens_are_hidden() -> None:
    pieces = streamed("infill_stream_stop_logprobs", suffix="x", logprobs=1)
    text = "".join(piece.choices[0].text for piece in pieces)
    tokens = [t for p in pieces for t in getattr(p.choices[0].logprobs, "tokens", ())]

    assert text == "user\nI'm a 25" == "".join(tokens)
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_held_token_without_id_is_the_rest() -> None:
    newline = {"id": 1, "token": "\n", "bytes": [10], "logprob": -0.1}
    held = {**newline, "token": "", "bytes": [], "top_logprobs": [newline]}
    other = {"id": 5, "token": "The", "bytes": [84, 104, 101], "logprob": -0.2}
    released = {"id": 2, "token": "\nIt", "bytes": [10, 73, 116], "logprob": -3.0}
    logprobs = LegacyLogprobs(0, 1).read([held, released | {"top_logprobs": [other]}])

    assert logprobs.tokens == ["\n", "It"]
    assert logprobs.top_logprobs == [{"\n": -0.1}, {"The": -0.2, "It": -3.0}]
    assert logprobs.text_offset == [0, 1]


def test_character_of_several_tokens_stays_whole() -> None:
    party = "🎊".encode()
    part = {"id": 228, "token": "\ufffd", "bytes": [138], "logprob": -0.4}
    entry = {"id": 228, "token": "🎊", "bytes": list(party), "logprob": -0.4}
    logprobs = LegacyLogprobs(0, 1).read([entry | {"top_logprobs": [part]}])

    assert logprobs.tokens == ["🎊"]
    assert logprobs.top_logprobs == [{"🎊": -0.4}]


# Infill


def test_infill_reads_native_shape() -> None:
    filled = whole("infill_whole", suffix="x")

    assert filled.choices[0].text == "user\nI'm a 25"
    assert filled.choices[0].finish_reason == "length"
    assert filled.usage == Usage(9, 8)
    assert (filled.id, filled.created) == ("cmpl-made", 7)


def test_streamed_infill_equals_whole() -> None:
    pieces = streamed("infill_stream", suffix="x")

    assert "".join(p.choices[0].text for p in pieces) == "user\nI'm a 25"
    assert pieces[-1].choices[0].finish_reason == "length"
    assert counted("infill_stream", suffix="x") == Usage(9, 8)


def test_infill_has_logprobs() -> None:
    logprobs = whole("infill_logprobs", suffix="x", logprobs=2).choices[0].logprobs

    assert logprobs is not None
    assert logprobs.tokens == ["user", "\n", "I"]
    assert logprobs.text_offset == [24, 28, 29]
    assert [len(top or {}) for top in logprobs.top_logprobs] == [2, 2, 2]


def test_end_of_text_token_is_empty() -> None:
    ended = whole("infill_eos_logprobs", suffix="x", logprobs=2).choices[0]

    assert ended.finish_reason == "stop"
    assert ended.logprobs is not None and ended.logprobs.tokens == ["\n", ""]


# Errors


def test_model_without_infill_refuses_suffix() -> None:
    error = LOCAL.error(*answer("llamacpp/infill_unsupported"))

    assert (error.status, error.param) == (400, "suffix")
    assert error.code == "unsupported_parameter"


def test_stream_context_overflow_is_same_error() -> None:
    error = LOCAL.error(*answer("llamacpp/stream_context_overflow"))

    assert (error.status, error.code) == (400, "context_length_exceeded")


def test_numeric_error_code_is_dropped() -> None:
    error = LOCAL.error(*answer("llamacpp/err_n_zero"))

    assert (error.status, error.code, error.type) == (
        400,
        None,
        "invalid_request_error",
    )
    assert error.message.startswith("Field 'n'")


def test_context_overflow_has_openai_code() -> None:
    error: GatewayError = LOCAL.error(*answer("llamacpp/err_context_overflow"))

    assert error.code == "context_length_exceeded"
    assert error.type == "invalid_request_error"


# Models


def test_model_list_has_openai_shape() -> None:
    listed = json.loads(LOCAL.model_list(answer("llamacpp/ok_models")[1]))

    assert listed == {
        "object": "list",
        "data": [
            {
                "id": "smollm2-135m",
                "object": "model",
                "created": 1795383785,
                "owned_by": "llamacpp",
            }
        ],
    }
