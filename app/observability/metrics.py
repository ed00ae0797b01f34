"""Prometheus metrics: one table of all families, and what each request adds to them.

docs/metrics.md explains them. No label holds what a caller can make up: providers,
modes and limits come from lists, statuses have three digits.

Under gunicorn, any worker may get the request of Prometheus, and has to answer for all.
So prometheus_client keeps the values in mapped files in PROMETHEUS_MULTIPROC_DIR, one
of each kind for each process. To count, a process writes into its own, without a lock
between processes; to answer, it reads the files of all and adds them up. The files of a
worker that has ended stay, as a counter must never fall, except its gauges, which
hooks.py removes. `flask run` is a single process, and keeps its values in memory.

Source: https://prometheus.github.io/client_python/multiprocess/
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

# By default each counter has a second series, with the time of its creation: twice the
# data for Prometheus, and of no meaning where several processes share a counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

# In seconds. From a token out of a cache to the longest stream with default timeouts.
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


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

# Not in the files: all processes share the breakers, and a sum would count each of them
# several times. They are looked up when Prometheus asks.
BREAKERS = MetricDefinition(
    "breakers",
    Gauge,
    "Targets that have a breaker and were called, by how that is.",
    ("provider", "state"),
)

_PROVIDER_NAMES = frozenset(KNOWN_NAMES)

# Series by name and labels, and what to add to each.
Increments = defaultdict[tuple[str, ...], float]


class Metrics:
    """Counts requests. One for each process.

    `note` only adds up numbers in memory; `publish` writes the sums into the shared
    files. Histograms are written at once, as each value needs its bucket.
    """

    # Why two steps: a request changes some ten series, and each `inc` takes a lock and
    # packs a value into the file. One `inc` with the sum of a second costs as much as
    # one for a single request.

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._families = {
            definition.name: _new_family(definition, self._registry)
            for definition in TABLE
        }
        self._gauges: dict[str, Callable[[], float]] = {}
        self._breakers: Callable[[], Iterable[BreakerSnapshot]] = tuple
        self._increments: Increments = defaultdict(float)

    def show(self, name: str, value: Callable[[], float]) -> None:
        """Have the gauge of this *name* show *value*."""
        self._gauges[name] = value

    def show_breakers(self, snapshots: Callable[[], Iterable[BreakerSnapshot]]) -> None:
        """Have the gauge of breakers count *snapshots*, which are of all processes."""
        self._breakers = snapshots

    def count_refusal(self, status: int) -> None:
        """Count a request that was refused before any target."""
        # At once: a refused request has no record, and is cheap otherwise.
        self._series("refused", str(status)).inc()

    def text(self) -> bytes:
        """All families of all processes, in Prometheus' text format."""
        # It is declared to take a registry, but only calls its `collect`.
        return generate_latest(self)

    def collect(self) -> Iterator[Family]:
        """All families of all processes; the name is that of Prometheus' protocol."""
        yield from self._process_families()
        states = Tally((_provider_label(b.provider), b.state) for b in self._breakers())
        family = GaugeMetricFamily(
            f"lastword_{BREAKERS.name}", BREAKERS.help, labels=BREAKERS.labels
        )
        for labels, count in sorted(states.items()):
            family.add_metric(labels, count)
        yield family

    def gauge_values(self, *names: str) -> list[float]:
        """The values of the gauges of these *names*, summed over all processes."""
        values = {
            sample.name: sample.value
            for family in self._process_families()
            for sample in family.samples
        }
        return [values.get(f"lastword_{name}", 0.0) for name in names]

    def _process_families(self) -> Iterable[Family]:
        # In a single process, as with `flask run`, values are in memory.
        if ValueClass is MutexValue:
            return self._registry.collect()
        # None: it is not registered, only asked once. It reads the directory from the
        # environment each time.
        collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        families: Iterable[Family]
        families = collector.collect()  # type: ignore[no-untyped-call]
        return families

    def note(self, record: RequestRecord) -> None:
        provider = _provider_label(record.provider)
        stream = _yes_or_no(record.stream)
        self._series("request_duration_seconds", provider, stream).observe(record.took)
        if record.first is not None:
            self._series("first_event_seconds", provider, stream).observe(record.first)
        if record.gap is not None:
            self._series("longest_gap_seconds", provider).observe(record.gap)
        for series, amount in counter_increments(record).items():
            self._increments[series] += amount

    def publish(self) -> None:
        """Write the sums into the counters, and the present values of the gauges."""
        # Called by the dispatcher's thread, like `note`, so no lock is needed.
        increments, self._increments = self._increments, defaultdict(float)
        for (name, *labels), amount in increments.items():
            self._series(name, *labels).inc(amount)
        for name, value in self._gauges.items():
            self._series(name).set(value())

    def close(self) -> None:
        """Nothing to release: the counters can still be read."""

    def _series(self, name: str, *labels: str) -> Any:
        family = self._families[name]
        return family.labels(*labels) if labels else family


def counter_increments(record: RequestRecord) -> Increments:
    """What a request adds to the counters."""
    provider, target = _provider_label(record.provider), record.trace.target
    notices = target.notices if target else ()
    rule = (record.error and record.error.rule) or ""
    increments: Increments = defaultdict(
        float,
        {
            (
                "requests",
                provider,
                record.via,
                str(record.status),
                _yes_or_no(record.stream),
                record.cache,
                record.end.value,
            ): 1,
            # Some providers report negative counts, which a counter refuses.
            ("tokens", provider, "prompt"): max(record.prompt_tokens, 0),
            ("tokens", provider, "completion"): max(record.completion_tokens, 0),
        },
    )
    # These have no series before there is something to count.
    optional: dict[tuple[str, ...], float] = {
        ("cost_usd", provider): max(float(record.cost or 0), 0),
        ("stream_gaps", provider): record.gaps,
        ("stream_gap_seconds", provider): record.gap_seconds,
        ("left", provider): record.end == End.LEFT,
        ("limits_hit", rule): bool(rule),
        ("aliased", provider): record.alias is not None,
        ("shutdowns_ahead", provider): any("will be shut down" in n for n in notices),
    }
    increments |= {series: amount for series, amount in optional.items() if amount}
    # Another attempt at the same path is a retry, one at a new path a fallback.
    paths: set[str] = set()
    for attempt in record.trace.attempts:
        label = _provider_label(attempt.provider)
        increments["attempts", label, str(attempt.status)] += 1
        if attempt.path in paths:
            increments["retries", label] += 1
        elif paths:
            increments["fallbacks", label] += 1
        paths.add(attempt.path)
    return increments


def families() -> Iterator[tuple[str, MetricDefinition]]:
    """All families that may ever be emitted, with their full names."""
    return ((f"lastword_{each.name}", each) for each in (*TABLE, BREAKERS))


def _new_family(definition: MetricDefinition, registry: CollectorRegistry) -> Any:
    options: dict[str, Any] = {"namespace": "lastword", "registry": registry}
    if definition.kind is Gauge:
        # Summed over the processes that still run; the default is a series for each.
        options["multiprocess_mode"] = "livesum"
    if definition.kind is Histogram:
        options["buckets"] = _BUCKETS
    name, help, labels = definition.name, definition.help, definition.labels
    return definition.kind(name, help, labels, **options)


def _provider_label(name: str | None) -> str:
    """The label of a provider: "other" for one that is not from a list."""
    if not name:
        return "none"
    return name if name in _PROVIDER_NAMES else "other"


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
