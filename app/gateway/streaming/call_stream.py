"""One streamed upstream call: bytes in, chunks out.

    block -> event decoder -> the provider's reader -> post-processing -> chunks

Every stage is sans-IO: it is fed, and returns what came of that. Only `read` waits, for
the next block, and not longer than it is told.

Whether a stream is whole, cut or broken is decided by its reader, with
providers/parsing/stream_ending.py, and behind that by the post-processing.
"""

import time
from collections.abc import Callable, Sequence
from math import inf

from ...core.completion import Completion
from ...core.post_processing import PostProcessor
from ...core.sse import DONE, Event
from ...errors import UpstreamError, UpstreamInBand
from ...providers.declaration import StreamReader, UpstreamAnswer
from ...providers.parsing.error_bodies import raise_error_event
from ...providers.parsing.json_answers import as_upstream_error
from ...providers.protocols.openai_completions import to_completion
from ...upstream.client import HTTPReply
from ...upstream.event_decoders import StreamDecoder
from ...upstream.open_calls import OpenCalls
from ..usage_charges import CallEnding, CallRecord

# Seconds for which text waits for what follows its finish reason, to go on as one chunk
# with it. Nearly every server ends its stream in the same moment.
_LONGEST_HOLD = 0.5


class CallStream:
    """The chunks of one call. It closes its reply as soon as it is *done* or fails.

    *read_document* reads a whole document, with which providers answer that cannot
    stream; without one, the reader takes it for an event.
    *post_processor* makes of each chunk what the caller asked for, where the provider
    cannot. Without one, answers are passed on as the reader returns them. *error* is
    what the next `read` raises.
    """

    def __init__(
        self,
        reply: HTTPReply,
        open_calls: OpenCalls,
        decoder: StreamDecoder,
        reader: StreamReader,
        read_document: Callable[[bytes], UpstreamAnswer] | None,
        record: CallRecord,
        post_processor: PostProcessor | None = None,
    ) -> None:
        self._reply, self._open_calls = reply, open_calls
        self._decoder, self._reader = decoder, reader
        self._read_document = read_document
        self._record, self._post_processor = record, post_processor
        self._flush_at = inf
        self.error: Exception | None = None
        self.done = False

    def read(self, wake_at: float = inf) -> Sequence[UpstreamAnswer] | None:
        """What the next block makes, maybe nothing; None if none came until *wake_at*.

        Raises GatewayError. An error in the middle of a block is raised by the next
        call, since what stood before it is the caller's.
        """
        error, self.error = self.error, None
        if error is not None:
            self._fail(error)
        answers: list[UpstreamAnswer] = []
        try:
            try:
                block = self._reply.read_block(min(wake_at, self._flush_at))
                last = self._decoder.end() if block == b"" else []
            except UpstreamError as failure:
                # The reader knows whether anything was lost.
                self._end(self._reader.end(failure), answers)
                return answers
            if block is None:
                if self._flush_at > wake_at:
                    return None
                self._flush(answers)
                return answers
            events = self._decoder.feed(block) if block else last
            if events:
                self._reply.begin()
                self._read_events(events, answers)
            elif self._decoder.is_document and not block.isspace():
                # Each piece of a document is progress.
                self._reply.begin()
            self._record.is_stream = not self._decoder.is_document
            if not (block or self.done):
                self._end(self._reader.end(), answers)
            if not self._reader.holds_text:
                self._flush_at = inf
            elif not self.done:
                self._flush_in_time(answers)
        except Exception as e:
            error = as_upstream_error(e)
            # Text that came before an error is the caller's.
            self._flush(answers)
            if not answers:
                self._fail(error)
            self.error = error
        return answers

    def _read_events(
        self, events: Sequence[Event], answers: list[UpstreamAnswer]
    ) -> None:
        """Add to *answers* what *events* make, up to the end of the stream if any.

        One event after the other goes through both stages: behind one that ends the
        stream, or that is an error, no other is read.
        """
        reader, processor = self._reader, self._post_processor
        feed = self._feed_document if self._decoder.is_document else reader.feed
        received: list[UpstreamAnswer] = []
        try:
            for event in events:
                # Most events have no name.
                if event.name:
                    raise_error_event(event)
                read = feed(event)
                received += read
                if processor is None:
                    answers += read
                else:
                    # Only frames of the legacy shape have to be parsed here.
                    for answer in read:
                        answers += processor.feed(
                            answer
                            if isinstance(answer, Completion)
                            else to_completion(answer)
                        )
                if reader.done or (processor and processor.finished):
                    break
        finally:
            # What came before an error, or with it, has been generated all the same.
            self._record.note(*received)
        if reader.done:
            # Bytes behind a provider's last word are nobody's.
            self._end((), answers)
        elif processor and processor.finished:
            # Every choice has reached a stop sequence: what follows is not wanted, and
            # the provider shall not go on.
            answers += processor.end()
            self._finish(is_read=False)

    def _feed_document(self, event: Event) -> Sequence[UpstreamAnswer]:
        """What a whole document in place of a stream makes."""
        if self._read_document is not None:
            return (self._read_document(event.data),)
        # It is complete by itself, as a stream is with this last event.
        return [*self._reader.feed(event), *self._reader.feed(Event(DONE))]

    def _flush_in_time(self, answers: list[UpstreamAnswer]) -> None:
        """Let text that the reader holds wait, but not for too long."""
        now = time.monotonic()
        if self._flush_at == inf:
            self._flush_at = now + _LONGEST_HOLD
        elif self._flush_at <= now:
            self._flush(answers)

    def _flush(self, answers: list[UpstreamAnswer]) -> None:
        """Add to *answers* the text that the reader holds."""
        self._flush_at = inf
        released = self._reader.flush()
        self._record.note(*released)
        processor = self._post_processor
        for answer in released:
            answers += processor.feed(to_completion(answer)) if processor else [answer]

    def _end(
        self, last: Sequence[UpstreamAnswer], answers: list[UpstreamAnswer]
    ) -> None:
        """The stream is whole, as far as its reader can tell, with *last* at its end.

        Whether each choice has ended is left to the post-processing.
        """
        self._record.note(*last)
        processor = self._post_processor
        for answer in last:
            answers += processor.feed(to_completion(answer)) if processor else [answer]
        self._record.ending = CallEnding.ANSWERED
        self._finish(is_read=True)
        if processor:
            answers += processor.end()

    def _finish(self, *, is_read: bool) -> None:
        if self.done:
            return
        self.done = True
        if is_read:
            self._open_calls.drop(self._reply)
        else:
            self._open_calls.abandon(self._reply)

    def _fail(self, error: Exception) -> None:
        """Raise *error*. One that is an answer in place of text costs nothing, unless
        it says what it costs.
        """
        if isinstance(error, UpstreamInBand):
            self._record.fail(error)
        self._finish(is_read=False)
        raise error

    def close(self) -> None:
        """Break the call off, unless it is done."""
        if not self.done:
            self._finish(is_read=False)
