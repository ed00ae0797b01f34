"""OpenAI's chat: what the contract suite does not cover."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from app.core.completion import Logprobs
from app.core.sse import Event
from app.errors import UpstreamInBand
from tests.upstream import delta, reply

from . import harness


def entries(*tokens: str) -> dict[str, Any]:
    return {
        "content": [
            {"token": t, "logprob": -0.5, "bytes": list(t.encode()), "top_logprobs": []}
            for t in tokens
        ]
    }


def whole(message: dict[str, Any], logprobs: Any = None) -> Any:
    choice = reply()["choices"][0] | {"message": message, "logprobs": logprobs}
    answer = json.dumps(reply(choices=[choice])).encode()
    params = {} if logprobs is None else {"logprobs": 0}
    return harness.whole("vllm", answer, to={"via": "chat"}, **params).choices[0]


def streamed(*pieces: tuple[dict[str, Any], Sequence[str]]) -> tuple[str, Logprobs]:
    """The text of a stream and its tokens; each piece is a delta with its tokens."""
    documents = [delta(**fields) for fields, _ in pieces]
    for document, (_, tokens) in zip(documents, pieces, strict=True):
        document["choices"][0]["logprobs"] = entries(*tokens) if tokens else None
    events = [Event(json.dumps(d).encode()) for d in [*documents, delta(finish="stop")]]
    answered = harness.streamed("vllm", events, to={"via": "chat"}, logprobs=0)
    choices = [choice for piece in answered for choice in piece.choices]
    tokens = sum((c.logprobs for c in choices if c.logprobs), Logprobs())
    return "".join(choice.text for choice in choices), tokens


# Log probabilities of reasoning models


YES = Logprobs(["Ye", "s."], [-0.5, -0.5], [{"Ye": -0.5}, {"s.": -0.5}], [2, 4])


@pytest.mark.parametrize(
    "message, tokens",
    [
        ({"content": "Yes."}, ["Ye", "s."]),
        ({"content": "Yes.", "reasoning_content": "Hm."}, ["Ye", "s."]),
        ({"content": "Yes.", "reasoning_content": "Hm."}, ["Hm", ".", "Ye", "s."]),
        (
            {"content": "<think>Hm</think>\nYes."},
            ["<think>", "Hm", "</think>", "\n", "Ye", "s."],
        ),
    ],
    ids=["no thoughts", "apart", "listed", "in tags"],
)
def test_reasoning_tokens_have_no_logprobs(
    message: dict[str, Any], tokens: list[str]
) -> None:
    choice = whole(message, entries(*tokens))

    assert (choice.text, choice.logprobs) == ("Yes.", YES)


@pytest.mark.parametrize(
    "pieces",
    [
        [({"text": "Ye"}, ["Ye"]), ({"text": "s."}, ["s."])],
        [
            ({"reasoning": "Hm"}, ["Hm"]),
            ({"reasoning": "."}, []),
            ({"text": "Ye"}, ["Ye"]),
            ({"text": "s."}, ["s."]),
        ],
        [
            ({"text": "<thi"}, ["<thi"]),
            ({"text": "nk>Hm"}, ["nk>", "Hm"]),
            ({"text": "</think>\n\nYe"}, ["</think>", "\n\n", "Ye"]),
            ({"text": "s."}, ["s."]),
        ],
    ],
    ids=["no thoughts", "apart", "in tags"],
)
def test_streamed_reasoning_tokens_have_no_logprobs(pieces: Any) -> None:
    assert streamed(*pieces) == ("Yes.", YES)


# Unusual formats


def test_content_may_be_a_list() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "Ye"},
        {"type": "text", "text": "s."},
    ]

    assert whole({"content": parts}).text == "Yes."


def test_empty_delta_beside_message_is_empty() -> None:
    """As Perplexity ends its streams."""
    first, last = delta("Yes."), delta("", "stop")
    last["choices"][0]["message"] = {"role": "assistant", "content": "Yes."}
    events = [Event(json.dumps(document).encode()) for document in (first, last)]
    answered = harness.streamed("perplexity-ai", events)

    assert "".join(c.text for piece in answered for c in piece.choices) == "Yes."


def test_groq_error_in_stream_is_raised() -> None:
    document = delta("Ye") | {"x_groq": {"id": "req_1", "error": "Over capacity"}}

    with pytest.raises(UpstreamInBand, match="Over capacity"):
        harness.streamed("groq", [Event(json.dumps(document).encode())])


@pytest.mark.parametrize(
    "upstream_id, expected",
    [("chatcmpl-7", "cmpl-7"), ("cmpl-7", "cmpl-7"), ("gen-7", "cmpl-gen-7")],
)
def test_chat_id_becomes_completion_id(upstream_id: str, expected: str) -> None:
    answer = json.dumps(reply(id=upstream_id)).encode()

    assert harness.whole("groq", answer).id == expected
