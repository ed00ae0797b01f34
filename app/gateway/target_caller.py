"""Has a target answer: its calls, and what is made of what comes back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from ..core.completion import Completion
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..errors import (
    EngineEnded,
    GatewayError,
    InvalidRoute,
    Unauthorized,
    UnsupportedProvider,
    UpstreamError,
    release,
)
from ..planning import plan as fitting
from ..planning.plan import Plan
from ..providers import PROVIDERS, HTTPRequest, Provider
from ..providers.declaration import UpstreamAnswer
from ..providers.parsing.json_bodies import malformed_as_upstream_error
from ..upstream.auth.access_tokens import AccessTokens
from ..upstream.auth.request_signing import find_signer
from ..upstream.client import HTTPClient
from ..upstream.embedded_engine import EmbeddedEngine, has_ended
from ..upstream.target_secrets import redactor
from . import plan_calls
from .clients.cancellation import Cancellation
from .outcome import Outcome, UsageCounter
from .streaming.event_stream import EventStream
from .target_calls import SizeLimits, TargetCalls


@dataclass(frozen=True, slots=True)
class TargetCaller:
    """Has targets answer. One for each process.

    *beside_error* is what an error in a stream has beside it.
    """

    upstream: HTTPClient
    engine: EmbeddedEngine
    sizes: SizeLimits
    credentials: AccessTokens
    beside_error: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, target: Target) -> Plan:
        """How *target* would answer what it is asked. Raises InvalidRequest."""
        assert target.request, "a route to completions asks every target something"
        provider, most = _provider(target), self.sizes.max_choices
        if provider.hosted:
            self.engine.check(target.request)
        return fitting.make_plan(provider, target, target.request, most)

    def answer(
        self, plan: Plan, tally: UsageCounter, cancellation: Cancellation
    ) -> Outcome:
        """The answer, up to the point from which there is no way back.

        Counts in *tally*. Breaks off when it is cancelled. Raises GatewayError.
        """
        exchange = self._exchange(plan.target)
        cancellation.add(exchange.scope.abort)
        try:
            answer = _stream if plan.request.stream else _whole
            body, warnings = answer(exchange, plan, tally, self.beside_error)
        except UpstreamError as e:
            if plan.provider.hosted and has_ended(e):
                raise EngineEnded from None
            raise _signed(e, exchange.target) from None
        told = (*plan.target.notices, *plan.warnings, *warnings)
        return Outcome(body, exchange.shown_headers, plan, told, tally)

    def models(self, target: Target) -> Outcome:
        """The provider's own list of models. Raises GatewayError."""
        provider = _provider(target)
        if provider.models is None:
            raise UnsupportedProvider(
                f"Provider {provider.name} has no list of models to relay."
            )
        exchange = self._exchange(target)
        call = provider.models(provider, exchange.target)
        try:
            body = _model_list(exchange, call)
        except UpstreamError as e:
            raise _signed(e, exchange.target) from None
        return Outcome(body, exchange.shown_headers)

    def _exchange(self, target: Target) -> TargetCalls:
        provider = _provider(target)
        if provider.hosted:
            _refuse_host(target)
            self.engine.required()
            url, key = self.engine.url, self.engine.key
            target = replace(target, base_url=url, api_key=key)
        try:
            target = self.credentials.resolved(provider, target)
            sign = find_signer(provider, target)
        except GatewayError as e:
            raise _clean(e, target) from None
        return TargetCalls(
            provider, target, self.upstream, self.engine, self.sizes, sign
        )


_Body = tuple[bytes | EventStream, Sequence[str]]


def _whole(
    exchange: TargetCalls,
    plan: Plan,
    tally: UsageCounter,
    beside_error: Mapping[str, Any],
) -> _Body:
    with exchange.scope:
        answer = plan_calls.whole(exchange, plan, tally)
    if isinstance(answer, Completion):
        return orjson.dumps(answer.to_body()), answer.warnings
    return answer.body, ()


