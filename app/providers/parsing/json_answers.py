"""Answers in JSON: whole bodies, and streams of which each event is one object.

Nearly all providers send these. What cannot be read is refused as the upstream's fault:
providers' functions index and call without checks, since a missing key or a wrong type
always is.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ... import safe_json
from ...core.completion import Completion
from ...core.sse import Event
from ...errors import UpstreamError, UpstreamProtocol
from .error_bodies import raise_in_band_error
from .excerpts import excerpt
from .stream_ending import check_body_ended

# What code raises that reads an answer of another form than it expects.
MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)


def read_object(body: bytes) -> dict[str, Any]:
    """*body* as a JSON object. Raises UpstreamProtocol, which quotes other bodies."""
    try:
        document = safe_json.load(body)
    except ValueError as e:
        raise UpstreamProtocol(f"the answer is not JSON: {excerpt(body)}") from e
    if not isinstance(document, dict):
        raise UpstreamProtocol(f"the answer is no JSON object: {excerpt(body)}")
    return document


def read_completion(
    body: bytes, reader: Callable[[dict[str, Any]], Completion]
) -> Completion:
    """The completion that *reader* makes of a JSON object.

    Raises UpstreamProtocol if the object is not what *reader* expects, or if a field
    that others rely on has the wrong type.
    """
    document = read_object(body)
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
        self.done = False

    def feed(self, event: Event) -> Sequence[Completion]:
        data = event.data
        if data == self._terminator:
            self.done = True
            return ()
        if data in self._ignored:
            return ()
        if self._payload is not None:
            data = self._payload(event)
        # An event in place of a chunk that is an error raises in here.
        return (read_completion(data, self._read_chunk),)

    def end(self, failure: UpstreamError | None = None) -> Sequence[Completion]:
        check_body_ended(failure)
        return ()


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
