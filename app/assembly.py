"""Creates the gateway and its parts from the settings.

It imports all of them, so it must not be imported before gevent has patched.
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
class Observers:
    """What reports on requests: *dispatcher* passes each one on when it has ended.

    *metrics* is also one of the dispatcher's observers. *tracing* creates the spans of
    requests, if they are exported.
    """

    dispatcher: BackgroundDispatcher
    metrics: Metrics | None
    tracing: Tracing | None


def observers(settings: Settings, ledger: Ledger) -> Observers:
    """The observers in *settings*; the metrics include the queue of *ledger*."""
    metrics = Metrics() if settings.metrics else None
    log = RequestLog(prompts=settings.log_prompts) if settings.log_requests else None
    traces = otel_settings.span_observer(settings)
    available: tuple[Observer | None, ...] = (metrics, log, traces)
    dispatcher = BackgroundDispatcher([each for each in available if each is not None])
    if metrics is not None:
        metrics.show("ledger_waiting", lambda: ledger.waiting)
        metrics.show("ledger_dropped", lambda: ledger.dropped)
        metrics.show("uncounted", lambda: dispatcher.lost)
    return Observers(
        dispatcher, metrics, Tracing(traces.is_sampled) if traces else None
    )


def gateway(
    settings: Settings, ledger: Ledger, observers: Observers, clock: Clock | None
) -> Gateway:
    """The gateway in *settings*, which reports to *ledger* and *observers*.

    Its resources are closed in reverse order: what is created first is closed last.
    """
    clock = clock or Clock()
    resources = ExitStack()
    state = _shared_state(settings, resources)
    callers = ClientConnections(settings.idle_timeout, settings.max_requests)
    resources.callback(callers.close)
    breaker = Breaker(state.circuits, clock.now)
    hooks: list[Hook] = [ledger_hook(ledger)] if settings.ledger else []
    hooks.append(observers.dispatcher.enqueue)
    resources.callback(observers.dispatcher.close)
    if observers.metrics is not None:
        observers.metrics.show("requests_open", lambda: callers.count)
        observers.metrics.show("streams_open", lambda: callers.streams)
        observers.metrics.show_breakers(breaker.snapshots)
    upstream = HTTPClient(
        Timeouts(
            settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout
        ),
        user_agent=f"lastword/{__version__}",
        ca_bundle=settings.ca_bundle,
    )
    resources.callback(upstream.close)
    target_caller = TargetCaller(
        upstream,
        EmbeddedEngine.from_settings(settings, upstream),
        SizeLimits(
            settings.max_answer_bytes,
            settings.max_event_bytes,
            settings.max_choices,
            settings.fanout,
        ),
        AccessTokens(upstream),
        # Tabby's client fails on a frame without choices; other clients look for an
        # error only in a frame without them.
        beside_error={"choices": []} if settings.error_frame_choices else {},
    )
    return Gateway(
        target_caller,
        ResponseCache(ResponseStore(state.cache, now=clock.now)),
        Metering(Meter(state.counters), settings.prices, clock.now),
        breaker,
        callers,
        Quarantine(state.circuits, clock.now),
        settings.heartbeat,
        clock=clock,
        hooks=hooks,
        tracing=observers.tracing,
        resources=resources,
    )


@dataclass(frozen=True, slots=True)
class _SharedState:
    """What is shared between requests, and between processes."""

    counters: Counters
    circuits: Circuits
    cache: ResponseBackend


def _shared_state(settings: Settings, resources: ExitStack) -> _SharedState:
    """The machine's own files; with Redis, that for counters and the cache."""
    folder = Path(settings.instance)
    file = LocalFile(folder / "limits.db")
    resources.callback(file.close)
    counters, circuits = LocalCounters(file), LocalCircuits(file)
    if settings.redis_url:
        return _redis_shared_state(settings.redis_url, counters, circuits, resources)
    cache = LocalCache(folder / "cache.db", settings.cache_bytes)
    resources.callback(cache.close)
    return _SharedState(counters, circuits, cache)


def _redis_shared_state(
    url: str, local: Counters, circuits: Circuits, resources: ExitStack
) -> _SharedState:
    """Counters and cache in the Redis at *url*; *local* counters if it is unavailable.

    Circuits stay the machine's own.
    """
    # The package redis is an optional dependency.
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
    writer = background_writer.BackgroundWriter(client)
    counters = failover.FailoverCounters(
        redis_store.RedisCounters(client), local, writer
    )
    resources.callback(counters.close)
    return _SharedState(counters, circuits, redis_store.RedisCache(client))
