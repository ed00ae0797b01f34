"""A plan, carried out: its calls, side by side, and their answers as one."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial

from ..core import batch, post_processing
from ..core.batch import Part
from ..core.completion import Completion
from ..planning.plan import Plan
from ..providers.declaration import UpstreamAnswer
from ..providers.protocols.openai_completions import to_completion
from .outcome import UsageCounter
from .streaming.fanout import Fanout, gather
from .target_calls import TargetCalls


def whole(exchange: TargetCalls, plan: Plan, tally: UsageCounter) -> UpstreamAnswer:
    """The whole answer. The first failure is raised, and ends the other calls."""
    if plan.direct:
        return _answer(exchange, plan, tally, plan.parts[0])
    calls = [partial(_one, exchange, plan, tally, part) for part in plan.parts]
    one = len(calls) == 1
    answers = [calls[0]()] if one else gather(calls, exchange.sizes.fanout)
    return batch.join(plan.request, plan.parts, answers)


def chunks(
    exchange: TargetCalls, plan: Plan, tally: UsageCounter
) -> Iterator[UpstreamAnswer]:
    """The streams of all calls as one."""
    if plan.direct:
        return _stream(exchange, plan, tally, plan.parts[0])
    streams = [partial(_pieces, exchange, plan, tally, part) for part in plan.parts]
    return batch.merge(
        plan.request, plan.parts, _side_by_side(streams, exchange.sizes.fanout)
    )


def _answer(
    exchange: TargetCalls, plan: Plan, tally: UsageCounter, part: Part
) -> UpstreamAnswer:
    """The whole answer to one call, which is on the tally from its beginning."""
    ask, record = plan.ask(part, exchange.target), tally.begin(plan, part)
    return exchange.whole(ask, record)


def _stream(
    exchange: TargetCalls, plan: Plan, tally: UsageCounter, part: Part
) -> Generator[UpstreamAnswer, None, None]:
    """The same in pieces."""
    ask, record = plan.ask(part, exchange.target), tally.begin(plan, part)
    return exchange.chunks(ask, record)


def _one(
    exchange: TargetCalls, plan: Plan, tally: UsageCounter, part: Part
) -> Completion:
    answer = _answer(exchange, plan, tally, part)
    return post_processing.whole(to_completion(answer), plan.shape(part))


def _pieces(
    exchange: TargetCalls, plan: Plan, tally: UsageCounter, part: Part
) -> Iterator[Completion]:
    with closing(_stream(exchange, plan, tally, part)) as answers:
        yield from post_processing.shaped(map(to_completion, answers), plan.shape(part))


def _side_by_side(
    streams: Sequence[Callable[[], Iterator[Completion]]], limit: int
) -> Iterator[tuple[int, Completion]]:
    if len(streams) == 1:
        yield from ((0, chunk) for chunk in streams[0]())
        return
    fan = Fanout(streams, limit)
    try:
        yield from fan
    finally:
        fan.close()
