"""The legacy endpoint's own shape, where it comes from upstream.

What such providers answer is observed, not rebuilt: bytes pass through as they came,
unless something in them has to be repaired for legacy clients to work, or the answer is
part of another.

Source: https://github.com/openai/openai-openapi (CreateCompletionRequest/Response)
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from ...core.completion import Choice, Completion, Logprobs, Usage, estimate
from ...core.post_processing import prompt_estimate
from ...core.sse import DONE, Event
from ...errors import UpstreamCut, UpstreamError, UpstreamProtocol
from ..declaration import (
    LEGACY_PARAMS,
    Endpoint,
    HTTPRequest,
    ParamMapping,
    RawCompletion,
    UpstreamAnswer,
    UpstreamRequest,
    read_completion,
    read_object,
    same_named,
)
from ..parsing.finish_reasons import finish_reason
from ..parsing.usage import usage
from .openai_chat import NOTHING, created, refuse_error, text_of

# All of the endpoint's parameters, as OpenAI takes them.
PARAMS = same_named(*LEGACY_PARAMS)


def endpoint(
    path: str = "/completions",
    *,
    without: Iterable[str] = (),
    **others: ParamMapping,
) -> Endpoint:
    """OpenAI's completions endpoint at *path*, *without* some of its parameters.

    *others* are parameters that differ. Without `n` it draws one choice a call.
    """
    params = {k: v for k, v in PARAMS.items() if k not in without} | others
    return Endpoint(
        params=params,
        passes=True,
        tokens=True,
        batches=True,
        null=True,
        least=0,
        choices=128 if "n" in params else 1,
        raw=True,
        call=lambda ask: call(ask, path),
        completion=completion,
        chunks=chunks,
    )


def call(ask: UpstreamRequest, path: str) -> HTTPRequest:
    """The request as it came: not one byte of a prompt changes."""
    return ask.post(path, request(ask))


def request(ask: UpstreamRequest) -> dict[str, Any]:
    """The body of the request, in the endpoint's own words."""
    asked = ask.request
    body = {"model": asked.model, "prompt": asked.prompt, **ask.body()}
    if "stream" in asked.params:
        body["stream"] = asked.stream
    return body


def completion(body: bytes, ask: UpstreamRequest) -> UpstreamAnswer:
    """The answer as it came, or with what clients need and it lacks."""
    document = read_object(body)
    refuse_error(document)
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UpstreamProtocol(f"the answer has no choices: {sorted(document)}")
    repairs = [_repair_choice(choice, ask, final=True) for choice in choices]
    for choice in choices:
        _check_scores(choice, ask)
    repairs += [_repair_head(document, ask), _repair_usage(document, ask)]
    answer = orjson.dumps(document) if any(repairs) else body
    return RawCompletion(answer, _counted(document) or _guessed(document, ask))


def _guessed(document: Mapping[str, Any], ask: UpstreamRequest) -> Usage:
    """The usage of a whole answer that says it took nothing."""
    sent = sum(map(prompt_estimate, ask.request.prompts))
    made = sum(estimate(choice["text"]) for choice in document["choices"])
    return Usage(sent, made, estimated=True)


def _counted(document: Mapping[str, Any]) -> Usage | None:
    """The usage of a whole answer, which may be an estimate of ours."""
    found = usage(document["usage"])
    estimated = "usage_estimated" in document
    return replace(found, estimated=True) if found and estimated else found


def _repair_head(document: dict[str, Any], ask: UpstreamRequest) -> bool:
    """Set `object`, and what else is absent. True if anything changed."""
    head = {
        "id": document.get("id") or ask.request.id,
        "object": "text_completion",
        "created": created(document, ask),
        "model": document.get("model") or ask.request.model,
    }
    changed = any(_differs(document.get(key), head[key]) for key in head)
    document.update(head)
    return changed


def _differs(given: Any, right: Any) -> bool:
    """Whether one is to be replaced by the other. 5.0 is not the integer 5."""
    return type(given) is not type(right) or given != right


def _repair_choice(choice: Any, ask: UpstreamRequest, *, final: bool) -> bool:
    """Fill what clients index or compare. True if anything changed."""
    if not isinstance(choice, dict):
        raise UpstreamProtocol("a choice of the answer is no object")
    reason = finish_reason(choice.get("finish_reason"), strict=ask.target.strict)
    repaired = {
        "text": _text(choice),
        "index": _index(choice),
        "logprobs": choice.get("logprobs"),
        "finish_reason": reason or ("stop" if final else None),
    }
    changed = any(k not in choice or choice[k] != v for k, v in repaired.items())
    choice.update(repaired)
    return changed


