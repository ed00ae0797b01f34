"""Providers whose completions endpoint has OpenAI's own shape.

What they answer is observed, not rebuilt: bytes pass through as they came, unless
something in them has to be repaired for legacy clients to work.

Source: https://github.com/openai/openai-openapi (CreateCompletionRequest/Response)
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from ..core.request import CompletionRequest, Prompt
from ..core.routing import Target
from ..core.sse import DONE, Event
from ..errors import UpstreamCut, UpstreamError, UpstreamProtocol
from . import failures
from .spec import (
    Answer,
    Call,
    Provider,
    bearer,
    get_models,
    model_list,
    read_object,
    url,
)

# What other servers call the reasons that OpenAI knows.
# Sources: Together's `eos`; TGI's `eos_token`, `stop_sequence` and `length`.
FINISH_REASONS = {
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "max_tokens": "length",
}
# Reasons that say that the text is not complete (SGLang, Fireworks).
FAILURES = ("abort", "error")


def call(provider: Provider, request: CompletionRequest, target: Target) -> Call:
    """The request as it came: not one byte of a prompt changes."""
    body = orjson.dumps(request.to_body())
    return Call("POST", url(provider, target, "/completions"), bearer(target), body)


def completion(body: bytes, request: CompletionRequest) -> Answer:
    """The answer as it came, or with what clients need and it lacks."""
    document = read_object(body)
    _refuse_error(document)
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UpstreamProtocol(f"the answer has no choices: {sorted(document)}")
    repairs = [_repair_choice(choice, final=True) for choice in choices]
    repairs += [_repair_head(document, request), _repair_usage(document, request)]
    return orjson.dumps(document) if any(repairs) else body


def _refuse_error(document: dict[str, Any]) -> None:
    if document.get("error") or document.get("object") == "error":
        raise failures.in_band(document)


def _repair_head(document: dict[str, Any], request: CompletionRequest) -> bool:
    """Set `object`, and `id` and `created` where absent. True if anything changed."""
    head = {
        "id": document.get("id") or request.id,
        "object": "text_completion",
        "created": document.get("created") or request.created,
    }
    changed = any(document.get(key) != value for key, value in head.items())
    document.update(head)
    return changed


def _repair_choice(choice: Any, *, final: bool) -> bool:
    """Fill what clients index or compare. True if anything changed."""
    if not isinstance(choice, dict):
        raise UpstreamProtocol("a choice of the answer is no object")
    reason = choice.get("finish_reason")
    if reason in FAILURES:
        raise UpstreamCut(f"upstream gave up with finish_reason {reason!r}")
    repaired = {
        "text": choice.get("text") or "",
        "index": choice.get("index") or 0,
        "logprobs": choice.get("logprobs"),
        "finish_reason": _finish_reason(reason, final=final),
    }
    changed = any(k not in choice or choice[k] != v for k, v in repaired.items())
    choice.update(repaired)
    return changed


def _finish_reason(reason: Any, *, final: bool) -> str | None:
    if not reason:
        return "stop" if final else None
    return FINISH_REASONS.get(reason, str(reason))


def _repair_usage(document: dict[str, Any], request: CompletionRequest) -> bool:
    """Estimate `usage` where upstream counts nothing, and say so in the answer.

    LangChain fails on an answer without it.
    """
    if isinstance(document.get("usage"), dict):
        return False
    sent = sum(map(estimate, request.prompts))
    made = sum(estimate(choice["text"]) for choice in document["choices"])
    document["usage"] = {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "total_tokens": sent + made,
    }
    document["usage_estimated"] = True
    return True


def estimate(prompt: Prompt) -> int:
    """About how many tokens a text has: one for four bytes. Exact for token ids."""
    if isinstance(prompt, str):
        return -(-len(prompt.encode("utf-8", "surrogatepass")) // 4)
    return len(prompt or ())


# A frame that needs no repair holds each of these. None can stand inside a JSON string,
# where its quotes would be escaped.
_CLEAN = tuple(
    map(
        re.compile,
        (
            rb'"finish_reason":\s?null',
            rb'"object":\s?"text_completion"',
            rb'"logprobs":',
        ),
    )
)
_INDEX = re.compile(rb'"index":\s?(\d+)')
_USAGE = re.compile(rb'"usage":')
_NO_USAGE = re.compile(rb'"usage":\s?null')
# Data that stands for nothing; llama.cpp opens the stream of a batch with `null`.
_NOTHING = (b"", b"null")


def chunks(events: Iterable[Event], request: CompletionRequest) -> Iterator[bytes]:
    """The frames as they came; those that legacy clients would trip over, repaired.

    One id and time for all, one choice in each, one finish_reason for each choice;
    usage only as asked for, and then in a last frame without choices.
    """
    stream = _Stream(request)
    for event in _until_done(events, stream):
        if stream.untouched(event.data):
            yield event.data
        elif event.data not in _NOTHING:
            yield from stream.repaired(event.data)
    if not stream.complete:
        raise UpstreamCut("upstream ended the stream before the completion was done")
    yield from stream.closing()


def _until_done(events: Iterable[Event], stream: "_Stream") -> Iterator[Event]:
    """The events before `[DONE]`. To lose the connection after the last is no loss."""
    try:
        for event in events:
            if event.data == DONE:
                return
            yield event
    except UpstreamError:
        if not stream.complete:
            raise


class _Stream:
    """What is known of one stream: its head, and which choices run or have finished."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._head: dict[str, Any] = {}
        self._marks = _CLEAN
        self._running: set[int] = set()
        self._finished: set[int] = set()
        self._usage: Any = None

    @property
    def complete(self) -> bool:
        return bool(self._finished) and not self._running

    def untouched(self, data: bytes) -> bool:
        """Whether *data* is a running frame of a known choice that needs no repair."""
        indices = _INDEX.findall(data)
        if len(indices) != 1 or int(indices[0]) not in self._running:
            return False
        clean = all(mark.search(data) for mark in self._marks)
        return clean and b'"error"' not in data and self._usage_fits(data)

    def _usage_fits(self, data: bytes) -> bool:
        """Whether `usage` is there, or is not there, as the caller asked for it."""
        if self._request.continuous_usage:
            return True
        pattern = _NO_USAGE if self._request.include_usage else _USAGE
        return bool(pattern.search(data)) == self._request.include_usage

    def repaired(self, data: bytes) -> Iterator[bytes]:
        """The frames that *data* stands for, each with one choice, or none."""
        frame = read_object(data)
        _refuse_error(frame)
        self._learn(frame)
        choices = frame.pop("choices", None) or []
        usage = frame.pop("usage", None)
        if isinstance(usage, dict) and usage.get("total_tokens"):
            self._usage = usage
        for choice in choices:
            _repair_choice(choice, final=False)
            if self._follow(choice):
                body = self._frame(frame, [choice], self._running_usage(usage))
                yield data if body == read_object(data) else orjson.dumps(body)

    def _learn(self, frame: dict[str, Any]) -> None:
        """Keep the head of the first frame, and put it on all that follow."""
        if not self._head:
            _repair_head(frame, self._request)
            self._head = {k: frame[k] for k in _HEAD if k in frame}
            self._marks = (*_CLEAN, *map(self._mark, ("id", "created")))
        frame.update(self._head)

    def _mark(self, key: str) -> re.Pattern[bytes]:
        value = re.escape(orjson.dumps(self._head[key]))
        return re.compile(rb'"%b":\s?%b\s*[,}]' % (key.encode(), value))

    def _follow(self, choice: dict[str, Any]) -> bool:
        """Note where a choice stands. False for a frame that comes after its end."""
        index, reason = choice["index"], choice["finish_reason"]
        if index in self._finished:
            return False
        if reason:
            self._running.discard(index)
            self._finished.add(index)
        else:
            self._running.add(index)
        return True

    def _running_usage(self, usage: Any) -> Any:
        return usage if self._request.continuous_usage else None

    def _frame(
        self, frame: dict[str, Any], choices: list[Any], usage: Any
    ) -> dict[str, Any]:
        body = {**frame, "choices": choices}
        if self._request.include_usage or usage:
            body["usage"] = usage
        return body

    def closing(self) -> Iterator[bytes]:
        """The chunk with the usage, if it was asked for and upstream counted."""
        if self._request.include_usage and self._usage:
            yield orjson.dumps(self._frame(self._head, [], self._usage))


# What every frame of a stream has in common.
_HEAD = ("id", "object", "created", "model")

OPENAI = Provider(
    name="openai",
    # https://platform.openai.com/docs/api-reference/completions
    base_url="https://api.openai.com/v1",
    headers={
        "x-portkey-openai-organization": "OpenAI-Organization",
        "x-portkey-openai-project": "OpenAI-Project",
        "x-portkey-openai-beta": "OpenAI-Beta",
        "openai-beta": "OpenAI-Beta",
    },
    call=call,
    completion=completion,
    chunks=chunks,
    error=failures.error,
    models=get_models,
    model_list=model_list,
)
