"""Calls one target: its plan, its credentials, its calls, and the errors of these.

What a provider says in an error is its own; here it gets the provider's name, and loses
every secret that it may quote.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import orjson

from ..core.completion import Completion
from ..core.redaction import Redactor
from ..core.routing import Target
from ..errors import (
    EngineEnded,
    GatewayError,
    InvalidRoute,
    Unauthorized,
    UnsupportedProvider,
    UpstreamError,
    UpstreamStatus,
    release,
)
from ..planning.learned_facts import facts_key
from ..planning.plan import Plan, make_plan
from ..providers import PROVIDERS, Provider
from ..providers.parsing.json_answers import malformed_as_upstream_error
from ..state.fact_memory import FactMemory
from ..upstream.auth.access_tokens import AccessTokens
from ..upstream.auth.request_signing import find_signer
from ..upstream.client import ByteBudget, HTTPClient
from ..upstream.embedded_engine import EmbeddedEngine, has_ended
from ..upstream.target_secrets import redactor
from .clients.cancellation import Cancellation
from .outcome import Outcome
from .plan_calls import complete_plan, open_plan_stream
from .streaming.event_stream import EventStream, FrameSource
from .target_calls import SizeLimits, TargetCalls
from .usage_charges import UsageCounter


@dataclass(frozen=True, slots=True)
class TargetCaller:
    """Has targets answer. One for each process.

    *beside_error* is what an error in a stream has beside it. *memory* is of what
    errors have said about deployments.
    """

    upstream: HTTPClient
    engine: EmbeddedEngine
    sizes: SizeLimits
    credentials: AccessTokens
    beside_error: Mapping[str, Any] = field(default_factory=dict)
    memory: FactMemory = field(default_factory=FactMemory)

    def plan(self, target: Target) -> Plan:
        """How *target* would answer its request. Raises InvalidRequest."""
        assert target.request, "a route to completions has a request for every target"
        provider = _usable_provider(target)
        # One process answers all callers, so its requests are checked before they wait.
        if provider.embedded:
            self.engine.check(target.request)
        facts = self.memory.find(lambda: facts_key(target))
        return make_plan(
            provider, target, target.request, self.sizes.max_choices, facts
        )

    def learn(self, plan: Plan) -> None:
        """Remember what errors have said before *plan*, which was answered."""
        if plan.replanned:
            self.memory.learn(facts_key(plan.target), plan.lessons)

    def call(
        self, plan: Plan, counter: UsageCounter, cancellation: Cancellation
    ) -> Outcome:
        """The answer to *plan*, up to the commit point: whole, or its first event.

        What it uses is on *counter*. It breaks off when it is cancelled. Raises
        GatewayError.
        """
        calls = self._target_calls(plan.target)
        cancellation.add(calls.open_calls.abort)
        body: bytes | EventStream
        warnings: list[str] = []
        try:
            if plan.request.stream:
                body = self._open_stream(calls, plan, counter, warnings)
            else:
                answer = complete_plan(calls, plan, counter)
                if isinstance(answer, Completion):
                    body = orjson.dumps(answer.to_body())
                    warnings += answer.warnings
                else:
                    body = answer.body
        except UpstreamError as e:
            # No provider's failure: quarantine.py asks which request did it.
            if plan.provider.embedded and has_ended(e):
                raise EngineEnded from None
            raise _named_and_redacted(e, calls.target) from None
        return Outcome(
            body,
            calls.shown_headers,
            plan,
            (*plan.target.notices, *plan.warnings, *warnings),
            counter,
        )

    def _open_stream(
        self,
        calls: TargetCalls,
        plan: Plan,
        counter: UsageCounter,
        warnings: list[str],
    ) -> EventStream:
        try:
            frames = open_plan_stream(calls, plan, counter, warnings)
        except BaseException:
            calls.open_calls.abort()
            raise
        return EventStream(
            _NamedErrors(frames, calls.target),
            calls.open_calls,
            self.beside_error,
            choices=plan.request.n * len(plan.request.prompts),
        ).commit()

    def models(self, target: Target) -> Outcome:
        """The provider's own list of models. Raises GatewayError."""
        provider = _usable_provider(target)
        if provider.models is None:
            raise UnsupportedProvider(
                f"Provider {provider.name} has no list of models to relay."
            )
        calls = self._target_calls(target)
        try:
            with calls.open_calls:
                body = calls.read_body(provider.models(provider, calls.target))
                with malformed_as_upstream_error(body):
                    body = provider.model_list(body)
        except UpstreamError as e:
            raise _named_and_redacted(e, calls.target) from None
        return Outcome(body, calls.shown_headers)

    def _target_calls(self, target: Target) -> TargetCalls:
        """What makes the calls, with the credentials that the target has by now."""
        provider = _usable_provider(target)
        if provider.embedded:
            _refuse_host(target)
            self.engine.ensure_on()
            url, key = self.engine.url, self.engine.key
            target = replace(target, base_url=url, api_key=key)
        sign = None
        try:
            # May call the provider's token service, so not before the plan is made.
            if provider.token_source:
                target = self.credentials.with_token(provider, target)
            if provider.signer:
                sign = find_signer(provider.signer, provider, target)
        except GatewayError as e:
            raise _redacted(e, target) from None
        budget = ByteBudget(self.sizes.max_answer_bytes)
        return TargetCalls(
            provider, target, self.upstream, self.engine, self.sizes, budget, sign
        )


