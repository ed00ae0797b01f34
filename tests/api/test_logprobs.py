"""Log probabilities over HTTP: what arrives has the legacy shape, or is refused.

Numbers are those of the cases in docs/contract.md.
"""

import json
from collections.abc import Callable, Sequence
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

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
BOTH_FORMS = pytest.mark.parametrize("streams", [False, True], ids=["whole", "sse"])


@pytest.fixture
def asking(call: Callable[..., Caller]) -> Callable[..., Caller]:
    """Creates callers that reach *upstream* as *provider*, in one mode."""

    def make(upstream: Upstream, provider: str, via: str = "native") -> Caller:
        caller = call(upstream)
        config = {"provider": provider, "api_key": "k", "via": via}
        caller.headers["x-portkey-config"] = json.dumps(config)
        del caller.headers["x-portkey-provider"]
        return caller

    return make


def logprobs_of(response: Any, streams: bool, index: int = 0) -> dict[str, Any]:
    """Those of one choice, from an answer that is complete."""
    assert response.status_code == 200, response.json
    documents = [response.json]
    if streams:
        *documents, done = events(response)
        assert done == "[DONE]", documents[-1]
    received = [
        choice["logprobs"]
        for document in documents
        for choice in document["choices"]
        if choice["index"] == index and choice["logprobs"] is not None
    ]
    for logprobs in received:
        assert all(isinstance(logprobs[name], list) for name in LISTS)
        assert len({len(logprobs[name]) for name in LISTS}) == 1
        assert all(isinstance(token, str) for token in logprobs["tokens"])
        for token, score, top in zip(
            *(logprobs[name] for name in LISTS[:3]), strict=True
        ):
            assert top == top if score is None else top[token] == score
    return {name: [v for part in received for v in part[name]] for name in LISTS}


def refusal(response: Any, streams: bool) -> str:
    """The message of the error, without which no answer may end."""
    if not streams or response.status_code != 200:
        assert response.status_code == 502
        message = response.json["error"]["message"]
    else:
        last = events(response)[-1]
        assert last != "[DONE]"
        message = last["error"]["message"]
    assert isinstance(message, str)
    return message


# Together's shape

WORDS = [" New", " York", "!"]
SCORES = [-0.5, -1e-6, -2]


def together(request: ReceivedRequest) -> Answer:
    """Lists without offsets in a whole answer, a number in each frame of a stream."""
    if request.json.get("stream"):
        frames = [
            frame(choices=[{"index": 0, "text": w, "seed": 1, "logprobs": s}])
            for w, s in zip(WORDS, SCORES, strict=True)
        ]
        last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
        return stream(*map(data, [*frames, frame(choices=[last])]), DONE)
    logprobs = {"token_ids": [1, 2, 3], "tokens": WORDS, "token_logprobs": SCORES}
    choice = {"text": "".join(WORDS), "seed": 1, "finish_reason": "length"}
    return whole(completion(choices=[choice | {"logprobs": logprobs}]))


@BOTH_FORMS
def test_19_lists_without_offsets_get_them(asking, script, streams) -> None:
    caller = asking(script(together), "together-ai")
    response = caller.complete(prompt="Big city:", logprobs=1, stream=streams)

    assert logprobs_of(response, streams) == {
        "tokens": WORDS,
        "token_logprobs": SCORES,
        "top_logprobs": [{w: s} for w, s in zip(WORDS, SCORES, strict=True)],
        "text_offset": [9, 13, 18],
    }


@BOTH_FORMS
def test_offsets_count_from_each_prompt(asking, script, streams) -> None:
    caller = asking(script(together), "together-ai")
    response = caller.complete(prompt=["a", "abc"], logprobs=1, stream=streams)
    offsets = [logprobs_of(response, streams, index)["text_offset"] for index in (0, 1)]

    assert offsets == [[1, 5, 10], [3, 7, 12]]