def _model_list(exchange: TargetCalls, call: HTTPRequest) -> bytes:
    with exchange.scope:
        body = exchange.body(call)
        with malformed_as_upstream_error(body):
            return exchange.provider.model_list(body)


def _stream(
    exchange: TargetCalls,
    plan: Plan,
    tally: UsageCounter,
    beside_error: Mapping[str, Any],
) -> _Body:
    warnings: list[str] = []
    frames = _frames(plan_calls.chunks(exchange, plan, tally), plan.request, warnings)
    signed = _signed_frames(frames, exchange.target)
    choices = plan.request.n * len(plan.request.prompts)
    stream = EventStream(signed, exchange.scope, beside_error, choices)
    return stream.commit(), tuple(warnings)


def _refuse_host(target: Target) -> None:
    if target.base_url:
        raise InvalidRoute(
            f"Invalid custom host: provider {target.provider} runs in the gateway.",
            legacy="Invalid custom host",
            code="invalid_custom_host",
        )


def _provider(target: Target) -> Provider:
    """The target's provider. Raises InvalidRequest or Unauthorized if it is no use."""
    provider = PROVIDERS.get(target.provider)
    if provider is None or not provider.modes:
        absent = provider.absent if provider else "unknown"
        raise UnsupportedProvider(
            f"Provider {target.provider} has no text completions: {absent}."
        )
    if provider.needs_key and not _has_key(provider, target):
        raise Unauthorized(
            f"You didn't provide an API key for {provider.name}. Send it as "
            "x-portkey-api-key, or as Authorization: Bearer YOUR_KEY"
            + "".join(
                f"; or the settings {', '.join(names)}" for names in provider.keys
            )
            + ".",
            code="missing_api_key",
        )
    return provider


def _has_key(provider: Provider, target: Target) -> bool:
    """Whether there is a key, or all of the settings that stand for one."""
    settings = any(map(target.has, provider.keys))
    forwarded = "authorization" in map(str.lower, target.headers)
    return bool(target.api_key) or settings or forwarded


def _frames(
    chunks: Iterator[UpstreamAnswer],
    request: CompletionRequest,
    warnings: list[str],
) -> Iterator[bytes]:
    """The JSON of each chunk; that with the usage alone only if it was asked for.

    Adds to *warnings* as it goes; those of the first chunk can still be told.
    """
    for chunk in chunks:
        if not isinstance(chunk, Completion):
            if chunk.body:
                yield chunk.body
            continue
        warnings += chunk.warnings
        if chunk.choices or request.include_usage:
            yield orjson.dumps(chunk.to_chunk(include_usage=request.include_usage))


def _signed_frames(frames: Iterator[bytes], target: Target) -> Iterator[bytes]:
    try:
        yield from frames
    except UpstreamError as e:
        raise _signed(e, target) from None


def _signed(error: UpstreamError, target: Target) -> UpstreamError:
    """*error* with its provider's name, and without a secret that it may quote."""
    _clean(error, target)
    error.provider = target.provider
    return error


# Characters of an upstream's own message that are passed on, and of its other fields;
# and those that are looked at for that.
_MAX_MESSAGE, _MAX_FIELD = 8192, 200
_LOOKED_AT = 2 * _MAX_MESSAGE


def _clean(error: GatewayError, target: Target) -> GatewayError:
    """*error* without a secret of *target*, be it whole, cut off, escaped or encoded.

    Nor does it lead any more to the answer that it is about, which has them, too.
    """
    release(error)
    clean = redactor(target)
    error.message = clean.text(error.message[:_LOOKED_AT])[:_MAX_MESSAGE]
    error.args = (error.message,)
    for name in ("type", "param", "code"):
        if value := getattr(error, name):
            setattr(error, name, clean.text(str(value)[:_LOOKED_AT])[:_MAX_FIELD])
    error.headers = clean.headers(error.headers)
    return error
