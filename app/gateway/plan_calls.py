"""A plan, carried out: its calls, side by side, and their answers as one.

A plan of one *direct* call may pass its answer on untouched. Any other is made of calls
for parts of the request (one prompt, some of its choices), whose answers are
post-processed one by one, and put together at the indices that the caller expects.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import inf
from typing import cast

import orjson

from ..core import batch, post_processing
from ..core.batch import Part, StreamMerger
from ..core.completion import Completion
from ..core.post_processing import PostProcessor
from ..core.request import CompletionRequest
from ..planning.plan import Plan
from ..providers.declaration import RawCompletion, UpstreamAnswer
from ..providers.protocols.openai_completions import to_completion
from .streaming.call_stream import CallStream
from .streaming.event_stream import FrameSource
from .streaming.fanout import EndOfProducer, Fanout, gather
from .target_calls import TargetCalls
from .usage_charges import UsageCounter


def complete_plan(
    calls: TargetCalls, plan: Plan, counter: UsageCounter
) -> UpstreamAnswer:
    """The whole answer. The first failure is raised, and ends the other calls."""

    def complete_part(part: Part) -> UpstreamAnswer:
        # A call is on the counter from its beginning, whatever becomes of it.
        return calls.complete(
            plan.upstream_request(part, calls.target), counter.begin(plan, part)
        )

    if plan.direct:
        answer = complete_part(plan.parts[0])
        if isinstance(answer, RawCompletion):
            expected = plan.request.n * len(plan.request.prompts)
            batch.check_choice_count(answer.choices, expected)
        return answer

    def complete_and_process(part: Part) -> Completion:
        return post_processing.whole(
            to_completion(complete_part(part)), plan.shape(part)
        )

    # One answer is joined, too: that checks how many choices it has.
    if len(plan.parts) == 1:
        answers = [complete_and_process(plan.parts[0])]
    else:
        pending = [partial(complete_and_process, part) for part in plan.parts]
        # The first failure breaks off the calls that are still under way.
        with calls.open_calls:
            answers = gather(pending, calls.sizes.fanout)
    return batch.join(plan.request, plan.parts, answers)


def open_plan_stream(
    calls: TargetCalls, plan: Plan, counter: UsageCounter, warnings: list[str]
) -> FrameSource:
    """The frames of the streamed answer. Warnings of chunks are added to *warnings*.

    A plan of one call has made it when this returns; several begin to be made.
    """
    if len(plan.parts) == 1:
        part = plan.parts[0]
        post_processor = None if plan.direct else PostProcessor(plan.shape(part))
        request = plan.upstream_request(part, calls.target)
        stream = calls.stream(request, counter.begin(plan, part), post_processor)
        merger = None if plan.direct else StreamMerger(plan.request, plan.parts)
        return OneCallFrames(stream, plan.request, merger, warnings)
    return ManyCallsFrames(calls, plan, counter, warnings)


class OneCallFrames:
    """The frames of a stream that is one call's."""

    def __init__(
        self,
        stream: CallStream,
        request: CompletionRequest,
        merger: StreamMerger | None,
        warnings: list[str],
    ) -> None:
        self._stream, self._merger = stream, merger
        self._include_usage, self._warnings = request.include_usage, warnings
        self.done = False

    def read(self, wake_at: float = inf) -> Sequence[bytes] | None:
        answers = self._stream.read(wake_at)
        if answers is None:
            return None
        # With an error still to be raised, a stream that has ended is not whole.
        self.done = self._stream.done and self._stream.error is None
        if self._merger is None:
            return write_frames(answers, self._include_usage, self._warnings)
        # Post-processing has made completions of all.
        chunks = [*self._merger.feed(0, cast("Sequence[Completion]", answers))]
        if self.done:
            self._merger.end_part(0)
            chunks += self._merger.end()
        return write_frames(chunks, self._include_usage, self._warnings)

    def close(self) -> None:
        self._stream.close()


class ManyCallsFrames:
    """The frames of a stream that several calls make, each read by a thread."""

    def __init__(
        self,
        calls: TargetCalls,
        plan: Plan,
        counter: UsageCounter,
        warnings: list[str],
    ) -> None:
        self._calls, self._plan, self._counter = calls, plan, counter
        self._include_usage, self._warnings = plan.request.include_usage, warnings
        self._merger = StreamMerger(plan.request, plan.parts)
        producers = [partial(self._read_part, part) for part in plan.parts]
        self._fanout = Fanout(producers, calls.sizes.fanout)
        self.done = False

    def _read_part(self, part: Part) -> Iterator[Sequence[Completion]]:
        """Runs in a thread of its own. Closing it breaks the call off."""
        plan, calls = self._plan, self._calls
        request = plan.upstream_request(part, calls.target)
        record = self._counter.begin(plan, part)
        stream = calls.stream(request, record, PostProcessor(plan.shape(part)))
        try:
            while not stream.done:
                # All that one block has brought is one item of the queue.
                if answers := stream.read():
                    yield cast("Sequence[Completion]", answers)
            # Here a stream can be done, and its error still to be raised: its last
            # block held both an error and something before that.
            if stream.error is not None:
                raise stream.error
        finally:
            stream.close()

    def read(self, wake_at: float = inf) -> Sequence[bytes] | None:
        received = self._fanout.receive(wake_at)
        if not received:
            return None
        chunks: list[Completion] = []
        for number, part_chunks in received:
            if isinstance(part_chunks, EndOfProducer):
                self._merger.end_part(number)
            else:
                chunks += self._merger.feed(number, part_chunks)
        if self._fanout.done:
            self.done = True
            chunks += self._merger.end()
        return write_frames(chunks, self._include_usage, self._warnings)

    def close(self) -> None:
        self._fanout.close()


def write_frames(
    answers: Sequence[UpstreamAnswer], include_usage: bool, warnings: list[str]
) -> list[bytes]:
    """The JSON of each chunk; that of the usage alone only with *include_usage*."""
    frames: list[bytes] = []
    for answer in answers:
        if isinstance(answer, Completion):
            warnings += answer.warnings
            if answer.choices or include_usage:
                chunk = answer.to_chunk(include_usage=include_usage)
                frames.append(orjson.dumps(chunk))
        elif answer.body:
            frames.append(answer.body)
    return frames
