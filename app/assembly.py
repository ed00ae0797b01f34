"""Puts the gateway together from its parts.

It loads all of them, so it must not be imported where gevent has not patched yet.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import __version__
from .gateway.clients.connections import ClientConnections
from .gateway.ledger_hook import ledger_hook
from .gateway.metering import Metering
from .gateway.pipeline import Gateway
from .gateway.quarantine import Quarantine
from .gateway.request_record import Hook
from .gateway.response_cache import ResponseCache
from .gateway.retries import Clock
from .gateway.target_caller import TargetCaller
from .gateway.target_calls import SizeLimits
from .gateway.tracing import Tracing
from .observability import otel_settings
from .observability.dispatcher import BackgroundDispatcher, Observer
from .observability.logs import RequestLog
from .observability.metrics import Metrics
from .settings import BadSettings, Settings
from .state.breaker import Breaker, Circuits
from .state.local_cache import LocalCache
from .state.local_store import LocalCircuits, LocalCounters, LocalFile
from .state.meter import Counters, Meter
from .state.response_store import ResponseBackend, ResponseStore
from .store.ledger import Ledger
from .upstream.auth.access_tokens import AccessTokens
from .upstream.client import HTTPClient
from .upstream.embedded_engine import EmbeddedEngine
from .upstream.timeouts import Timeouts


@dataclass(frozen=True, slots=True)
class Observed:
    """Who looks at requests when they are over: *metrics* may be one of *later*'s.

    *tracing* begins the spans of requests, if one of them wants those.
    """

    later: BackgroundDispatcher
    metrics: Metrics | None
    tracing: Tracing | None


def observed(settings: Settings, ledger: Ledger) -> Observed:
    """Those whom *settings* want; the metrics also show what waits in *ledger*."""
    metrics = Metrics() if settings.metrics else None
    log = RequestLog(prompts=settings.log_prompts) if settings.log_requests else None
    traces = otel_settings.span_observer(settings)
    all_there_are: tuple[Observer | None, ...] = (metrics, log, traces)
    later = BackgroundDispatcher([each for each in all_there_are if each is not None])
    if metrics is not None:
        metrics.show("ledger_waiting", lambda: ledger.waiting)
        metrics.show("ledger_dropped", lambda: ledger.dropped)
        metrics.show("uncounted", lambda: later.lost)
    return Observed(later, metrics, Tracing(traces.is_sampled) if traces else None)


def gateway(
    settings: Settings, ledger: Ledger, observed: Observed, clock: Clock | None
) -> Gateway:
    """A gateway as *settings* want it. It tells *ledger* and *observed* of requests."""
    clock = clock or Clock()
    resources = ExitStack()
    state = _state(settings, resources)
    callers = _callers(settings, resources)
    breaker = Breaker(state.circuits, clock.now)
    hooks: list[Hook] = [ledger_hook(ledger)] if settings.ledger else []
    hooks.append(observed.later.enqueue)
    resources.callback(observed.later.close)
    if observed.metrics is not None:
        observed.metrics.show("requests_open", lambda: callers.count)
        observed.metrics.show("streams_open", lambda: callers.streams)
        observed.metrics.show_breakers(breaker.snapshots)
    return Gateway(
        _answering(settings, resources),
        ResponseCache(ResponseStore(state.cache, now=clock.now)),
        Metering(Meter(state.counters), settings.prices, clock.now),
        breaker,
        callers,
        Quarantine(state.circuits, clock.now),
        settings.heartbeat,
        clock=clock,
        hooks=hooks,
        tracing=observed.tracing,
        resources=resources,
    )


def _answering(settings: Settings, resources: ExitStack) -> TargetCaller:
    upstream = _upstream(settings)
    resources.callback(upstream.close)
    return TargetCaller(
        upstream,
        EmbeddedEngine.of(settings, upstream),
        _sizes(settings),
        AccessTokens(upstream),
        # Tabby's client fails on a frame without choices; others read them first.
        beside_error={"choices": []} if settings.error_frame_choices else {},
    )


def _callers(settings: Settings, resources: ExitStack) -> ClientConnections:
    callers = ClientConnections(settings.idle_timeout, settings.max_requests)
    resources.callback(callers.close)
    return callers


def _upstream(settings: Settings) -> HTTPClient:
    limits = Timeouts(
        settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout
    )
    return HTTPClient(
        limits,
        user_agent=f"lastword/{__version__}",
        ca_bundle=settings.ca_bundle,
    )


def _sizes(settings: Settings) -> SizeLimits:
    return SizeLimits(
        settings.max_answer_bytes,
        settings.max_event_bytes,
        settings.max_choices,
        settings.fanout,
    )


@dataclass(frozen=True, slots=True)
class _State:
    """What requests leave behind for others."""

    counters: Counters
    circuits: Circuits
    cache: ResponseBackend


def _state(settings: Settings, resources: ExitStack) -> _State:
    """The machine's own files; with Redis, that for counters and the cache."""
    folder = Path(settings.instance)
    file = LocalFile(folder / "limits.db")
    resources.callback(file.close)
    counters, circuits = LocalCounters(file), LocalCircuits(file)
    if settings.redis_url:
        return _redis_state(settings.redis_url, counters, circuits, resources)
    cache = LocalCache(folder / "cache.db", settings.cache_bytes)
    resources.callback(cache.close)
    return _State(counters, circuits, cache)


def _redis_state(
    url: str, local: Counters, circuits: Circuits, resources: ExitStack
) -> _State:
    """Counters and cache in the Redis at *url*; *local* counters if it is unavailable.

    Circuits stay the machine's own.
    """
    # An extra, which only those have installed who use it.
    try:
        from .state import background_writer, failover, redis_store
    except ImportError as e:
        raise BadSettings(
            "GATEWAY_REDIS_URL needs a package: pip install 'lastword[redis]'"
        ) from e
    try:
        client = redis_store.RedisClient(url)
    except ValueError as e:
        raise BadSettings(f"GATEWAY_REDIS_URL: {e}") from e
    counters = failover.FailoverCounters(
        redis_store.RedisCounters(client),
        local,
        background_writer.BackgroundWriter(client),
    )
    resources.callback(counters.close)
    return _State(counters, circuits, redis_store.RedisCache(client))
