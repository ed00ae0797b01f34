"""A request for many choices, of a provider that is asked for one at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from ..core import batch
from ..core.completion import Completion
from ..core.request import CompletionRequest
from ..errors import InvalidRequest
from ..providers.spec import Answer
from .exchange import Exchange
from .fanout import Fanout, gather


def joined(exchange: Exchange, request: CompletionRequest) -> Completion:
    """The answers to the parts of *request* as one. The first failure is raised."""
    parts = _split(exchange, request)
    calls = [partial(_one, exchange, part.request) for part in parts]
    one = len(calls) == 1
    answers = [calls[0]()] if one else gather(calls, exchange.sizes.fanout)
    return batch.join(request, parts, answers)


def merged(exchange: Exchange, request: CompletionRequest) -> Iterator[Completion]:
    """The streams of the parts of *request* as one."""
    parts = _split(exchange, request)
    streams = [partial(_pieces, exchange, part.request) for part in parts]
    chunks = _side_by_side(streams, exchange.sizes.fanout)
    return batch.merge(request, parts, chunks)


def _split(exchange: Exchange, request: CompletionRequest) -> list[batch.Part]:
    """The parts of *request*, if they are not too many."""
    drawn, most = len(request.prompts) * request.drawn, exchange.sizes.max_choices
    if drawn <= most:
        return batch.split(request)
    raise InvalidRequest(
        "Too many parallel completions requested. You submitted "
        f"{len(request.prompts)} prompts for {request.drawn} completions each, but "
        f"this provider generates at most {most} for one request.",
        param="prompt",
        code="too_many_completions",
    )


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


def _one(exchange: Exchange, request: CompletionRequest) -> Completion:
    return _rebuilt(exchange.whole(request))


def _pieces(exchange: Exchange, request: CompletionRequest) -> Iterator[Completion]:
    yield from map(_rebuilt, exchange.chunks(request))


def _rebuilt(answer: Answer) -> Completion:
    """*answer*, which a provider that is asked one by one has rebuilt."""
    assert isinstance(answer, Completion)
    return answer
