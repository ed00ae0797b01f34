"""Answers a completion request along a route."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson

from ..core.balance import rendezvous, weighted
from ..core.request import CompletionRequest
from ..core.routing import Group, Hands, Node, Route, Target, run
from ..errors import (
    GatewayError,
    InvalidRoute,
    Unauthorized,
    UnsupportedProvider,
    UpstreamError,
)
from ..providers import PROVIDERS, Provider
from ..providers.spec import Answer
from ..state.breaker import Breaker
from . import parts
from .attempts import Attempts, Clock, Trace
from .exchange import Exchange, Sizes
from .hosted import Engine
from .stream import EventStream
from .upstream import Upstream


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller gets: a whole body or a stream of events.

    *headers* are those of upstream's answer; *request* is what the target was asked.
    """

    body: bytes | EventStream
    headers: Mapping[str, str] = field(default_factory=dict)
    request: CompletionRequest | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service behind the endpoint. One for each process.

    *beside_error* is what an error in a stream has beside it.
    """

    upstream: Upstream
    engine: Engine
    breaker: Breaker
    sizes: Sizes
    beside_error: Mapping[str, Any] = field(default_factory=dict)
    clock: Clock = Clock()

    def complete(self, route: Route, trace: Trace) -> Outcome:
        """The completion, or its stream once it has begun, from where *route* leads.

        Writes into *trace* what was tried. Raises the GatewayError of the last target.
        """
        ends = route.deadline and self.clock.monotonic() + route.deadline
        attempts = Attempts(self._ask, trace, self.breaker, self.clock, ends)
        hands = Hands(attempts, self._pick, self.breaker.available)
        try:
            outcome: Outcome = run(route.root, hands)
        except GatewayError as e:
            if len({attempt.path for attempt in trace.attempts}) > 1:
                e.attempts = [attempt.to_body() for attempt in trace.attempts]
            raise
        return outcome

    def _pick(self, group: Group, children: Sequence[Node]) -> Node:
        if group.sticky is not None:
            return rendezvous(children, group.sticky)
        return weighted(children, self.clock.chance())

    def _ask(self, target: Target) -> Outcome:
        """One call to one target, up to the point from which there is no way back."""
        request = target.request
        assert request, "a route to completions asks every target something"
        exchange = self._exchange(target)
        exchange.provider.check(request)
        try:
            body = self._body(exchange, request)
        except UpstreamError as e:
            raise _signed(e, exchange.target) from e
        return Outcome(body, exchange.headers, request)

    def _body(
        self, exchange: Exchange, request: CompletionRequest
    ) -> bytes | EventStream:
        if not request.stream:
            return _whole(exchange, request)
        frames = _stream(exchange, request)
        return EventStream(frames, exchange.scope, self.beside_error).commit()

    def models(self, target: Target) -> Outcome:
        """The provider's own list of models. Raises GatewayError."""
        exchange = self._exchange(target)
        call = exchange.provider.models(exchange.provider, exchange.target)
        try:
            with exchange.scope:
                body = exchange.provider.model_list(exchange.body(call))
        except UpstreamError as e:
            raise _signed(e, exchange.target) from e
        return Outcome(body, exchange.headers)

    def _exchange(self, target: Target) -> Exchange:
        provider = _provider(target)
        if provider.hosted:
            _refuse_host(target)
            self.engine.required()
            url, key = self.engine.url, self.engine.key
            target = replace(target, base_url=url, api_key=key)
        return Exchange(
            provider,
            target,
            self.upstream,
            self.engine,
            self.sizes,
        )


def _whole(exchange: Exchange, request: CompletionRequest) -> bytes:
    with exchange.scope:
        if exchange.provider.one_by_one:
            return _encoded(parts.joined(exchange, request))
        return _encoded(exchange.whole(request))


def _stream(exchange: Exchange, request: CompletionRequest) -> Iterator[bytes]:
    one_by_one = exchange.provider.one_by_one
    asked = partial(parts.merged, exchange) if one_by_one else exchange.chunks
    return _signed_frames(_frames(asked(request), request), exchange.target)


def _refuse_host(target: Target) -> None:
    if target.base_url:
        raise InvalidRoute(
            f"Invalid custom host: provider {target.provider} runs in the gateway.",
            legacy="Invalid custom host",
        )


def _provider(target: Target) -> Provider:
    """The target's provider. Raises InvalidRequest or Unauthorized if it is no use."""
    provider = PROVIDERS.get(target.provider)
    if provider is None:
        raise UnsupportedProvider(
            f"Provider {target.provider} is not supported by this version of the "
            f"gateway, which has: {', '.join(PROVIDERS)}."
        )
    authorized = target.api_key or "authorization" in map(str.lower, target.headers)
    if provider.needs_key and not authorized:
        raise Unauthorized(
            f"You didn't provide an API key for {provider.name}. Send it as "
            "x-portkey-api-key, or as Authorization: Bearer YOUR_KEY.",
            code="missing_api_key",
        )
    return provider


def _encoded(answer: Answer) -> bytes:
    return answer if isinstance(answer, bytes) else orjson.dumps(answer.to_body())


def _frames(chunks: Iterator[Answer], request: CompletionRequest) -> Iterator[bytes]:
    """The JSON of each chunk; that with the usage alone only if it was asked for."""
    for chunk in chunks:
        if isinstance(chunk, bytes):
            yield chunk
        elif chunk.choices or request.include_usage:
            yield orjson.dumps(chunk.to_chunk(include_usage=request.include_usage))


def _signed_frames(frames: Iterator[bytes], target: Target) -> Iterator[bytes]:
    try:
        yield from frames
    except UpstreamError as e:
        raise _signed(e, target) from e


def _signed(error: UpstreamError, target: Target) -> UpstreamError:
    """*error* with its provider's name, and without the key that it may quote."""
    error.provider = target.provider
    if target.api_key and len(target.api_key) >= 8:
        error.message = error.message.replace(target.api_key, "[redacted]")
    return error