@pytest.mark.parametrize("score", [-0.5, None, 7], ids=str)
@BOTH_FORMS
def test_unrequested_number_is_null(asking, script, score, streams) -> None:
    """An SDK that looks for lists would fail on it."""
    choice = {"index": 0, "text": "x", "logprobs": score, "finish_reason": "stop"}
    running = choice | {"finish_reason": None}
    answer = (
        stream(*(data(frame(choices=[c])) for c in [running] * 3 + [choice]), DONE)
        if streams
        else whole(completion(choices=[choice]))
    )
    response = asking(script(answer), "together-ai").complete(stream=streams)
    documents = events(response)[:-1] if streams else [response.json]

    assert all(document["choices"][0]["logprobs"] is None for document in documents)


# Other servers' shapes


def entry(token: str, score: float, *others: tuple[str, float]) -> dict[str, Any]:
    top = [{"token": t, "logprob": s} for t, s in ((token, score), *others)]
    raw = list(token.encode())
    return {"token": token, "logprob": score, "bytes": raw, "top_logprobs": top}


CHAT_SHAPE = {"content": [entry(" a", -0.1, (" b", -3.0)), entry("é", -0.2, ("e", -2))]}
LEGACY = {
    "tokens": [" a", "é"],
    "token_logprobs": [-0.1, -0.2],
    "top_logprobs": [{" a": -0.1, " b": -3.0}, {"é": -0.2, "e": -2}],
    "text_offset": [2, 4],
}
SHAPES: dict[str, Any] = {
    "legacy": LEGACY,
    "chat": CHAT_SHAPE,
    "chat, a bare list": CHAT_SHAPE["content"],
    # As vLLM's chat had it once: https://github.com/vllm-project/vllm/pull/2918
    "both": LEGACY | {"content": None},
    "no offsets": {k: v for k, v in LEGACY.items() if k != "text_offset"},
    "null offsets": LEGACY | {"text_offset": None},
    "too few offsets": LEGACY | {"text_offset": [2]},
    "offsets of text": LEGACY | {"text_offset": ["2", "4"]},
}


def answer_of(via: str, streams: bool, text: str, logprobs: Any) -> Answer:
    """An answer of one piece in the shape of that mode."""
    one = (frame if streams else completion)(text)
    if via == "chat":
        one = (delta if streams else reply)(text)
    choice = one["choices"][0] | {"logprobs": logprobs}
    if not streams:
        return whole(one | {"choices": [choice]})
    last = delta("", "stop") if via == "chat" else frame("", "stop")
    return stream(data(one | {"choices": [choice]}), data(last), DONE)


@BOTH_FORMS
@pytest.mark.parametrize("via", ["native", "chat"])
@pytest.mark.parametrize("name", SHAPES)
def test_19_shapes_become_the_legacy_one(asking, script, name, via, streams) -> None:
    upstream = script(answer_of(via, streams, " aé", SHAPES[name]))
    response = asking(upstream, "vllm", via).complete(logprobs=2, stream=streams)

    assert logprobs_of(response, streams) == LEGACY


@BOTH_FORMS
@pytest.mark.parametrize("via", ["native", "chat"])
def test_number_is_that_of_the_only_token(asking, script, via, streams) -> None:
    upstream = script(answer_of(via, streams, " a", -0.25))
    response = asking(upstream, "vllm", via).complete(logprobs=0, stream=streams)

    assert logprobs_of(response, streams) == {
        "tokens": [" a"],
        "token_logprobs": [-0.25],
        "top_logprobs": [{" a": -0.25}],
        "text_offset": [2],
    }


@BOTH_FORMS
@pytest.mark.parametrize(
    "top", [None, [], [None, None], [[], "x"], {"x": 1}, [{" a": "?"}, {"é": None}]]
)
def test_missing_alternatives_are_the_chosen_tokens(
    asking, script, top, streams
) -> None:
    odd = LEGACY | {"top_logprobs": top, "tokens": [" a", "é"]}
    choice = {"index": 0, "text": " aé", "logprobs": odd}
    answer = (
        stream(data(frame(choices=[choice])), data(frame("", "stop")), DONE)
        if streams
        else whole(completion(choices=[choice | {"finish_reason": "stop"}]))
    )
    response = asking(script(answer), "vllm").complete(logprobs=0, stream=streams)
    logprobs = logprobs_of(response, streams)

    assert logprobs["top_logprobs"] == [{" a": -0.1}, {"é": -0.2}]