class _NamedErrors:
    """The frames of a stream, whose errors name their provider and show no secret."""

    def __init__(self, frames: FrameSource, target: Target) -> None:
        self._frames, self._target = frames, target
        self.close = frames.close

    @property
    def done(self) -> bool:
        return self._frames.done

    def read(self, wake_at: float = inf) -> Sequence[bytes] | None:
        try:
            return self._frames.read(wake_at)
        except UpstreamError as e:
            raise _named_and_redacted(e, self._target) from None


def _refuse_host(target: Target) -> None:
    if target.base_url:
        raise InvalidRoute(
            f"Invalid custom host: provider {target.provider} runs in the gateway.",
            legacy="Invalid custom host",
            code="invalid_custom_host",
        )


def _usable_provider(target: Target) -> Provider:
    """The target's provider. Raises InvalidRequest or Unauthorized if it is no use."""
    provider = PROVIDERS.get(target.provider)
    if provider is None or not provider.modes:
        absent = provider.unsupported_because if provider else "unknown"
        raise UnsupportedProvider(
            f"Provider {target.provider} has no text completions: {absent}."
        )
    if provider.needs_key and not _has_key(provider, target):
        raise Unauthorized(
            f"You didn't provide an API key for {provider.name}. Send it as "
            "x-portkey-api-key, or as Authorization: Bearer YOUR_KEY"
            + "".join(
                f"; or the settings {', '.join(names)}"
                for names in provider.credential_settings
            )
            + ".",
            code="missing_api_key",
        )
    return provider


def _has_key(provider: Provider, target: Target) -> bool:
    """Whether there is a key, or all of the settings that stand for one."""
    settings = any(map(target.has, provider.credential_settings))
    # A header that the config forwards may hold the caller's own key.
    forwarded = "authorization" in map(str.lower, target.headers)
    return bool(target.api_key) or settings or forwarded


def _named_and_redacted(error: UpstreamError, target: Target) -> UpstreamError:
    """*error* with its provider's name, and without a secret that it may quote."""
    _redacted(error, target)
    error.provider = target.provider
    return error


# Characters of an upstream's own message that are passed on, and of its other fields;
# and those that are looked at for that.
_MAX_MESSAGE, _MAX_FIELD = 8192, 200
_LOOKED_AT = 2 * _MAX_MESSAGE
# Of its details: levels of nesting, entries of one object or list, bytes in all.
_MAX_DEPTH, _MAX_ENTRIES, _MAX_DETAILS = 8, 64, 2**14


def _redacted(error: GatewayError, target: Target) -> GatewayError:
    """*error* without a secret of *target*, be it whole, cut off, escaped or encoded.

    Nor does it lead any more to the answer that it is about, which has them, too.
    """
    release(error)
    clean = redactor(target)
    error.message = clean.text(error.message[:_LOOKED_AT])[:_MAX_MESSAGE]
    error.args = (error.message,)
    if isinstance(error, UpstreamStatus):
        error.details = _redacted_details(error.details, clean)
        error.called = clean.text(error.called) if error.called else None
    for name in ("type", "param", "code"):
        if value := getattr(error, name):
            setattr(error, name, clean.text(str(value)[:_LOOKED_AT])[:_MAX_FIELD])
    error.headers = clean.headers(error.headers)
    return error


def _redacted_details(details: Mapping[str, Any], clean: Redactor) -> dict[str, Any]:
    """*details* without a secret; all texts in them may hold one. None if too large."""

    def redacted(value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return clean.text(value[:_LOOKED_AT])[:_MAX_MESSAGE]
        if isinstance(value, (dict, list)) and depth == _MAX_DEPTH:
            return None
        if isinstance(value, dict):
            entries = list(value.items())[:_MAX_ENTRIES]
            return {
                clean.text(str(name)[:_LOOKED_AT])[:_MAX_FIELD]: redacted(v, depth + 1)
                for name, v in entries
            }
        if isinstance(value, list):
            return [redacted(item, depth + 1) for item in value[:_MAX_ENTRIES]]
        return value

    cleaned: dict[str, Any] = redacted(dict(details), 0)
    return cleaned if len(orjson.dumps(cleaned, default=str)) <= _MAX_DETAILS else {}
