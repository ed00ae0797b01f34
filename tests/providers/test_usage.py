"""Usage in every reader: what is counted adds up, and what is not is estimated."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.completion import Usage, estimate
from app.core.sse import Event
from app.providers.parsing.answer_fields import count_of, parse_usage, usage_of
from tests.upstream import completion, delta, frame, reply

from . import harness

PROMPT, TEXT = "Once upon a time", "there was a key."
ESTIMATES = estimate(PROMPT), estimate(TEXT)


class Missing:
    """Stands for a key that is not there."""


def counts(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not Missing}


@dataclass(frozen=True)
class CountingReader:
    """A provider, and its answers with two counts: one that is whole, and a stream."""

    provider: str
    whole: Callable[[Any, Any], Any]
    events: Callable[[Any, Any], Sequence[Any]]
    via: str = ""
    model: str = "m"
    params: dict[str, Any] = field(default_factory=dict)

    def usages(self, prompt: Any, completion: Any) -> tuple[Usage | None, ...]:
        """The usage of the whole answer, and of the stream."""
        to = {"via": self.via} if self.via else {}
        request = {"to": to, "model": self.model, "prompt": PROMPT, **self.params}
        body = json.dumps(self.whole(prompt, completion)).encode()
        events = [
            event if isinstance(event, Event) else Event(json.dumps(event).encode())
            for event in self.events(prompt, completion)
        ]
        pieces = harness.streamed(
            self.provider, events, **request, stream_options={"include_usage": True}
        )
        last = [piece.usage for piece in pieces if piece.usage]
        return harness.whole(self.provider, body, **request).usage, last[-1]


def openai(prompt: Any, tokens: Any) -> dict[str, Any]:
    return counts(prompt_tokens=prompt, completion_tokens=tokens)


def anthropic_events(prompt: Any, tokens: Any) -> Sequence[Any]:
    started = counts(input_tokens=prompt, output_tokens=1)
    text = {"type": "text_delta", "text": TEXT}
    return (
        {"type": "message_start", "message": {"id": "1", "usage": started}},
        {"type": "content_block_delta", "delta": text},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": counts(output_tokens=tokens),
        },
    )


def gemini(prompt: Any, tokens: Any) -> dict[str, Any]:
    content = {"parts": [{"text": TEXT}]}
    return {
        "candidates": [{"content": content, "finishReason": "STOP"}],
        "usageMetadata": counts(promptTokenCount=prompt, candidatesTokenCount=tokens),
    }


def cohere(prompt: Any, tokens: Any) -> dict[str, Any]:
    return {"tokens": counts(input_tokens=prompt, output_tokens=tokens)}


def converse(prompt: Any, tokens: Any) -> dict[str, Any]:
    return counts(inputTokens=prompt, outputTokens=tokens)


def invoked(document: Any) -> Event:
    """An event of InvokeModelWithResponseStream."""
    encoded = base64.b64encode(json.dumps(document).encode()).decode()
    return Event(json.dumps({"bytes": encoded}).encode(), b"chunk")


def titan(text: str, **more: Any) -> dict[str, Any]:
    return {"outputText": text, **more}


def metrics(prompt: Any, tokens: Any) -> dict[str, Any]:
    counted = counts(inputTokenCount=prompt, outputTokenCount=tokens)
    return {"amazon-bedrock-invocationMetrics": counted}


def ollama(prompt: Any, tokens: Any) -> dict[str, Any]:
    counted = counts(prompt_eval_count=prompt, eval_count=tokens)
    return {"response": TEXT, "done": True, "done_reason": "stop", **counted}


def infill(prompt: Any, tokens: Any) -> dict[str, Any]:
    counted = counts(tokens_evaluated=prompt, tokens_predicted=tokens)
    return {"content": TEXT, "stop": True, "stop_type": "eos", **counted}


READERS = {
    "native": CountingReader(
        "openai",
        lambda p, c: completion(TEXT, usage=openai(p, c)),
        lambda p, c: (
            frame(TEXT),
            frame("", "stop"),
            frame(choices=[], usage=openai(p, c)),
            Event(b"[DONE]"),
        ),
    ),
    "chat": CountingReader(
        "groq",
        lambda p, c: reply(TEXT, usage=openai(p, c)),
        lambda p, c: (
            delta(TEXT),
            delta("", "stop") | {"x_groq": {"usage": openai(p, c)}},
        ),
    ),
    "anthropic": CountingReader(
        "anthropic",
        lambda p, c: {
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "usage": counts(input_tokens=p, output_tokens=c),
        },
        anthropic_events,
    ),
    "google": CountingReader("google", gemini, lambda p, c: (gemini(p, c),)),
    "cohere": CountingReader(
        "cohere",
        lambda p, c: {
            "message": {"content": [{"type": "text", "text": TEXT}]},
            "finish_reason": "COMPLETE",
            "usage": cohere(p, c),
        },
        lambda p, c: (
            {
                "type": "content-delta",
                "delta": {"message": {"content": {"text": TEXT}}},
            },
            {
                "type": "message-end",
                "delta": {"finish_reason": "COMPLETE", "usage": cohere(p, c)},
            },
        ),
    ),
    "bedrock": CountingReader(
        "bedrock",
        lambda p, c: {
            "output": {"message": {"content": [{"text": TEXT}]}},
            "stopReason": "end_turn",
            "usage": converse(p, c),
        },
        lambda p, c: (
            {"delta": {"text": TEXT}},
            {"stopReason": "end_turn"},
            {"usage": converse(p, c)},
        ),
    ),
    "titan": CountingReader(
        "bedrock",
        lambda p, c: {
            "results": [titan(TEXT, completionReason="FINISH", **counts(tokenCount=c))],
            **counts(inputTextTokenCount=p),
        },
        lambda p, c: (
            invoked(titan(TEXT)),
            invoked(titan("", completionReason="FINISH", **metrics(p, c))),
        ),
        via="native",
        model="amazon.titan-text-express-v1",
    ),
    "llama": CountingReader(
        "bedrock",
        lambda p, c: {
            "generation": TEXT,
            "stop_reason": "stop",
            **counts(prompt_token_count=p, generation_token_count=c),
        },
        lambda p, c: (
            invoked({"generation": TEXT, **counts(prompt_token_count=p)}),
            invoked(
                {
                    "generation": "",
                    "stop_reason": "stop",
                    **counts(generation_token_count=c),
                }
            ),
        ),
        via="native",
        model="meta.llama3-8b-instruct-v1:0",
    ),
    "ollama": CountingReader("ollama", ollama, lambda p, c: (ollama(p, c),)),
    "llama.cpp": CountingReader(
        "llama-cpp", infill, lambda p, c: (infill(p, c),), params={"suffix": "x"}
    ),
    "workers-ai": CountingReader(
        "workers-ai",
        lambda p, c: {
            "success": True,
            "result": {"response": TEXT, "usage": openai(p, c)},
        },
        lambda p, c: (
            {"response": TEXT},
            {"response": "", "usage": openai(p, c)},
            Event(b"[DONE]"),
        ),
    ),
}
EVERY_READER = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
NO_COUNTS = [Missing, None, 0, -3, "x", True, [], {}, 1e99, -0.5]
UNCOUNTED = pytest.mark.parametrize("value", NO_COUNTS, ids=str)


@EVERY_READER
@pytest.mark.parametrize("value", [197, 197.0, "197", "197.0"], ids=repr)
def test_counts_of_any_type_count(reader: CountingReader, value: Any) -> None:
    for usage in reader.usages(value, value):
        assert usage == Usage(197, 197)
        assert type(usage.prompt_tokens) is type(usage.completion_tokens) is int


@EVERY_READER
@UNCOUNTED
def test_uncounted_prompt_is_estimated(reader: CountingReader, value: Any) -> None:
    for usage in reader.usages(value, 9):
        assert usage == Usage(ESTIMATES[0], 9, estimated=True)


@EVERY_READER
@UNCOUNTED
def test_uncounted_completion_is_estimated(reader: CountingReader, value: Any) -> None:
    whole, streamed = reader.usages(7, value)

    assert whole == streamed == Usage(7, ESTIMATES[1], estimated=True)


@EVERY_READER
@UNCOUNTED
def test_uncounted_answer_is_estimated(reader: CountingReader, value: Any) -> None:
    for usage in reader.usages(value, value):
        assert usage == Usage(*ESTIMATES, estimated=True)


def test_counts_split_over_chunks_add_up() -> None:
    events = [
        delta("x") | {"usage": {"prompt_tokens": 7, "completion_tokens": 0}},
        delta("", "stop") | {"usage": {"completion_tokens": 2}},
        delta() | {"choices": [], "usage": {"prompt_tokens": 0, "total_tokens": 0}},
    ]
    pieces = harness.streamed("vllm", _events(events), to={"via": "chat"})

    assert pieces[-1].usage == Usage(7, 2)


def _events(documents: Sequence[Any]) -> list[Event]:
    return [Event(json.dumps(document).encode()) for document in documents]


def test_billed_units_fill_gaps() -> None:
    usage = {"tokens": {"input_tokens": 9}, "billed_units": {"output_tokens": 4.0}}
    answer = {
        "message": {"content": [{"type": "text", "text": "x"}]},
        "finish_reason": "COMPLETE",
        "usage": usage,
    }

    assert harness.whole("cohere", json.dumps(answer).encode()).usage == Usage(9, 4)


@pytest.mark.parametrize(
    "reported, expected",
    [
        # xAI: the three add up to the total.
        ((12, 1, 241, 228), Usage(12, 229, reasoning_tokens=228)),
        # OpenAI: reasoning is part of the completion.
        ((12, 229, 241, 228), Usage(12, 229, reasoning_tokens=228)),
        # OpenRouter has counted more reasoning than completion.
        ((43, 10, 53, 11), Usage(43, 10, reasoning_tokens=11)),
        ((12, None, 240, 228), Usage(12, 228, reasoning_tokens=228)),
        ((12.0, "1", 241.0, 228.0), Usage(12, 229, reasoning_tokens=228)),
        # The total says what a part that is missing was.
        ((12, None, 20, None), Usage(12, 8)),
        ((None, 8, 20, None), Usage(12, 8)),
        ((12, None, 3, None), Usage(12, 0)),
        # A total alone does not say which part is which.
        ((None, None, 20, None), None),
        ((0, 0, 0, 0), None),
    ],
    ids=str,
)
def test_total_says_what_reasoning_is(reported: Any, expected: Usage | None) -> None:
    prompt, tokens, total, reasoning = reported
    details = {"reasoning_tokens": reasoning}
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens}
    usage |= {"total_tokens": total, "completion_tokens_details": details}

    assert parse_usage(usage) == expected


NUMBERS = st.integers(0, 10**6)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_separate_reasoning_is_counted_once(p: int, c: int, r: int) -> None:
    usage = usage_of(p + 1, c, p + 1 + c + r, reasoning=r)

    assert usage and usage.prompt_tokens + usage.completion_tokens == p + 1 + c + r


@given(st.from_type(type) | st.floats() | st.text() | st.integers() | st.none())
def test_count_is_always_a_natural_number(value: Any) -> None:
    assert type(count_of(value)) is int and 0 <= count_of(value) < 2**40


@given(st.dictionaries(st.sampled_from(["prompt_tokens", "total_tokens"]), st.floats()))
def test_parsed_usage_can_be_serialized(usage: dict[str, Any]) -> None:
    parsed = parse_usage(usage)

    assert parsed is None or json.loads(json.dumps(parsed.to_body()))


def test_cached_tokens_are_part_of_the_prompt() -> None:
    """More of them would make a price negative."""
    assert usage_of(5, 1, cached=9) == Usage(5, 1, cached_tokens=5)
    estimated = usage_of(0, 1, cached=9)
    assert estimated and estimated.with_estimates(2, 1).prompt_tokens == 9
