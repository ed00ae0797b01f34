"""Plots as SVG. Pure: numbers in, markup out.

No colour and no font stands here: classes say what is what, and the stylesheet how it
looks, in light and in dark.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

# In the units of the drawing: the whole of it, and the space around the plot itself.
_WIDTH, _HEIGHT = 420, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 10, 24

_INNER = _WIDTH - _LEFT - _RIGHT
_DEPTH = _HEIGHT - _TOP - _BOTTOM

Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """Values by slices of time, None where there is none. *look* is a class."""

    name: str
    values: Sequence[float | None]
    look: str


@dataclass(frozen=True, slots=True)
class Plot:
    """What several series come to over time. *marks* name the slices.

    *labels* are those that stand below: numbers of slices, and texts. *unit* writes a
    value, *least* is how far the scale goes at least. *nothing* is said where there is
    nothing to draw.
    """

    title: str
    series: Sequence[Series]
    marks: Sequence[str]
    labels: Sequence[tuple[int, str]]
    unit: Format
    least: float = 1.0
    nothing: str = "no requests"


def columns(plot: Plot) -> str:
    """The series on top of each other, one column for each slice."""
    count = len(plot.marks)
    stacks = [[each.values[i] or 0 for each in plot.series] for i in range(count)]
    top, ticks = scale(max(map(sum, stacks), default=0), plot.least)
    slot = _INNER / max(count, 1)
    parts = []
    for i, stack in enumerate(stacks):
        y = float(_TOP + _DEPTH)
        for series, value in zip(plot.series, stack, strict=True):
            height = value / top * _DEPTH
            y -= height
            if value > 0:
                parts.append(
                    f'<rect class="{series.look}" x="{_LEFT + i * slot + 0.5:.1f}" '
                    f'y="{y:.1f}" width="{max(slot - 1, 1):.1f}" '
                    f'height="{max(height, 0.8):.1f}"/>'
                )
    return _framed(plot, top, ticks, "".join(parts))


def lines(plot: Plot) -> str:
    """A line for each series, broken where there is no value."""
    known = [v for each in plot.series for v in each.values if v is not None]
    top, ticks = scale(max(known, default=0), plot.least)
    parts = [_line(each, top) for each in plot.series]
    return _framed(plot, top, ticks, "".join(parts))


def _line(series: Series, top: float) -> str:
    slot = _INNER / max(len(series.values), 1)
    runs: list[list[str]] = [[]]
    for i, value in enumerate(series.values):
        if value is None:
            runs.append([])
        else:
            x, y = _LEFT + (i + 0.5) * slot, _TOP + _DEPTH * (1 - value / top)
            runs[-1].append(f"{x:.1f},{y:.1f}")
    return "".join(_run(run, series.look) for run in runs if run)


def _run(points: Sequence[str], look: str) -> str:
    if len(points) == 1:
        x, y = points[0].split(",")
        return f'<circle class="dot {look}" cx="{x}" cy="{y}" r="2"/>'
    return f'<polyline class="line {look}" points="{" ".join(points)}"/>'


def scale(highest: float, least: float) -> tuple[float, list[float]]:
    """The end of an axis that shows *highest*, and its ticks, which are round."""
    wanted = max(highest, least)
    step = _round_up(wanted / 4)
    count = math.ceil(wanted / step - 1e-9)
    return step * count, [step * i for i in range(count + 1)]


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= value - 1e-12)


def _framed(plot: Plot, top: float, ticks: Sequence[float], drawn: str) -> str:
    """*drawn*, with axes, and what a pointer is told of each slice."""
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(_summary(plot))}">'
        f"{_grid(ticks, top, plot.unit)}{drawn or _blank(plot)}{_below(plot)}"
        f"{_hints(plot)}</svg>"
    )


def _blank(plot: Plot) -> str:
    x, y = _LEFT + _INNER / 2, _TOP + _DEPTH / 2 + 4
    return f'<text class="blank middle" x="{x}" y="{y}">{escape(plot.nothing)}</text>'


def _grid(ticks: Sequence[float], top: float, unit: Format) -> str:
    parts = []
    for tick in ticks:
        y = _TOP + _DEPTH * (1 - tick / top)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text class="tick end" x="{_LEFT - 6}" y="{y + 3.5:.1f}">'
            f"{escape(unit(tick))}</text>"
        )
    return "".join(parts)


def _below(plot: Plot) -> str:
    slot = _INNER / max(len(plot.marks), 1)
    return "".join(
        f'<text class="tick middle" x="{_LEFT + (i + 0.5) * slot:.1f}" '
        f'y="{_HEIGHT - 7}">{escape(text)}</text>'
        for i, text in plot.labels
    )


def _hints(plot: Plot) -> str:
    """An invisible column for each slice, which says what its values are."""
    slot = _INNER / max(len(plot.marks), 1)
    return "".join(
        f'<rect class="hint" x="{_LEFT + i * slot:.1f}" y="{_TOP}" '
        f'width="{slot:.1f}" height="{_DEPTH}"><title>{escape(_hint(plot, i))}'
        "</title></rect>"
        for i in range(len(plot.marks))
    )


def _hint(plot: Plot, i: int) -> str:
    known = [(s.name, s.values[i]) for s in plot.series]
    told = [f"{name}: {plot.unit(v)}" for name, v in known if v]
    return "\n".join([plot.marks[i], *(told or ["nothing"])])


def _summary(plot: Plot) -> str:
    """The plot in a sentence, for who cannot see it."""
    told = []
    for series in plot.series:
        values = [v for v in series.values if v is not None]
        if values:
            most, last = plot.unit(max(values)), plot.unit(values[-1])
            told.append(f"{series.name}: {most} at most, {last} at last")
    return f"{plot.title}. " + ("; ".join(told) or "Nothing yet")


# A waterfall


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of a request, in milliseconds. *look* is a class."""

    name: str
    start: float
    length: float
    note: str
    look: str


_ROW = 30


def waterfall(bars: Sequence[Bar], unit: Format) -> str:
    """*bars* below each other, along one axis of milliseconds."""
    longest = max((bar.start + bar.length for bar in bars), default=0)
    top, ticks = scale(longest, 1)
    height = _ROW * len(bars) + 26
    parts = [_upright(tick, top, height, unit) for tick in ticks]
    parts += [_bar(i, bar, top) for i, bar in enumerate(bars)]
    told = "; ".join(f"{bar.name}: {bar.note}" for bar in bars)
    return (
        f'<svg class="waterfall" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape("Timing. " + told)}">{"".join(parts)}</svg>'
    )


# The axis of a waterfall leaves room for half a label on both sides.
_SIDE = 18


def _along(value: float, top: float) -> float:
    return _SIDE + (_WIDTH - 2 * _SIDE) * value / top


def _upright(tick: float, top: float, height: int, unit: Format) -> str:
    x = _along(tick, top)
    return (
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{height - 20}"/>'
        f'<text class="tick middle" x="{x:.1f}" y="{height - 6}">'
        f"{escape(unit(tick))}</text>"
    )


def _bar(i: int, bar: Bar, top: float) -> str:
    x, y = _along(bar.start, top), i * _ROW
    width = max(_along(bar.start + bar.length, top) - x, 2)
    at, side = (x, "") if x < _WIDTH / 2 else (x + width, " end")
    return (
        f'<text class="label{side}" x="{at:.1f}" y="{y + 13}">{escape(bar.name)}'
        f'<tspan class="note"> {escape(bar.note)}</tspan></text>'
        f'<rect class="{bar.look}" x="{x:.1f}" y="{y + 18}" width="{width:.1f}" '
        'height="7" rx="2"/>'
    )
