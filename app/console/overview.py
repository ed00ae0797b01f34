"""The overview: requests, errors, waits, tokens and cost over time."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from ..store.ledger_queries import DIVISIONS, LedgerQueries, UsageTotals, merge_totals
from . import formatting
from .plots import Format, Plot, Series, columns, lines
from .services import ConsoleServices
from .stats import (
    TimeSlice,
    largest_groups,
    name_groups,
    only_group,
)


@dataclass(frozen=True, slots=True)
class Window:
    """A period up to now, in *slices* of *step* seconds, shown as *step_name*.

    *label* formats the times below a plot, one at every *label_every*-th slice.
    """

    id: str
    name: str
    slices: int
    step: int
    step_name: str
    label: Callable[[float], str]
    label_every: int

    @property
    def max_age(self) -> float:
        """Seconds for which its totals are not queried again."""
        return min(self.step / 30, 120)


WINDOWS = {
    window.id: window
    for window in (
        Window("15m", "15 min", 60, 15, "15 s", formatting.clock, 12),
        Window("24h", "24 h", 48, 1800, "30 min", formatting.clock, 8),
        Window("30d", "30 d", 60, 43200, "12 h", formatting.day, 12),
    )
}


class OverviewCache:
    """The slices of each window, queried no more often than needed.

    One query at a time: pages that reload at the same moment wait for the first and
    share its result. The ledger may have millions of rows.
    """

    def __init__(
        self, ledger: LedgerQueries, now: Callable[[], float] = time.time
    ) -> None:
        self._ledger, self._now = ledger, now
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], tuple[float, list[TimeSlice]]] = {}

    def slices(self, window: Window, by: str) -> list[TimeSlice]:
        """Those up to now. Raises StoreUnavailable."""
        with self._lock:
            queried, slices = self._entries.get((window.id, by), (0.0, []))
            # Below 0 the clock was set back, and the entry would stay for as long.
            if not 0 <= self._now() - queried < window.max_age:
                queried = self._now()
                slices = self._query(window, by, queried)
                self._entries[window.id, by] = queried, slices
            return slices

    def _query(self, window: Window, by: str, now: float) -> list[TimeSlice]:
        # Slices begin at multiples of the step, so that a reload does not move requests
        # from one to another. The last one is still under way.
        step = window.step
        last = now // step * step
        slices = []
        for start in (last - i * step for i in reversed(range(window.slices))):
            # SQLite blocks the whole gevent worker during a query: one for each slice,
            # with a switch to other greenlets in between, keeps streams going.
            time.sleep(0)
            groups = name_groups(self._ledger.sums(by, start, start + step))
            slices.append(TimeSlice(start, step, min(step, now - start), groups))
        return slices


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with its heading and legend: names, and classes for their colours."""

    title: str
    note: str
    svg: Markup
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StackedChart:
    """A plot stacked by groups. *value* gets the totals of a group in a slice, the
    slice, and the totals of all groups in it.

    *empty* is the text where all values are zero, *no_requests* where there are none.
    """

    title: str
    note: str
    value: Callable[[UsageTotals, TimeSlice, UsageTotals], float]
    unit: Format
    min_top: float = 1.0
    empty: str = "no requests"
    no_requests: str = "no requests"


STACKED_CHARTS = (
    StackedChart(
        "Requests",
        "a minute",
        lambda group, within, total: group.requests / within.minutes,
        formatting.count,
    ),
    StackedChart(
        "Errors",
        "share of all requests that failed or were cut",
        lambda group, within, total: group.failed / max(total.requests, 1),
        formatting.share,
        min_top=0.04,
        empty="no errors",
    ),
    StackedChart(
        "Tokens",
        "in and out, a minute",
        lambda group, within, total: group.tokens / within.minutes,
        formatting.count,
    ),
    StackedChart(
        "Cost",
        "US dollars in {step}",
        lambda group, within, total: group.cost,
        formatting.money,
        min_top=0.01,
        empty="no cost",
        no_requests="no cost",
    ),
)


def register(routes: Blueprint, services: ConsoleServices) -> None:
    """Add the page to *routes*."""
    cache = OverviewCache(services.ledger)

    @routes.get("/")
    def overview() -> ResponseReturnValue:
        window = WINDOWS.get(request.args.get("window", ""), WINDOWS["15m"])
        by = request.args.get("by", "")
        # It becomes a column's name: nothing but the listed ones.
        by = by if by in DIVISIONS else DIVISIONS[0]
        only = request.args.get("only", "")[:80]
        slices = only_group(cache.slices(window, by), only)
        groups = largest_groups(slices)
        # Those of this worker; the metrics have the sum over all.
        connections = services.gateway.clients
        open_requests, open_streams = connections.count, connections.streams
        if services.metrics is not None:
            values = services.metrics.gauge_values("requests_open", "streams_open")
            open_requests, open_streams = int(values[0]), int(values[1])
        return render_template(
            "console/overview.html",
            windows=WINDOWS.values(),
            window=window,
            by=by,
            only=only,
            divisions=DIVISIONS,
            total=merge_totals(groups),
            groups=groups,
            charts=charts(window, slices, [each.group for each in groups]),
            breakers=services.gateway.breaker.snapshots(),
            open_requests=open_requests,
            open_streams=open_streams,
            all_processes=services.metrics is not None,
            ledger=services.settings.ledger,
        )


def charts(
    window: Window, slices: Sequence[TimeSlice], names: Sequence[str]
) -> list[Chart]:
    """The plots of the page; most are stacked by the groups of these *names*."""
    totals = [merge_totals(each.groups) for each in slices]
    groups = [each.by_names(names) for each in slices]
    marks = [f"{formatting.moment(each.start)} UTC" for each in slices]
    labels = [
        (i, window.label(each.start))
        for i, each in enumerate(slices)
        # From half a distance on, so that no label hangs over the edge.
        if i % window.label_every == window.label_every // 2
    ]

    def stacked(definition: StackedChart) -> Chart:
        values = [
            [definition.value(group, within, total) for group in column]
            for column, within, total in zip(groups, slices, totals, strict=True)
        ]
        series = [
            Series(name, [column[i] for column in values], f"c{i}")
            for i, name in enumerate(names)
        ]
        title, unit = definition.title, definition.unit
        has_requests = any(each.requests for each in totals)
        empty = definition.empty if has_requests else definition.no_requests
        plot = Plot(title, series, marks, labels, unit, definition.min_top, empty)
        note = definition.note.format(step=window.step_name)
        legend = [(each.name, each.look) for each in series]
        return Chart(title, note, Markup(columns(plot)), legend)

    waits = [
        Series("p50", [each.p50 for each in totals], "c0"),
        Series("p95", [each.p95 for each in totals], "c1"),
    ]
    plot = Plot("First event", waits, marks, labels, formatting.duration, 0.1)
    legend = [(each.name, each.look) for each in waits]
    first_event = Chart(plot.title, "after a request", Markup(lines(plot)), legend)
    requests, errors, tokens, cost = map(stacked, STACKED_CHARTS)
    return [requests, errors, first_event, tokens, cost]
