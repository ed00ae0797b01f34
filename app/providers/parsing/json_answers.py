"""Answers in JSON: whole bodies, and streams of which each event is one object.

Nearly all providers send these. What cannot be read is refused as the upstream's fault:
providers' functions index and call without checks, since a missing key or a wrong type
always is.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ... import safe_json
from ...core.completion import Completion
from ...core.sse import Event
from ...errors import UpstreamError, UpstreamProtocol
from .split_characters import CharacterJoiner, in_whole_characters
from .stream_ending import check_body_ended

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
        raise as_upstream_error(e, body) from e
    if joiner is None:
        return completion if is_json else in_whole_characters(completion)
    if joiner.halves or not is_json:
        return joiner.feed_chunk(completion)
    return completion


class JSONStreamReader:
    """A StreamReader that hands each object to *read_chunk*, which keeps the state.

    Events with data in *ignored* mean nothing, *terminator* ends the stream. *payload*
    takes the JSON out of an event where it is not simply the data.
    """

    def __init__(
        self,
        read_chunk: Callable[[dict[str, Any]], Completion],
        *,
        terminator: bytes | None = None,
        ignored: Collection[bytes] = (),
        payload: Callable[[Event], bytes] | None = None,
    ) -> None:
        self._read_chunk = read_chunk
        self._terminator = terminator
        self._ignored = ignored
        self._payload = payload
        self._joiner = CharacterJoiner()
        self.done = False

    def feed(self, event: Event) -> Sequence[Completion]:
        data = event.data
        if data == self._terminator:
            self.done = True
            return self._joiner.end()
        if data in self._ignored:
            return ()
        if self._payload is not None:
            data = self._payload(event)
        # An event in place of a chunk that is an error raises in here.
        return (read_completion(data, self._read_chunk, self._joiner),)

    def end(self, failure: UpstreamError | None = None) -> Sequence[Completion]:
        check_body_ended(failure)
        return self._joiner.end()


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


def excerpt(body: bytes, length: int = 200) -> str:
    """At most *length* characters of *body*, on one line, in whole words.

    Words are not cut, since a body may quote a secret, and redaction cannot recognise
    the first few characters of one. Only a word that is half of the excerpt or more is
    cut, which leaves enough of it to be recognised.
    """
    # A character has four bytes at most.
    text = " ".join(body[: 4 * length].decode("utf-8", "replace").split())
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    shown = printable[:length]
    if len(printable) > length or len(body) > 4 * length:
        words = _LAST_WORD.sub("", shown)
        shown = words if len(words) > length // 2 else shown
    return shown or "(an empty body)"


# The last word, if it may be a key, or an encoded one.
_LAST_WORD = re.compile(r"[\w+/=%~.*\\-]+\Z")