def _check_scores(choice: Mapping[str, Any], ask: UpstreamRequest) -> None:
    """Refuse scores of the answer alone where those of the prompt were asked for.

    Evaluations take one for the other in silence: ggml-org/llama.cpp#27174.
    """
    asked = ask.request
    if not asked.echo or asked.logprobs is None:
        return
    prompt = asked.prompts[choice["index"] // asked.n % len(asked.prompts)]
    tokens = _tokens(choice["logprobs"])
    seen = len("".join(tokens)) if isinstance(prompt, str) else len(tokens)
    if seen < len(prompt or ()):
        raise UpstreamProtocol(
            "upstream sent no log probabilities of the prompt, though 'echo' and "
            "'logprobs' ask for them"
        )


def _tokens(logprobs: Any) -> list[str]:
    """The tokens that have scores; none, if what stands there is something else."""
    tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    told = isinstance(tokens, list) and all(isinstance(t, str) for t in tokens)
    return tokens if told and tokens else []


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index") or 0
    if type(index) is not int:
        raise UpstreamProtocol(f"a choice of the answer has no number: {index!r:.40}")
    return index


def _text(choice: Mapping[str, Any]) -> str:
    """The text, also of servers that speak of messages even here (Mistral's FIM)."""
    said = choice.get("text")
    if said is None:
        message = choice.get("delta") or choice.get("message")
        return text_of(message.get("content")) if isinstance(message, dict) else ""
    return str(said)


def _repair_usage(document: dict[str, Any], ask: UpstreamRequest) -> bool:
    """Estimate `usage` where upstream counts nothing, and say so in the answer.

    LangChain fails on an answer without it.
    """
    if isinstance(document.get("usage"), dict):
        return False
    made = sum(estimate(choice["text"]) for choice in document["choices"])
    document["usage"] = _estimated(ask, made)
    document["usage_estimated"] = True
    return True


def _estimated(ask: UpstreamRequest, made: int) -> dict[str, int]:
    sent = sum(map(prompt_estimate, ask.request.prompts))
    return {
        "prompt_tokens": sent,
        "completion_tokens": made,
        "total_tokens": sent + made,
    }


# A frame that needs no repair holds each of these. None can stand inside a JSON string,
# where its quotes would be escaped.
_CLEAN = tuple(
    map(
        re.compile,
        (
            rb'"finish_reason":\s?null',
            rb'"object":\s?"text_completion"',
            rb'"logprobs":',
            rb'"text":\s?"',
        ),
    )
)
_INDEX = re.compile(rb'"index":\s?(\d+)')
_TEXT = re.compile(rb'"text":\s?"((?:[^"\\]|\\.)*)"')
# What stands in a JSON string as it is.
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_USAGE = re.compile(rb'"usage":')
_NO_USAGE = re.compile(rb'"usage":\s?null')


def chunks(events: Iterable[Event], ask: UpstreamRequest) -> Iterator[RawCompletion]:
    """The frames as they came; those that legacy clients would trip over, repaired.

    One id and time for all, one choice in each, one finish_reason for each choice;
    usage only as asked for, and then in a last frame without choices.
    """
    stream = _Stream(ask)
    for event in _until_done(events, stream):
        if stream.untouched(event.data):
            yield RawCompletion(event.data)
        elif event.data not in NOTHING:
            yield from map(RawCompletion, stream.repaired(event.data))
    if not stream.complete:
        raise UpstreamCut("upstream ended the stream before the completion was done")
    yield RawCompletion(stream.closing(), stream.usage)


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


class _Mould:
    """What frames that differ in their text alone have in common.

    A server sends hundreds that do. Who has looked at the first knows of the others
    that they need no repair.
    """

    def __init__(self, data: bytes) -> None:
        found = list(_TEXT.finditer(data))
        self._is_clear = len(found) == 1
        start, end = found[0].span(1) if found else (0, 0)
        self._before, self._after = data[:start], data[end:]
        self._start, self._rest = start, len(data) - end

    def fits(self, data: bytes) -> bool:
        """Whether *data* is like the first but for plain words in its text."""
        return (
            self._is_clear
            and data.startswith(self._before)
            and data.endswith(self._after)
            and bool(_PLAIN.fullmatch(data, self._start, len(data) - self._rest))
        )


class _Stream:
    """What is known of one stream: its head, and which choices run or have finished."""

    def __init__(self, ask: UpstreamRequest) -> None:
        self._ask = ask
        self._request = ask.request
        self._head: dict[str, Any] = {}
        self._marks = _CLEAN
        self._mould: _Mould | None = None
        self._running: set[int] = set()
        self._finished: set[int] = set()
        self._usage: Any = None
        self._made = 0

    @property
    def complete(self) -> bool:
        return bool(self._finished) and not self._running

    def untouched(self, data: bytes) -> bool:
        """Whether *data* is a running frame of a known choice that needs no repair."""
        fits = self._mould is not None and self._mould.fits(data)
        if not fits and self._is_clean(data):
            fits, self._mould = True, _Mould(data)
        # Nearly every server sends one token a frame.
        self._made += fits
        return fits

    def _is_clean(self, data: bytes) -> bool:
        indices = _INDEX.findall(data)
        if len(indices) != 1 or int(indices[0]) not in self._running:
            return False
        clean = all(mark.search(data) for mark in self._marks)
        fits = clean and b'"error"' not in data and self._usage_fits(data)
        if fits:
            read_object(data)  # It raises for what only looks like JSON.
        return fits

    def _usage_fits(self, data: bytes) -> bool:
        """Whether `usage` is there, or is not there, as the caller asked for it."""
        if self._request.continuous_usage:
            return True
        pattern = _NO_USAGE if self._request.include_usage else _USAGE
        return bool(pattern.search(data)) == self._request.include_usage

    def repaired(self, data: bytes) -> Iterator[bytes]:
        """The frames that *data* stands for, each with one choice, or none."""
        frame = read_object(data)
        refuse_error(frame)
        self._learn(frame)
        choices = frame.pop("choices", None) or []
        if not isinstance(choices, list):
            raise UpstreamProtocol("the answer has no list of choices")
        given = frame.pop("usage", None)
        if isinstance(given, dict) and given.get("total_tokens"):
            self._usage = given
        for choice in choices:
            _repair_choice(choice, self._ask, final=False)
            if self._follow(choice):
                body = self._frame(frame, [choice], self._running_usage(given))
                yield data if body == read_object(data) else orjson.dumps(body)

    def _learn(self, frame: dict[str, Any]) -> None:
        """Keep the head of the first frame, and put it on all that follow."""
        if not self._head:
            _repair_head(frame, self._ask)
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
        self._made += estimate(choice["text"])
        if reason:
            self._running.discard(index)
            self._finished.add(index)
            self._mould = None
        else:
            self._running.add(index)
        return True

    def _running_usage(self, given: Any) -> Any:
        return given if self._request.continuous_usage else None

    def _frame(
        self, frame: dict[str, Any], choices: list[Any], counted: Any
    ) -> dict[str, Any]:
        body = {**frame, "choices": choices}
        if self._request.include_usage or counted:
            body["usage"] = counted
        return body

    @property
    def usage(self) -> Usage | None:
        """What upstream has counted."""
        return usage(self._usage)

    def closing(self) -> bytes:
        """The chunk with the usage, estimated if nobody counted; nothing, unasked."""
        if not self._request.include_usage:
            return b""
        if self._usage:
            return orjson.dumps(self._frame(self._head, [], self._usage))
        last = self._frame(self._head, [], _estimated(self._ask, self._made))
        return orjson.dumps(last | {"usage_estimated": True})


# What every frame of a stream has in common.
_HEAD = ("id", "object", "created", "model")


# As part of another answer


def rebuilt(answer: UpstreamAnswer) -> Completion:
    """*answer* as a value, whether or not it has been one all along."""
    if isinstance(answer, Completion):
        return answer
    if not answer.body:
        return Completion("", 0, "", usage=answer.usage)
    return read_completion(answer.body, _completion)


def _completion(document: Mapping[str, Any]) -> Completion:
    return Completion(
        id=document["id"],
        created=document["created"],
        model=str(document.get("model") or ""),
        choices=tuple(map(_choice, document["choices"])),
        usage=_counted({"usage": None, **document}),
    )


def _choice(choice: Mapping[str, Any]) -> Choice:
    return Choice(
        choice["text"],
        choice["index"],
        _logprobs(choice.get("logprobs")),
        choice["finish_reason"],
    )


def _logprobs(given: Mapping[str, Any] | None) -> Logprobs | None:
    if not given or not given.get("tokens"):
        return None
    tokens = given["tokens"]
    nothing = [None] * len(tokens)
    return Logprobs(
        tokens,
        given.get("token_logprobs") or nothing,
        given.get("top_logprobs") or nothing,
        given.get("text_offset") or [0] * len(tokens),
    )
