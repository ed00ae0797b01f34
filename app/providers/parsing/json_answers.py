"""Answers in JSON: whole bodies, and streams of which each event is one object.

Nearly all providers send these. What cannot be read is refused as the upstream's fault:
providers' functions index and call without checks, since a missing key or a wrong type
always is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ... import safe_json
from ...core.completion import Choice, Completion, Usage
from ...core.sse import Event
from ...errors import UpstreamError, UpstreamProtocol
from ..upstream_request import UpstreamRequest
from .error_bodies import raise_in_band_error
from .excerpts import excerpt
from .split_characters import CharacterJoiner, in_whole_characters
from .stream_ending import (
    ChoiceEndings,
    ReasonlessEnd,
    check_body_ended,
    inferred_reason,
    is_empty,
    is_terminator,
)

# What code raises that reads an answer of another form than it expects.
MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)


def read_answer(
    body: bytes, *, keep_halves: bool = True
) -> tuple[dict[str, Any], bool]:
    """*body* as a JSON object; and whether it is JSON as it came.

    If it is not, it must not go on as it came, and with *keep_halves* its texts may
    begin or end with half of a character: see split_characters.py. Raises
    UpstreamProtocol, which quotes other bodies.
    """
    try:
        document, is_json = safe_json.load_lenient(body, keep_halves=keep_halves)
    except ValueError as e:
        raise UpstreamProtocol(f"the answer is not JSON: {excerpt(body)}") from e
    if isinstance(document, list) and document and isinstance(document[0], dict):
        # Google's errors, where a stream was asked for.
        raise_in_band_error(document[0])
    if not isinstance(document, dict):
        raise UpstreamProtocol(f"the answer is no JSON object: {excerpt(body)}")
    return document, is_json


def read_object(body: bytes) -> dict[str, Any]:
    """*body* as a JSON object, with whole characters only."""
    return read_answer(body, keep_halves=False)[0]


def read_completion(
    body: bytes,
    reader: Callable[[dict[str, Any]], Completion],
    joiner: CharacterJoiner | None = None,
) -> Completion:
    """The completion that *reader* makes of a JSON object.

    With a *joiner* it is a chunk of a stream. Raises UpstreamProtocol if the object is
    not what *reader* expects, or if a field that others rely on has the wrong type.
    """
    document, is_json = read_answer(body)
    try:
        completion = reader(document)
        # The readers copy these as they are. Code behind this point relies on them.
        for choice in completion.choices:
            if not isinstance(choice.text, str):
                raise TypeError("text")
            # `true` is an instance of int, but no index.
            if type(choice.index) is not int or choice.index < 0:
                raise TypeError("index")
        usage = completion.usage
        counts = (usage.paid_tokens, usage.cached_tokens) if usage else ()
        for number in (completion.created, *counts):
            # Far below 2**63: the sum of thousands has to be serializable, too.
            if type(number) is not int or not 0 <= number < 2**40:
                raise TypeError("count")
    except MALFORMED as e:
        # An error in place of an answer, of which its reader knows nothing.
        raise_in_band_error(document)
        raise as_upstream_error(e, body) from e
    if joiner is None:
        return completion if is_json else in_whole_characters(completion)
    if joiner.halves or not is_json:
        return joiner.feed_chunk(completion)
    return completion


def read_whole(
    body: bytes,
    reader: Callable[[dict[str, Any]], Completion],
    upstream: UpstreamRequest,
) -> Completion:
    """The completion in a whole answer, as `read_completion` has it. Each choice has a
    finish reason: where the provider says nothing of why it ended, it is inferred.
    """
    completion = read_completion(body, reader)
    if all(choice.finish_reason for choice in completion.choices):
        return completion
    reason = inferred_reason(upstream, completion.usage)
    choices = (
        choice if choice.finish_reason else replace(choice, finish_reason=reason)
        for choice in completion.choices
    )
    return replace(completion, choices=tuple(choices))


class JSONStreamReader:
    """A StreamReader that hands each object to *read_chunk*, which keeps the state.

    The chunks go on without their finish reasons, which come at the end of the stream:
    see stream_ending.py. *last_chunk* has what *read_chunk* has held back until then.
    *payload* takes the JSON out of an event where it is not simply the data.
    """

    def __init__(
        self,
        upstream: UpstreamRequest,
        read_chunk: Callable[[dict[str, Any]], Completion],
        *,
        payload: Callable[[Event], bytes] | None = None,
        last_chunk: Callable[[], Completion] | None = None,
        reasonless_end: ReasonlessEnd = ReasonlessEnd.COUNTED,
    ) -> None:
        self._read_chunk = read_chunk
        self._last_chunk = last_chunk
        self._payload = payload
        self._joiner = CharacterJoiner()
        self._reasonless_end = reasonless_end
        self._endings = ChoiceEndings(upstream)
        self._running = self._endings.running
        # The text that came with a reason, by its choice.
        self._held: dict[int, Choice] = {}
        self._head: Completion | None = None
        self._usage: Usage | None = None
        self.done = False

    def feed(self, event: Event) -> Sequence[Completion]:
        data = event.data if self._payload is None else self._payload(event)
        # Nearly all data is an object with fields, and all else is looked at closer.
        if len(data) < 16 or not data.startswith(b"{"):
            if is_terminator(data):
                self.done = True
                return self._close(terminated=True)
            if is_empty(data):
                return ()
        # An event in place of a chunk that is an error raises in here.
        chunk = read_completion(data, self._read_chunk, self._joiner)
        choices = chunk.choices
        if (
            len(choices) == 1
            and choices[0].finish_reason is None
            and choices[0].index in self._running
            and chunk.usage is None
        ):
            return (chunk,)
        return (self._without_reasons(chunk),)

    def end(self, failure: UpstreamError | None = None) -> Sequence[Completion]:
        check_body_ended(failure)
        return self._close(terminated=False)

    @property
    def holds_text(self) -> bool:
        return bool(self._held)

    def flush(self) -> Sequence[Completion]:
        if self._head is None or not self._held:
            return ()
        choices = [choice for index in [*self._held] for choice in self._release(index)]
        return (replace(self._head, choices=tuple(choices), usage=None, extra=None),)

    def _release(self, index: int) -> list[Choice]:
        """The text of a choice that is held, if any, without its reason."""
        held = self._held.pop(index, None)
        return [replace(held, finish_reason=None)] if held else []

    def _without_reasons(self, chunk: Completion) -> Completion:
        """*chunk* but for its finish reasons, and for text that is held with one."""
        endings = self._endings
        self._head = chunk
        if chunk.usage is not None:
            self._usage = (self._usage or chunk.usage).updated(chunk.usage)
        choices: list[Choice] = []
        for choice in chunk.choices:
            has_text = bool(choice.text or choice.logprobs and choice.logprobs.tokens)
            endings.go_on(choice.index, has_text=has_text)
            if has_text:
                choices += self._release(choice.index)
            if choice.finish_reason:
                endings.hold(choice.index, choice.finish_reason)
            if has_text and choice.finish_reason and not endings.is_repeating:
                self._held[choice.index] = choice
            elif has_text:
                choices.append(replace(choice, finish_reason=None, extra=None))
        return replace(chunk, choices=tuple(choices))

    def _close(self, *, terminated: bool) -> Sequence[Completion]:
        """What was held back, and the reasons of all choices that have ended."""
        if self._head is None:
            return ()
        last = self._last_chunk() if self._last_chunk else None
        chunks = [self._without_reasons(last)] if last else []
        extra = {choice.index: choice.extra for choice in last.choices} if last else {}
        if choices_left := self._joiner.end():
            left = replace(self._head, choices=choices_left, usage=None, extra=None)
            chunks.append(self._without_reasons(left))
        endings, end = self._endings, self._reasonless_end
        if terminated or end is ReasonlessEnd.BODY:
            is_sufficient = end is not ReasonlessEnd.COUNTED
            endings.complete(self._usage, is_sufficient=is_sufficient)
        choices = [
            replace(
                self._held.pop(index, Choice("", index)),
                finish_reason=reason,
                extra=extra.get(index),
            )
            for index, reason in endings.reasons.items()
        ]
        end_chunk = replace(self._head, choices=tuple(choices), usage=None, extra=None)
        return [*chunks, end_chunk]


def as_upstream_error(error: Exception, body: bytes = b"") -> Exception:
    """UpstreamProtocol, which quotes *body*, for an *error* of code that reads it.

    Any other error stays what it is.
    """
    if not isinstance(error, MALFORMED):
        return error
    quoted = f": {excerpt(body)}" if body else ""
    malformed = UpstreamProtocol(f"the answer is not as expected{quoted}")
    malformed.__cause__ = error
    return malformed


@contextmanager
def malformed_as_upstream_error(body: bytes = b"") -> Iterator[None]:
    """Raises `as_upstream_error` of what the block raises."""
    try:
        yield
    except MALFORMED as e:
        raise as_upstream_error(e, body) from e
