"""Answers that are given again: when, to whom, and in which form.

An entry holds a whole answer. A stream is made of it where one is wanted, and it is
made of a stream where that came first; both forms say the same.

Sources: https://portkey.ai/docs/product/ai-gateway/cache-simple-and-semantic (the
config) and CreateCompletionResponse in https://github.com/openai/openai-openapi
"""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from io import StringIO
from typing import Any

from .completion import Usage
from .request import CompletionRequest
from .routing import Target


class CacheStatus(StrEnum):
    """What `x-portkey-cache-status` says."""

    HIT = "HIT"
    MISS = "MISS"
    REFRESH = "REFRESH"
    DISABLED = "DISABLED"


class Scope(StrEnum):
    """Whose answers are given to whom: those of the same credentials, or config."""

    CREDENTIALS = "credentials"
    CONFIG = "config"


# Seconds. Source: the page above, of the hosted gateway.
_WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """That answers are repeated, for *max_age* seconds."""

    max_age: float = _WEEK
    scope: Scope = Scope.CREDENTIALS

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "CachePolicy | None":
        """The policy of a config's `cache`; None if nothing may be as old as that.

        Raises ValueError, which says what is wrong.
        """
        _check_mode(given.get("mode"))
        max_age = _max_age(given.get("max_age"))
        scope = _scope(given.get("scope"))
        return cls(max_age, scope) if max_age > 0 else None


def _check_mode(mode: Any) -> None:
    if mode == "semantic":
        raise ValueError(
            "cache.mode 'semantic' is not supported: this gateway repeats answers to "
            "identical requests only, which is mode 'simple'"
        )
    if mode != "simple":
        raise ValueError(f"cache.mode must be 'simple', not {mode!r:.80}")


def _max_age(given: Any) -> float:
    if given is None:
        return _WEEK
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not number or not 0 <= given < float("inf"):
        raise ValueError(
            f"cache.max_age must be a number of seconds, 0 or more, not {given!r:.80}"
        )
    return float(given)


def _scope(given: Any) -> Scope:
    if given is None:
        return Scope.CREDENTIALS
    if given not in tuple(Scope):
        raise ValueError(
            f"cache.scope must be one of {', '.join(Scope)}, not {given!r:.80}"
        )
    return Scope(given)


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole answer, its JSON in *body*, as it is kept.

    *made* is in Unix seconds, *max_age* in seconds. *headers* are told with it again,
    and so are *warnings*.
    """

    body: bytes
    made: float
    max_age: float
    provider: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def age(self, now: float) -> float:
        """Seconds since it was made. Clocks of two machines may differ a little."""
        return max(0.0, now - self.made)

    def is_fresh(self, now: float, max_age: float = float("inf")) -> bool:
        """Whether it may be given, to one who takes none older than *max_age*."""
        return self.age(now) < min(self.max_age, max_age)


# What upstream says of the answer. Its other headers are about the request that was
# paid for (limits, ids, times), or about the account that paid.
_REPEATED = ("openai-model", "openai-version")


def repeated(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an answer's headers that are true of its repetition as well."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: lower[name] for name in _REPEATED if name in lower}


def is_repeatable(request: CompletionRequest) -> bool:
    """Whether a repetition could be what *request* asks for.

    What was counted after each frame of a stream is not known of a whole answer.
    """
    return not request.continuous_usage


# The key


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, which keeps answers apart that are alike.

    *caller* names the gateway key, *config* the stored config (or is the fingerprint of
    one that was sent); *namespace* is the caller's own word.
    """

    caller: str = ""
    config: str = ""
    namespace: str = ""


def key(
    target: Target,
    policy: CachePolicy,
    asker: Asker,
    *,
    secrets: Collection[str] = (),
    endpoint: str = "/v1/completions",
) -> str:
    """The name of the answer that *target* would give to its request: 64 hex digits.

    Equal requests have equal names, and nothing can be read out of one. *secrets* are
    the names of options that are credentials.
    """
    assert target.request, "a route to completions asks every target something"
    return fingerprint(
        [
            endpoint,
            asker.namespace,
            _question(target.request),
            _place(target),
            _circle(target, policy, asker, secrets),
        ]
    )


def fingerprint(document: Any) -> str:
    """64 hex digits that are equal for equal JSON, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(text.encode(), digest_size=32, person=b"lastword-cache-1")
    return digest.hexdigest()


def _place(target: Target) -> list[Any]:
    """Where an answer comes from, and what is made of it on the way."""
    bridge = target.bridge
    return [
        target.provider,
        (target.base_url or "").rstrip("/"),
        target.via,
        target.strict,
        target.strict_params,
        [bridge.system, bridge.template],
        dict(target.model_info),
    ]


# Headers that say who calls.
_CREDENTIALS = {"authorization", "cookie", "proxy-authorization"}
_CREDENTIALS |= {"api-key", "x-api-key", "x-goog-api-key"}


def _circle(
    target: Target, policy: CachePolicy, asker: Asker, secrets: Collection[str]
) -> list[Any]:
    """Those who share an answer: they have this in common."""
    headers = {name.lower(): value for name, value in target.headers.items()}
    if policy.scope == Scope.CONFIG and asker.config:
        options = {k: v for k, v in target.options.items() if k not in secrets}
        open_headers = {k: v for k, v in headers.items() if k not in _CREDENTIALS}
        return ["config", asker.config, options, open_headers]
    own = [asker.caller, target.api_key, dict(target.options), headers]
    return ["credentials", *own]


# How an answer is sent, not what it says.
_FORM = ("stream", "stream_options")

# What is meant where nothing is said. `max_tokens` has another default everywhere.
_DEFAULTS: Mapping[str, Any] = {
    "echo": False,
    "frequency_penalty": 0,
    "logit_bias": {},
    "n": 1,
    "presence_penalty": 0,
    "stop": [],
    "temperature": 1,
    "top_p": 1,
}


def _question(request: CompletionRequest) -> list[Any]:
    """What is asked, in the one way of many to say it."""
    params = {name: _plain(value) for name, value in request.params.items()}
    params["stop"] = list(request.stops)
    if params.get("best_of") == request.n:
        del params["best_of"]
    said = {k: v for k, v in params.items() if k not in _FORM and _means(k, v)}
    return [request.model, request.prompts, said]


def _means(name: str, value: Any) -> bool:
    """Whether it matters that this was said. To JSON, true is not 1."""
    default = _DEFAULTS.get(name)
    return value is not None and (
        value != default or isinstance(value, bool) != isinstance(default, bool)
    )


def _plain(value: Any) -> Any:
    """*value* with one spelling for each number: 1 for 1.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return list(map(_plain, value)) if isinstance(value, list) else value


# A whole answer as a stream

# Characters of text in a frame, as in Portkey's own repetitions.
_LONGEST = 500

# What every frame of a stream has in common.
_HEAD = ("id", "object", "created", "model")
_USAGE = ("usage", "usage_estimated")


def frames(body: bytes, *, include_usage: bool) -> Iterator[bytes]:
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


class Joined:
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
    joined = Joined()
    for frame in stream:
        joined.feed(frame)
    return joined.whole(usage)
