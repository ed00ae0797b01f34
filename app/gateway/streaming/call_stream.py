"""One streamed upstream call: bytes in, chunks out.

    block -> event decoder -> the provider's reader -> post-processing -> chunks

Every stage is sans-IO: it is fed, and returns what came of that. Only `read` waits, for
the next block, and not longer than it is told. What is whole, cut, or an error is said
by the reader (see providers/parsing/stream_ending.py) and by the post-processing.
"""

from collections.abc import Sequence
from math import inf

from ...core.post_processing import PostProcessor
from ...core.sse import Event
from ...errors import UpstreamError, UpstreamInBand
from ...providers.declaration import StreamReader, UpstreamAnswer
from ...providers.parsing.json_bodies import malformed_as_upstream_error
from ...providers.protocols.openai_completions import to_completion
from ...upstream.client import ByteBudget, HTTPReply
from ...upstream.event_decoders import EventDecoder
from ...upstream.open_calls import OpenCalls
from ..usage_charges import CallRecord, CallStage


class CallStream:
    """The chunks of one call. It closes its reply as soon as it is *done* or fails.

    *post_processor* makes of each chunk what the caller asked for, where the provider
    cannot. Without one, answers are passed on as the reader returns them. *error* is
    what the next `read` raises.
    """

    def __init__(
        self,
        reply: HTTPReply,
        open_calls: OpenCalls,
        decoder: EventDecoder | None,
        budget: ByteBudget,
        reader: StreamReader,
        record: CallRecord,
        post_processor: PostProcessor | None = None,
    ) -> None:
        self._reply, self._open_calls = reply, open_calls
        self._decoder, self._budget, self._reader = decoder, budget, reader
        self._record, self._post_processor = record, post_processor
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
            with malformed_as_upstream_error():
                try:
                    # A provider that cannot stream answers with one whole document,
                    # which *budget* bounds. Nobody is sent anything before its end.
                    block = (
                        self._reply.read_block(wake_at)
                        if self._decoder
                        else self._reply.read(self._budget)
                    )
                except UpstreamError as failure:
                    # The reader knows whether anything was lost.
                    self._end(self._reader.end(failure), answers)
                    return answers
                if block is None:
                    return None
                if self._decoder:
                    decoder = self._decoder
                    events = decoder.feed(block) if block else decoder.end()
                else:
                    events, block = [Event(block)], b""
                self._take(events, answers)
                if not (block or self.done):
                    self._end(self._reader.end(), answers)
        except Exception as e:
            if not answers:
                self._fail(e)
            self.error = e
        return answers

    def _take(self, events: Sequence[Event], answers: list[UpstreamAnswer]) -> None:
        if events:
            self._reply.begin()
        for event in events:
            self._add(self._reader.feed(event), answers)
            if self._reader.done:
                # Bytes behind a provider's last word are nobody's.
                self._end((), answers)
            elif self._post_processor and self._post_processor.finished:
                # Every choice has reached a stop sequence: what follows is not wanted,
                # and the provider shall not go on.
                answers += self._post_processor.end()
                self._finish(is_read=False)
            if self.done:
                return

    def _add(
        self, new: Sequence[UpstreamAnswer], answers: list[UpstreamAnswer]
    ) -> None:
        for answer in new:
            self._record.note(answer)
            if self._post_processor:
                answers += self._post_processor.feed(to_completion(answer))
            else:
                answers.append(answer)

    def _end(
        self, new: Sequence[UpstreamAnswer], answers: list[UpstreamAnswer]
    ) -> None:
        """The stream is whole, as far as its reader can tell."""
        self._add(new, answers)
        self._record.stage = CallStage.ANSWERED
        self._finish(is_read=True)
        if self._post_processor:
            answers += self._post_processor.end()

    def _finish(self, *, is_read: bool) -> None:
        if self.done:
            return
        self.done = True
        if is_read:
            self._open_calls.drop(self._reply)
        else:
            self._open_calls.abandon(self._reply)

    def _fail(self, error: Exception) -> None:
        """Raise *error*. One that is an answer in place of text costs nothing."""
        if isinstance(error, UpstreamInBand) and not self._record.generated:
            self._record.stage = CallStage.REJECTED
        self._finish(is_read=False)
        raise error

    def close(self) -> None:
        """Break the call off, unless it is done."""
        if not self.done:
            self._finish(is_read=False)
