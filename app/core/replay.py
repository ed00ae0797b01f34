"""Replay: a whole answer as a stream, and a stream as a whole answer.

The response cache stores whole answers, of streams too, and sends them in either form.

Source: CreateCompletionResponse in https://github.com/openai/openai-openapi
"""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from .completion import Usage

# A whole answer as a stream

# Characters of text in a chunk, as in Portkey's own replays.
_CHUNK_LENGTH = 500

# What all chunks of a stream have in common.
_HEAD = ("id", "object", "created", "model")
_USAGE = ("usage", "usage_estimated")


def to_chunks(body: bytes, *, include_usage: bool) -> Iterator[bytes]:
    """The chunks of a stream with the content of the whole answer in *body*.

    Choices follow one after the other, each ended by its finish_reason; then comes the
    usage, with *include_usage*. Fields that a provider adds are in the first chunk.
    """
    document = json.loads(body)
    head = {name: document[name] for name in _HEAD if name in document}
    standard = (*_HEAD, *_USAGE, "choices")
    extra = {name: value for name, value in document.items() if name not in standard}
    no_usage = {"usage": None} if include_usage else {}
    for choice in document["choices"]:
        for part in _split_choice(choice):
            yield _encode({**head, "choices": [part], **no_usage, **extra})
            extra = {}
    if include_usage and document.get("usage"):
        usage = {name: document[name] for name in _USAGE if name in document}
        yield _encode({**head, "choices": [], **usage})


def _encode(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # A surrogate without its other half cannot be sent; it becomes a question mark.
    return text.encode("utf-8", "replace")


def _split_choice(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a choice. Fields that a provider adds to it are in the last."""
    text = choice.get("text") or ""
    starts = range(0, len(text), _CHUNK_LENGTH)
    texts = [text[i : i + _CHUNK_LENGTH] for i in starts] or [""]
    parts = [
        {"text": text, "index": choice.get("index") or 0, "logprobs": logprobs}
        for text, logprobs in zip(
            texts, _split_logprobs(choice.get("logprobs"), len(texts)), strict=True
        )
    ]
    for part in parts[:-1]:
        yield {**part, "finish_reason": None}
    standard = ("text", "index", "logprobs")
    rest = {name: value for name, value in choice.items() if name not in standard}
    yield {**parts[-1], **rest}


def _split_logprobs(logprobs: Any, count: int) -> list[Any]:
    """The tokens of a text that is split into *count* parts, for each part.

    All are with the first part, if their offsets do not say where they belong.
    """
    all_with_first = [logprobs] + [None] * (count - 1)
    if not logprobs or count == 1:
        return all_with_first
    tokens, offsets = logprobs.get("tokens"), logprobs.get("text_offset")
    if not tokens or not isinstance(offsets, list) or len(offsets) != len(tokens):
        return all_with_first
    if not all(type(each) is int for each in offsets) or offsets != sorted(offsets):
        return all_with_first
    # The number of the first token of each part, and one behind the last token.
    starts = (offsets[0] + _CHUNK_LENGTH * i for i in range(1, count))
    bounds = [0, *(bisect_left(offsets, start) for start in starts), len(tokens)]
    return [
        _slice_logprobs(logprobs, len(tokens), start, end)
        for start, end in zip(bounds, bounds[1:], strict=False)
    ]


def _slice_logprobs(
    logprobs: Mapping[str, Any], total: int, start: int, end: int
) -> dict[str, Any] | None:
    """The tokens from *start* to *end* of *total*; None if there are none."""
    if start == end:
        return None
    part: dict[str, Any] = {}
    for name, value in logprobs.items():
        if not isinstance(value, list):
            part[name] = value
        elif len(value) == total:
            part[name] = value[start:end]
        else:
            # A list without an entry for each token cannot be split.
            part[name] = value if start == 0 else []
    return part


# A stream as a whole answer

# Bytes of chunks; a longer answer is not cached.
_MAX_SIZE = 2**23


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)

# What reading a chunk raises that does not have the form of ours.
_MALFORMED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


class ChunkAssembler:
    """Feed it the chunks of a stream, and take the whole answer that they make up."""

    def __init__(self, max_size: int = _MAX_SIZE) -> None:
        self._remaining_size = max_size
        self._is_valid = True
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._choices: dict[int, _ChoiceAssembler] = {}

    def feed(self, chunk: bytes) -> None:
        """Add one chunk. After a malformed one there is no answer."""
        self._remaining_size -= len(chunk)
        if self._is_valid and self._remaining_size >= 0:
            try:
                self._add(_DECODER.decode(chunk.decode()))
                return
            except _MALFORMED:
                pass
        self._is_valid = False
        self._choices = {}

    def _add(self, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            raise ValueError("an error is no answer")
        usage = {name: chunk.pop(name) for name in _USAGE if name in chunk}
        if usage.get("usage"):
            self._usage = usage
        for choice in chunk.pop("choices"):
            index = choice.pop("index")
            self._choices.setdefault(index, _ChoiceAssembler()).feed(choice)
        for name, value in chunk.items():
            self._head.setdefault(name, value)

    def whole(self, usage: Usage | None = None) -> bytes | None:
        """The answer as JSON; None if it is not complete, or cannot be cached.

        *usage* is for a stream that did not report any.
        """
        choices = [self._choices.get(i) for i in range(len(self._choices))]
        if not choices or not all(c and c.finish_reason for c in choices):
            return None
        bodies = [c.to_body(i) for i, c in enumerate(choices) if c]
        head = {name: self._head[name] for name in _HEAD if name in self._head}
        fields = self._usage
        if not fields and usage is not None:
            fields = {"usage": usage.to_body()}
            if usage.estimated:
                fields["usage_estimated"] = True
        return _encode({**head, "choices": bodies, **fields, **self._head})


class _ChoiceAssembler:
    """One choice of a stream, as far as it has come."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._text = StringIO()
        self._logprobs: dict[str, Any] | None = None
        self._extra: dict[str, Any] = {}

    def feed(self, choice: dict[str, Any]) -> None:
        self._text.write(choice.pop("text"))
        self.finish_reason = choice.pop("finish_reason", None) or self.finish_reason
        logprobs = choice.pop("logprobs", None)
        if logprobs is not None:
            self._logprobs = _merge_fields(self._logprobs or {}, logprobs)
        _merge_fields(self._extra, choice)

    def to_body(self, index: int) -> dict[str, Any]:
        return {
            "text": self._text.getvalue(),
            "index": index,
            "logprobs": self._logprobs,
            "finish_reason": self.finish_reason,
            **self._extra,
        }


def _merge_fields(fields: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """*fields*, with lists in *more* appended to its lists, and other values set."""
    for name, value in more.items():
        if isinstance(value, list) and isinstance(fields.get(name), list):
            fields[name] += value
        elif value is not None or name not in fields:
            fields[name] = value
    return fields