def test_chat_shape_goes_on_over_frames(asking, script) -> None:
    """Also half a character in one frame and the other half in the next."""
    parts = [b"\xc3", b"\xa9"]
    entries = [
        {"token": "", "bytes": list(part), "logprob": -1.0, "top_logprobs": []}
        for part in parts
    ]
    choices = [
        {"index": 0, "text": text, "logprobs": {"content": [one]}}
        for text, one in zip(["", "é"], entries, strict=True)
    ]
    frames = [frame(choices=[choice]) for choice in choices]
    steps = stream(*map(data, [*frames, frame("", "stop")]), DONE)
    response = asking(script(steps), "vllm").complete(logprobs=0, stream=True)
    logprobs = logprobs_of(response, True)

    assert logprobs["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs["text_offset"] == [2, 2]


@BOTH_FORMS
@pytest.mark.parametrize(
    "odd",
    [
        LEGACY | {"token_logprobs": [-0.1]},
        {"tokens": [" a", "é"]},
        {"tokens": [" a", "é"], "token_logprobs": "x"},
        {"content": [{"token": "x"}]},
        {"content": [5]},
    ],
    ids=str,
)
def test_scores_that_fit_no_tokens_are_refused(asking, script, odd, streams) -> None:
    choice = {"index": 0, "text": " aé", "logprobs": odd, "finish_reason": "stop"}
    document = completion(choices=[choice])
    answer = stream(data(document), DONE) if streams else whole(document)
    caller = asking(script(answer), "vllm")

    assert refusal(caller.complete(logprobs=2, stream=streams), streams)


# Requested, and not there


def unscored(via: str, streams: bool, count: int, scored: Sequence[int]) -> Answer:
    """An answer of *count* choices, of which only those in *scored* have scores."""
    shape: Any = {"content": [entry("x", -0.5)]}
    if via == "native":
        shape = {
            "tokens": ["x"],
            "token_logprobs": [-0.5],
            "top_logprobs": [{"x": -0.5}],
            "text_offset": [2],
        }
    one = (frame if streams else completion)("x")
    if via == "chat":
        one = (delta if streams else reply)("x")
    choices = [
        one["choices"][0]
        | {"index": i, "logprobs": shape if i in scored else None}
        | {"finish_reason": "stop"}
        for i in range(count)
    ]
    if not streams:
        return whole(one | {"choices": choices})
    return stream(*(data(one | {"choices": [choice]}) for choice in choices), DONE)


@BOTH_FORMS
@pytest.mark.parametrize("via", ["native", "chat"])
@pytest.mark.parametrize("count, scored", [(1, []), (2, []), (2, [0])], ids=str)
def test_105_missing_logprobs_are_refused(
    asking, script, via, streams, count, scored
) -> None:
    caller = asking(script(unscored(via, streams, count, scored)), "vllm", via)
    response = caller.complete(logprobs=1, n=count, stream=streams)

    assert "no log probabilities" in refusal(response, streams)


@BOTH_FORMS
@pytest.mark.parametrize("via", ["native", "chat"])
@pytest.mark.parametrize("params", [{"logprobs": 1}, {"logprobs": 0}], ids=str)
def test_present_logprobs_pass(asking, script, via, streams, params) -> None:
    caller = asking(script(unscored(via, streams, 1, [0])), "vllm", via)
    response = caller.complete(stream=streams, **params)

    assert logprobs_of(response, streams)["tokens"] == ["x"]


@pytest.mark.parametrize("via", ["native", "chat"])
def test_105_missing_logprobs_lead_to_next_target(asking, script, via) -> None:
    first, second = script(unscored(via, False, 1, [])), script(
        unscored(via, False, 1, [0])
    )
    caller = asking(first, "vllm", via)
    targets = [
        {"provider": "vllm", "custom_host": each.url, "via": via}
        for each in (first, second)
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    caller.headers["x-portkey-config"] = json.dumps(config)
    del caller.headers["x-portkey-custom-host"]
    response = caller.complete(logprobs=1)

    assert logprobs_of(response, False)["tokens"] == ["x"]
    assert len(first.requests) == len(second.requests) == 1


@BOTH_FORMS
@pytest.mark.parametrize("via", ["native", "chat"])
def test_empty_text_needs_no_logprobs(asking, script, via, streams) -> None:
    one = (frame if streams else completion)("")
    if via == "chat":
        one = (delta if streams else reply)("")
    choice = one["choices"][0] | {"finish_reason": "stop"}
    document = one | {"choices": [choice]}
    answer = stream(data(document), DONE) if streams else whole(document)
    response = asking(script(answer), "vllm", via).complete(logprobs=1, stream=streams)

    assert response.status_code == 200
    assert not streams or events(response)[-1] == "[DONE]"


# Scores of the prompt

PROMPT = "你好，世界"


def echoed(
    tokens: Sequence[str],
    offsets: Sequence[int] | None,
    *,
    text: str = PROMPT + "!",
    usage: Any = None,
) -> dict[str, Any]:
    """An answer with the scores of *tokens*, in the shape of the endpoint."""
    scores = [None, *(-0.5 for _ in tokens[1:])]
    top = [None, *({token: -0.5} for token in tokens[1:])]
    logprobs: dict[str, Any] = {
        "tokens": list(tokens),
        "token_logprobs": scores,
        "top_logprobs": top,
    }
    if offsets is not None:
        logprobs["text_offset"] = list(offsets)
    choice = {
        "index": 0,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": "length",
    }
    return completion(choices=[choice], usage=usage)


COUNTED = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
# Tokens of 你好，世界 and a generated `!`: two of the five characters are two tokens.
COMPLETE = {
    # llama-cpp-python: decoded with errors="ignore", offsets of the bytes so far.
    "empty parts": echoed(
        ["", "", "好", "，", "", "", "界", "!"], [0, 0, 1, 2, 3, 3, 4, 5]
    ),
    "no whole character": echoed([""] * 8 + ["!"], [0] * 9, usage=COUNTED),
    "empty parts, offsets add up": echoed(
        ["", "", "好", "，", "", "", "界", "!"], [0, 0, 0, 1, 2, 2, 2, 3]
    ),
    "empty parts, no offsets": echoed(["", "", "好", "，", "", "", "界", "!"], None),
    "replacement characters": echoed(
        ["\ufffd", "\ufffd", "好", "，", "\ufffd", "\ufffd", "界", "!"],
        [0, 1, 2, 3, 4, 5, 6, 7],
        usage=COUNTED,
    ),
    "one replacement character": echoed(
        ["\ufffd", "，", "\ufffd", "!"], [0, 1, 1, 2], usage=None
    ),
    "escaped bytes": echoed(
        ["bytes:\\xe4\\xbd", "bytes:\\xa0", "好", "，", "世", "界", "!"],
        [0, 0, 1, 2, 3, 4, 5],
    ),
    "beginning of text": echoed(
        ["<s>", *PROMPT, "!"], [0, 3, 4, 5, 6, 7, 8], usage=COUNTED
    ),
    "no blanks": echoed(["你", "好", "，", "世", "界", "!"], None),
    "prompt alone": echoed(
        [*PROMPT], range(5), text=PROMPT, usage=COUNTED | {"completion_tokens": 0}
    ),
}


def echo(document: dict[str, Any], streams: bool, pieces: int = 1) -> Answer:
    """*document* whole, or as a stream of so many frames with tokens."""
    if not streams:
        return whole(document)
    (choice,) = document["choices"]
    logprobs = choice["logprobs"] or {}
    size = -(-len(logprobs.get("tokens") or "x") // pieces)
    frames = []
    for start in range(0, size * pieces, size):
        part = {k: v[start : start + size] for k, v in logprobs.items()}
        text = choice["text"] if start == 0 else ""
        if not part or part["tokens"] or start == 0:
            frames.append(
                frame(
                    choices=[
                        {
                            "index": 0,
                            "text": text,
                            "logprobs": part or None,
                            "finish_reason": None,
                        }
                    ]
                )
            )
    last = frame(choices=[], usage=document["usage"])
    return stream(*map(data, [*frames, frame("", "length"), last]), DONE)


ECHO = {"prompt": PROMPT, "echo": True, "logprobs": 1, "max_tokens": 1}


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("pieces", [0, 1, 3], ids=["whole", "frame", "frames"])
def test_48_parts_of_characters_are_no_gaps(asking, script, name, pieces) -> None:
    document = COMPLETE[name]
    answer = echo(document, bool(pieces), pieces)
    response = asking(script(answer), "vllm").complete(**ECHO, stream=bool(pieces))
    logprobs = logprobs_of(response, bool(pieces))

    assert logprobs["tokens"] == document["choices"][0]["logprobs"]["tokens"]


def answer_alone(
    tokens: Sequence[str], offsets: Sequence[int] | None, usage: Any = None
) -> dict[str, Any]:
    return echoed(tokens, offsets, text="".join(tokens), usage=usage)


LONG = ["It", " is", " a", " greeting", " in", " Chinese"]
INCOMPLETE = {
    "none": echoed([], []),
    "offsets behind the prompt": answer_alone(["!"], [5]),
    "a long answer": answer_alone(LONG, [5, 7, 10, 12, 21, 24]),
    "a long answer, from 0": answer_alone(LONG, [0, 2, 5, 7, 16, 19]),
    "a long answer, no offsets": answer_alone(LONG, None),
    "answer alone beside the echo": echoed(
        LONG,
        None,
        text=PROMPT + "".join(LONG),
        usage=COUNTED | {"completion_tokens": 6},
    ),
    "parts of characters": echoed(
        ["", "", "好"], None, usage=COUNTED | {"completion_tokens": 3}
    ),
    "the prompt's beginning": echoed(["你", "好"], [0, 1]),
    "fewer than were counted": echoed(["", "好"], [0, 1], usage=COUNTED),
}


@pytest.mark.parametrize("name", INCOMPLETE)
@pytest.mark.parametrize("pieces", [0, 1, 2], ids=["whole", "frame", "frames"])
def test_48_scores_of_the_answer_alone_are_refused(
    asking, script, name, pieces
) -> None:
    answer = echo(INCOMPLETE[name], bool(pieces), pieces)
    response = asking(script(answer), "vllm").complete(
        **ECHO, stream=bool(pieces), stream_options=None
    )

    assert "log probabilities of the prompt" in refusal(response, bool(pieces))


@BOTH_FORMS
def test_48_chat_shaped_answer_scores_are_refused(asking, script, streams) -> None:
    """As a server of llama.cpp answers, which knows no echo."""
    scores = {"content": [entry(word, -0.5) for word in LONG]}
    choice = {"index": 0, "text": "".join(LONG), "logprobs": scores}
    document = completion(choices=[choice | {"finish_reason": "length"}], usage=None)
    answer = stream(data(document), DONE) if streams else whole(document)
    response = asking(script(answer), "vllm").complete(**ECHO, stream=streams)

    assert "log probabilities of the prompt" in refusal(response, streams)


def test_48_stream_without_prompt_scores_fails_at_once(asking, script) -> None:
    """Before anything was sent, so that another target may be tried."""
    document = answer_alone(LONG, [5, 7, 10, 12, 21, 24])
    upstream = script(echo(document, True))
    response = asking(upstream, "vllm").complete(**ECHO, stream=True)

    assert response.status_code == 502


@pytest.mark.parametrize(
    "ids, count, usage, is_complete",
    [
        ([1, 2, 3], 4, None, True),
        # Without the token at the beginning of a text, and that at its end.
        ([1, 2, 3], 2, None, True),
        ([1, 2, 3], 1, None, False),
        ([1, 2, 3], 0, None, False),
        ([1, 2], 1, None, False),
        ([1], 1, None, True),
        ([1, 2, 3], 4, {"prompt_tokens": 3, "completion_tokens": 4}, False),
        ([1, 2, 3], 7, {"prompt_tokens": 3, "completion_tokens": 4}, True),
    ],
)
@BOTH_FORMS
def test_scores_of_ids_are_counted(
    asking, script, ids, count, usage, is_complete, streams
) -> None:
    tokens = [f"<{i}>" for i in range(count)]
    document = echoed(tokens, None, text="".join(tokens), usage=usage)
    caller = asking(script(echo(document, streams)), "vllm")
    response = caller.complete(**ECHO | {"prompt": ids}, stream=streams)

    if is_complete:
        assert logprobs_of(response, streams)["tokens"] == tokens
    else:
        assert "of the prompt" in refusal(response, streams)
