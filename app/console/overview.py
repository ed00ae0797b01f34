"""What goes on: requests, failures, waits, tokens and cost over time."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from ..store.ledger_queries import DIVISIONS, LedgerQueries
from . import formatting
from .plots import Plot, Series, columns, lines
from .services import ConsoleServices
from .stats import Slice, Total, by_group, only, per_slice, total


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time up to now, in slices of *step* seconds.

    *each* says how long those are, *label* writes the time below a plot, at every
    *every*-th slice.
    """

    id: str
    name: str
    slices: int
    step: int
    each: str
    label: Callable[[float], str]
    every: int

    @property
    def freshness(self) -> float:
        """Seconds for which its sums are not asked for again."""
        return min(self.step / 30, 120)


WINDOWS = {
    each.id: each
    for each in (
        Window("15m", "15 min", 60, 15, "15 s", formatting.clock, 12),
        Window("24h", "24 h", 48, 1800, "30 min", formatting.clock, 8),
        Window("30d", "30 d", 60, 43200, "12 h", formatting.day, 12),
    )
}


class OverviewSums:
    """The slices of windows, which *history* is asked for no more often than needed."""

    def __init__(
        self, history: LedgerQueries, now: Callable[[], float] = time.time
    ) -> None:
        self._history, self._now = history, now
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[float, list[Slice]]] = {}

    def slices(self, window: Window, by: str) -> list[Slice]:
        """Those up to now. Raises StoreUnavailable."""
        with self._lock:
            asked, slices = self._kept.get((window.id, by), (0.0, []))
            if not 0 <= self._now() - asked < window.freshness:
                asked, slices = self._now(), self._asked(window, by)
                self._kept[window.id, by] = asked, slices
            return slices

    def _asked(self, window: Window, by: str) -> list[Slice]:
        now = self._now()
        last = now // window.step * window.step
        starts = [last - i * window.step for i in reversed(range(window.slices))]
        return [self._slice(start, window.step, by, now) for start in starts]

    def _slice(self, start: float, step: int, by: str, now: float) -> Slice:
        # One slice at a time: between them others have their turn.
        time.sleep(0)
        sums = self._history.sums(by, start, start + step)
        return Slice(start, step, sums, min(step, now - start))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot with its heading, and what its colours stand for."""

    title: str
    note: str
    svg: Markup
    legend: Sequence[tuple[str, str]]


def register(routes: Blueprint, parts: ConsoleServices) -> None:
    """The page itself, and the word for it."""
    sums = OverviewSums(parts.history)

    @routes.get("/")
    def overview() -> ResponseReturnValue:
        window = WINDOWS.get(request.args.get("window", ""), WINDOWS["15m"])
        by = request.args.get("by", "")
        by = by if by in DIVISIONS else DIVISIONS[0]
        chosen = request.args.get("only", "")[:80]
        slices = only(sums.slices(window, by), chosen)
        groups = by_group(slices)
        return render_template(
            "console/overview.html",
            windows=WINDOWS.values(),
            window=window,
            by=by,
            only=chosen,
            divisions=DIVISIONS,
            total=total(s for each in slices for s in each.sums),
            groups=groups,
            drawings=_drawings(window, slices, groups),
            breakers=parts.gateway.breaker.known(),
            open=_open(parts),
            ledger=parts.settings.ledger,
        )


def _open(parts: ConsoleServices) -> tuple[int, int, bool]:
    """Requests and streams under way, and whether those are all workers'."""
    if parts.metrics is not None:
        levels = parts.metrics.gauge_values("requests_open", "streams_open")
        return int(levels[0]), int(levels[1]), True
    return parts.gateway.callers.count, parts.gateway.callers.streams, False


def _drawings(
    window: Window, slices: Sequence[Slice], groups: Sequence[Total]
) -> list[Drawing]:
    maker = _Maker(window, slices, [each.group for each in groups])
    return [maker.rate(), maker.failing(), maker.waits(), maker.tokens(), maker.cost()]


class _Maker:
    """Makes the plots of one page."""

    def __init__(
        self, window: Window, slices: Sequence[Slice], groups: Sequence[str]
    ) -> None:
        self._window, self._slices, self._groups = window, slices, groups
        self._split = per_slice(slices, groups)
        self._whole = [total(each.sums) for each in slices]

    def rate(self) -> Drawing:
        def rate(each: Total, whole: Total, minutes: float) -> float:
            return each.requests / minutes

        return self._by_group("Requests", "a minute", rate, formatting.count)

    def cost(self) -> Drawing:
        title, note = "Cost", f"US dollars in {self._window.each}"

        def cost(each: Total, whole: Total, minutes: float) -> float:
            return each.cost

        return self._by_group(title, note, cost, formatting.money, 0.01, "no cost")

    def failing(self) -> Drawing:
        def share(each: Total, whole: Total, minutes: float) -> float:
            return each.failed / max(whole.requests, 1)

        note = "share of all requests that failed or were cut"
        nothing = "no errors" if any(t.requests for t in self._whole) else None
        return self._by_group("Errors", note, share, formatting.share, 0.04, nothing)

    def waits(self) -> Drawing:
        series = [
            Series("p50", [t.p50 for t in self._whole], "c0"),
            Series("p95", [t.p95 for t in self._whole], "c1"),
        ]
        title, note = "First event", "after a request"
        return self._drawn(lines, title, note, series, formatting.duration, 0.1)

    def tokens(self) -> Drawing:
        def rate(each: Total, whole: Total, minutes: float) -> float:
            return (each.prompt_tokens + each.completion_tokens) / minutes

        return self._by_group("Tokens", "in and out, a minute", rate, formatting.count)

    def _by_group(
        self,
        title: str,
        note: str,
        value: Callable[[Total, Total, float], float],
        unit: Callable[[float], str],
        least: float = 1.0,
        nothing: str | None = None,
    ) -> Drawing:
        minutes = [each.minutes for each in self._slices]
        rows = list(zip(self._split, self._whole, minutes, strict=True))
        series = [
            Series(name, [value(row[i], whole, m) for row, whole, m in rows], f"c{i}")
            for i, name in enumerate(self._groups)
        ]
        return self._drawn(columns, title, note, series, unit, least, nothing)

    def _drawn(
        self,
        draw: Callable[[Plot], str],
        title: str,
        note: str,
        series: Sequence[Series],
        unit: Callable[[float], str],
        least: float = 1.0,
        nothing: str | None = None,
    ) -> Drawing:
        said = nothing or "no requests"
        plot = Plot(title, series, self._marks, self._labels, unit, least, said)
        told = [(each.name, each.look) for each in series]
        return Drawing(title, note, Markup(draw(plot)), told)

    @property
    def _marks(self) -> list[str]:
        return [f"{formatting.moment(each.start)} UTC" for each in self._slices]

    @property
    def _labels(self) -> list[tuple[int, str]]:
        every = self._window.every
        return [
            (i, self._window.label(each.start))
            for i, each in enumerate(self._slices)
            if i % every == every // 2
        ]
