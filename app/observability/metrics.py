"""What is counted, for Prometheus: one table of all there is.

docs/metrics.md explains it. No label holds what a caller can make up: providers, ways,
limits and the like are from lists, statuses are numbers of three digits. Under gunicorn
the processes share files, in the folder of PROMETHEUS_MULTIPROC_DIR, and any of them
tells for all.
"""

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from ..gateway.request_record import End, RequestRecord
from ..providers.catalog.known_names import KNOWN_NAMES
from ..state.breaker import BreakerSnapshot

# Each counter would have a second series, that says since when it is there.
disable_created_metrics()  # type: ignore[no-untyped-call]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One family of series. *name* is without `lastword_`."""

    name: str
    kind: type[Counter] | type[Gauge] | type[Histogram]
    help: str
    labels: tuple[str, ...] = ()


TABLE = (
    MetricDefinition(
        "requests",
        Counter,
        "Requests that are over, by how they ended and what the caller saw first.",
        ("provider", "via", "status", "stream", "cache", "end"),
    ),
    MetricDefinition(
        "refused", Counter, "Requests refused before any target.", ("status",)
    ),
    MetricDefinition(
        "request_duration_seconds",
        Histogram,
        "From a request to its last byte.",
        ("provider", "stream"),
    ),
    MetricDefinition(
        "first_event_seconds",
        Histogram,
        "From a request to its first event, or to its whole answer.",
        ("provider", "stream"),
    ),
    MetricDefinition(
        "longest_gap_seconds",
        Histogram,
        "The longest that a stream made its caller wait between two events.",
        ("provider",),
    ),
    MetricDefinition("stream_gaps", Counter, "Gaps between two events.", ("provider",)),
    MetricDefinition(
        "stream_gap_seconds",
        Counter,
        "What streams have made their callers wait between events, in all.",
        ("provider",),
    ),
    MetricDefinition(
        "tokens", Counter, "Tokens, counted or estimated.", ("provider", "kind")
    ),
    MetricDefinition(
        "cost_usd", Counter, "US dollars, where a price is known.", ("provider",)
    ),
    MetricDefinition("attempts", Counter, "Tries of targets.", ("provider", "status")),
    MetricDefinition(
        "retries", Counter, "Tries of a target after its first.", ("provider",)
    ),
    MetricDefinition(
        "fallbacks", Counter, "Targets tried after the first one.", ("provider",)
    ),
    MetricDefinition(
        "left", Counter, "Callers who hung up before the end.", ("provider",)
    ),
    MetricDefinition(
        "limits_hit", Counter, "Requests over a limit of a key.", ("limit",)
    ),
    MetricDefinition(
        "aliased", Counter, "Requests that an alias led elsewhere.", ("provider",)
    ),
    MetricDefinition(
        "shutdowns_ahead",
        Counter,
        "Requests for a model that an alias says will be shut down.",
        ("provider",),
    ),
    MetricDefinition("requests_open", Gauge, "Requests under way."),
    MetricDefinition("streams_open", Gauge, "Streams under way that have begun."),
    MetricDefinition(
        "ledger_waiting", Gauge, "Rows that the ledger has not written yet."
    ),
    MetricDefinition(
        "ledger_dropped", Gauge, "Rows that the ledger has lost since the start."
    ),
    MetricDefinition(
        "uncounted", Gauge, "Requests that came too fast to be counted here."
    ),
)

# The same for all processes, which share them: looked up when Prometheus asks.
BREAKERS = MetricDefinition(
    "breakers",
    Gauge,
    "Targets that have a breaker and were called, by how that is.",
    ("provider", "state"),
)

_KNOWN = frozenset(KNOWN_NAMES)

# Takes the place of what is not from a list.
_OTHER = "other"


class MetricSums(defaultdict[tuple[str, ...], float]):
    """What is added to counters at once, by their names and labels."""

    def __init__(self) -> None:
        super().__init__(float)


