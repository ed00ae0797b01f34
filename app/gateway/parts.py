"""A plan, carried out: its calls, side by side, and their answers as one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial

from ..core import batch, shaping
from ..core.batch import Part
from ..core.completion import Completion
from ..providers.fitting import Plan
from ..providers.legacy import rebuilt
from ..providers.spec import Answer
from .exchange import Exchange
from .fanout import Fanout, gather


def whole(exchange: Exchange, plan: Plan) -> Answer:
    """The whole answer. The first failure is raised, and ends the other calls."""
    if plan.direct:
        return exchange.whole(plan.ask(plan.parts[0], exchange.target))
    calls = [partial(_one, exchange, plan, part) for part in plan.parts]
    one = len(calls) == 1
    answers = [calls[0]()] if one else gather(calls, exchange.sizes.fanout)
    return batch.join(plan.wanted, plan.parts, answers)


def chunks(exchange: Exchange, plan: Plan) -> Iterator[Answer]:
    """The streams of all calls as one."""
    if plan.direct:
        return exchange.chunks(plan.ask(plan.parts[0], exchange.target))
    streams = [partial(_pieces, exchange, plan, part) for part in plan.parts]
    return batch.merge(
        plan.wanted, plan.parts, _side_by_side(streams, exchange.sizes.fanout)
    )


def _one(exchange: Exchange, plan: Plan, part: Part) -> Completion:
    answer = exchange.whole(plan.ask(part, exchange.target))
    return shaping.whole(rebuilt(answer), plan.shape(part))


def _pieces(exchange: Exchange, plan: Plan, part: Part) -> Iterator[Completion]:
    with closing(exchange.chunks(plan.ask(part, exchange.target))) as answers:
        yield from shaping.shaped(map(rebuilt, answers), plan.shape(part))


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
