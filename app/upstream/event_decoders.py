"""How a streamed answer is cut into events, by its content type."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..core import sse
from ..core.sse import Event
from ..errors import UpstreamProtocol

Decoder = Callable[[Iterable[bytes], int], Iterator[Event]]


def decoder(content_type: str) -> Decoder | None:
    """What decodes an answer of this type; None if it is one whole document."""
    return next((d for name, d in _DECODERS.items() if name in content_type), None)


def _server_sent(blocks: Iterable[bytes], limit: int) -> Iterator[Event]:
    try:
        yield from sse.decode(blocks, limit=limit)
    except sse.EventTooLong as e:
        raise UpstreamProtocol(f"upstream sent {e}") from e


def _lines(blocks: Iterable[bytes], limit: int) -> Iterator[Event]:
    """A JSON document on each line (Ollama)."""
    rest = bytearray()
    for block in blocks:
        head, *tail = block.split(b"\n")
        rest += head
        if len(rest) > limit:
            rest.clear()
            raise UpstreamProtocol(f"upstream sent a line longer than {limit} bytes")
        if tail:
            yield from _documents(bytes(rest), *tail[:-1])
            rest = bytearray(tail[-1])
    yield from _documents(bytes(rest))


def _documents(*lines: bytes) -> Iterator[Event]:
    return (Event(line) for line in lines if line.strip())


def _amazon(blocks: Iterable[bytes], limit: int) -> Iterator[Event]:
    """AWS' binary frames, with their checksums; events are named by their types.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/
    RESTSelectObjectAppendix.html
    """
    from botocore.eventstream import EventStreamBuffer, ParserError

    buffer, held = EventStreamBuffer(), 0
    for block in blocks:
        buffer.add_data(block)
        held += len(block)
        try:
            for message in buffer:
                held = 0
                yield _amazon_event(message)
        except ParserError as e:
            raise UpstreamProtocol(f"upstream sent a broken event: {e}") from e
        if held > limit:
            raise UpstreamProtocol(f"upstream sent an event longer than {limit} bytes")


def _amazon_event(message: Any) -> Event:
    told = message.headers
    names = (told.get(key) for key in (":event-type", ":exception-type", ":error-code"))
    name = next((name for name in names if name), "")
    return Event(message.payload, name.encode())


_DECODERS: dict[str, Decoder] = {
    "text/event-stream": _server_sent,
    "application/vnd.amazon.eventstream": _amazon,
    "application/x-ndjson": _lines,
}