class Metrics:
    """Counts requests. One for each process."""

    def __init__(self) -> None:
        self._levels: dict[str, Callable[[], float]] = {}
        self._registry = CollectorRegistry()
        self._all: dict[str, Any] = {m.name: _made(m, self._registry) for m in TABLE}
        self._breakers: Callable[[], Iterable[BreakerSnapshot]] = tuple
        self._sums = MetricSums()

    def show(self, name: str, level: Callable[[], float]) -> None:
        """Have the gauge of this *name* show *level*."""
        self._levels[name] = level

    def show_breakers(self, known: Callable[[], Iterable[BreakerSnapshot]]) -> None:
        """Have the gauge of breakers count those that are *known*, in all processes."""
        self._breakers = known

    def refused(self, status: int) -> None:
        """Count a request that did not get as far as to a target."""
        self._child("refused", str(status)).inc()

    def text(self) -> bytes:
        """All that there is, of all processes, in Prometheus' format."""
        return generate_latest(self)

    def collect(self) -> Iterator[Family]:
        """What there is of all processes: Prometheus' own word for it."""
        yield from self._counted()
        yield _breakers(self._breakers())

    def _counted(self) -> Iterable[Family]:
        if ValueClass is MutexValue:
            return self._registry.collect()
        everyones = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        found: Iterable[Family]
        found = everyones.collect()  # type: ignore[no-untyped-call]
        return found

    def levels(self, *names: str) -> list[float]:
        """What the gauges of these *names* show, all processes together."""
        found = {
            sample.name: sample.value
            for family in self._counted()
            for sample in family.samples
        }
        return [found.get(f"lastword_{name}", 0.0) for name in names]

    def note(self, finished: RequestRecord) -> None:
        """Count a request."""
        target = finished.trace.target
        provider = _provider(target.provider if target else "")
        self._note_end(finished, provider)
        self._note_times(finished, provider)
        self._note_use(finished, provider)
        self._note_way(finished, provider)

    def publish(self) -> None:
        """Add to the counters what was counted, and let the gauges show what is now."""
        sums, self._sums = self._sums, MetricSums()
        for (name, *labels), by in sums.items():
            self._child(name, *labels).inc(by)
        for name, level in self._levels.items():
            self._child(name).set(level())

    def close(self) -> None:
        """There is nothing to let go of: what is counted can still be asked for."""

    def _child(self, name: str, *labels: str) -> Any:
        """The series of that *name* that has these *labels*."""
        family = self._all[name]
        return family.labels(*labels) if labels else family

    def _note_end(self, finished: RequestRecord, provider: str) -> None:
        self._sums[
            "requests",
            provider,
            finished.via,
            str(finished.status),
            _yes(finished.stream),
            finished.trace.cache.value.lower(),
            finished.end.value,
        ] += 1
        if finished.end == End.LEFT:
            self._sums["left", provider] += 1
        if finished.error and finished.error.rule:
            self._sums["limits_hit", finished.error.rule] += 1

    def _note_times(self, finished: RequestRecord, provider: str) -> None:
        told = provider, _yes(finished.stream)
        self._child("request_duration_seconds", *told).observe(finished.took)
        if finished.first is not None:
            self._child("first_event_seconds", *told).observe(finished.first)
        if finished.gap is not None:
            self._child("longest_gap_seconds", provider).observe(finished.gap)
        if finished.gaps:
            self._sums["stream_gaps", provider] += finished.gaps
            self._sums["stream_gap_seconds", provider] += finished.gap_seconds

    def _note_use(self, finished: RequestRecord, provider: str) -> None:
        usage = finished.usage
        # There are providers that count below nothing.
        sent = max(usage.paid_prompt_tokens, 0)
        made = max(usage.completion_tokens, 0)
        self._sums["tokens", provider, "prompt"] += sent
        self._sums["tokens", provider, "completion"] += made
        if finished.cost and finished.cost > 0:
            self._sums["cost_usd", provider] += float(finished.cost)

    def _note_way(self, finished: RequestRecord, provider: str) -> None:
        seen: set[str] = set()
        for attempt in finished.trace.attempts:
            tried = _provider(attempt.provider)
            self._sums["attempts", tried, str(attempt.status)] += 1
            if attempt.path in seen:
                self._sums["retries", tried] += 1
            elif seen:
                self._sums["fallbacks", tried] += 1
            seen.add(attempt.path)
        target = finished.trace.target
        if target and target.alias:
            self._sums["aliased", provider] += 1
        if target and any("will be shut down" in note for note in target.notices):
            self._sums["shutdowns_ahead", provider] += 1


def families() -> Iterator[tuple[str, MetricDefinition]]:
    """All that may ever be emitted, by the names of their families."""
    return ((f"lastword_{metric.name}", metric) for metric in (*TABLE, BREAKERS))


def _made(metric: MetricDefinition, registry: CollectorRegistry) -> Any:
    given: dict[str, Any] = {"namespace": "lastword", "registry": registry}
    if metric.kind is Gauge:
        # Those of processes that have ended do not count.
        given["multiprocess_mode"] = "livesum"
    if metric.kind is Histogram:
        given["buckets"] = _SECONDS
    return metric.kind(metric.name, metric.help, metric.labels, **given)


def _breakers(known: Iterable[BreakerSnapshot]) -> Family:
    """How many targets of each provider have a breaker in each state."""
    name, labels = f"lastword_{BREAKERS.name}", BREAKERS.labels
    family = GaugeMetricFamily(name, BREAKERS.help, labels=labels)
    found = Tally((_provider(seen.provider), seen.state) for seen in known)
    for told, count in sorted(found.items()):
        family.add_metric(told, count)
    return family


def _provider(name: str) -> str:
    return name if name in _KNOWN else _OTHER if name else "none"


def _yes(whether: bool) -> str:
    return "yes" if whether else "no"
