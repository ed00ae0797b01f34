"""A whole answer as a stream, and a stream as a whole answer; both say the same.

Source: CreateCompletionResponse in https://github.com/openai/openai-openapi
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any

from .completion import Usage

# A whole answer as a stream

# Characters of text in a frame, as in Portkey's own repetitions.
_LONGEST = 500

# What every frame of a stream has in common.
_HEAD = ("id", "object", "created", "model")
_USAGE = ("usage", "usage_estimated")


def to_chunks(body: bytes, *, include_usage: bool) -> Iterator[bytes]:
    """The frames of a stream that says what the whole answer in *body* says.

    One choice in each, one after the other, each ended by its finish_reason; then the
    usage, if it was asked for. What a provider adds to the answer is in the first.
    """
    document = json.loads(body)
    head = {name: document[name] for name in _HEAD if name in document}
    own = (*_HEAD, *_USAGE, "choices")
    more = {name: value for name, value in document.items() if name not in own}
    no_usage = {"usage": None} if include_usage else {}
    for choice in document["choices"]:
        for piece in _pieces(choice):
            yield _json({**head, "choices": [piece], **no_usage, **more})
            more = {}
    if include_usage and document.get("usage"):
        usage = {name: document[name] for name in _USAGE if name in document}
        yield _json({**head, "choices": [], **usage})


def _json(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    # A surrogate without its other half cannot be sent; it becomes a question mark.
    return text.encode("utf-8", "replace")


def _pieces(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A choice, cut into short ones. What a provider adds to it is in the last."""
    text = choice.get("text") or ""
    texts = [text[i : i + _LONGEST] for i in range(0, len(text), _LONGEST)] or [""]
    scores = _parted(choice.get("logprobs"), len(texts))
    for piece, score in zip(texts[:-1], scores[:-1], strict=True):
        yield {**_choice(choice, piece, score), "finish_reason": None}
    own = ("text", "index", "logprobs")
    rest = {name: value for name, value in choice.items() if name not in own}
    yield {**_choice(choice, texts[-1], scores[-1]), **rest}


def _choice(choice: Mapping[str, Any], text: str, score: Any) -> dict[str, Any]:
    """A piece of *choice*, without its end."""
    return {"text": text, "index": choice.get("index") or 0, "logprobs": score}


def _parted(logprobs: Any, count: int) -> list[Any]:
    """The tokens of a text that is cut into *count* pieces, for each piece.

    All are with the first if it cannot be told where they belong.
    """
    places = _places(logprobs, count) if logprobs and count > 1 else None
    if places is None:
        return [logprobs] + [None] * (count - 1)
    total = len(logprobs["tokens"])
    bounds = zip([0, *places], [*places, total], strict=True)
    return [_part(logprobs, total, start, end) for start, end in bounds]


def _places(logprobs: Mapping[str, Any], count: int) -> list[int] | None:
    """The number of the first token of each piece but the first."""
    tokens, offsets = logprobs.get("tokens"), logprobs.get("text_offset")
    if not tokens or not isinstance(offsets, list) or len(offsets) != len(tokens):
        return None
    if not all(type(at) is int for at in offsets) or offsets != sorted(offsets):
        return None
    starts = (offsets[0] + _LONGEST * i for i in range(1, count))
    return [bisect_left(offsets, start) for start in starts]


def _part(logprobs: Mapping[str, Any], total: int, start: int, end: int) -> Any:
    """The tokens from *start* to *end*; None if there are none."""
    if start == end:
        return None
    return {name: _share(value, total, start, end) for name, value in logprobs.items()}


def _share(value: Any, total: int, start: int, end: int) -> Any:
    """What a part has of a list that may have an item for each token."""
    if not isinstance(value, list):
        return value
    if len(value) == total:
        return value[start:end]
    return value if start == 0 else []


# A stream as a whole answer

# Bytes of frames; an answer that has more is not kept.
_MOST = 2**23


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_READER = json.JSONDecoder(parse_constant=_refuse)

# What a frame can raise whose shape is another one than ours.
_UNREADABLE = (AttributeError, KeyError, RecursionError, TypeError, ValueError)


class ChunkAssembler:
    """Feed it the frames of a stream, take the whole answer that they make up."""

    def __init__(self, most: int = _MOST) -> None:
        self._left = most
        self._is_readable = True
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._choices: dict[int, _Joining] = {}

    def feed(self, frame: bytes) -> None:
        """Take one more into account. What cannot be read makes no answer."""
        self._left -= len(frame)
        if self._left < 0 or not self._is_readable:
            self._give_up()
            return
        try:
            self._take(_READER.decode(frame.decode()))
        except _UNREADABLE:
            self._give_up()

    def _give_up(self) -> None:
        self._is_readable = False
        self._choices = {}

    def _take(self, frame: dict[str, Any]) -> None:
        if frame.get("error"):
            raise ValueError("an error is no answer")
        counted = {name: frame.pop(name) for name in _USAGE if name in frame}
        if counted.get("usage"):
            self._usage = counted
        for choice in frame.pop("choices"):
            index = choice.pop("index")
            self._choices.setdefault(index, _Joining()).feed(choice)
        for name, value in frame.items():
            self._head.setdefault(name, value)

    def whole(self, usage: Usage | None = None) -> bytes | None:
        """The answer as JSON; None if it is not complete, or cannot be kept.

        *usage* is what to say of a stream in which nothing is said.
        """
        choices = [self._choices.get(i) for i in range(len(self._choices))]
        if not choices or not all(c and c.finish_reason for c in choices):
            return None
        bodies = [c.to_body(i) for i, c in enumerate(choices) if c]
        head = {name: self._head[name] for name in _HEAD if name in self._head}
        counted = self._usage or _said(usage)
        return _json({**head, "choices": bodies, **counted, **self._head})


def _said(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    flag = {"usage_estimated": True} if usage.estimated else {}
    return {"usage": usage.to_body(), **flag}


class _Joining:
    """One choice of a stream, as far as it has come."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._text = StringIO()
        self._logprobs: dict[str, Any] | None = None
        self._more: dict[str, Any] = {}

    def feed(self, choice: dict[str, Any]) -> None:
        self._text.write(choice.pop("text"))
        self.finish_reason = choice.pop("finish_reason", None) or self.finish_reason
        logprobs = choice.pop("logprobs", None)
        if logprobs is not None:
            self._logprobs = _merge(self._logprobs or {}, logprobs)
        _merge(self._more, choice)

    def to_body(self, index: int) -> dict[str, Any]:
        return {
            "text": self._text.getvalue(),
            "index": index,
            "logprobs": self._logprobs,
            "finish_reason": self.finish_reason,
            **self._more,
        }


def _merge(known: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """*known*, with the lists in *more* added to its own, and what else is new."""
    for name, value in more.items():
        if isinstance(value, list) and isinstance(known.get(name), list):
            known[name] += value
        elif value is not None or name not in known:
            known[name] = value
    return known


def whole(stream: Iterable[bytes], usage: Usage | None = None) -> bytes | None:
    """The whole answer of the frames in *stream*; None if they do not make one."""
    joined = ChunkAssembler()
    for frame in stream:
        joined.feed(frame)
    return joined.whole(usage)
