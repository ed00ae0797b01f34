"""Plots as SVG. Pure: numbers in, markup out.

The markup has classes, no colours or fonts: the stylesheet sets those, for light and
dark. Every text from outside is escaped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

# In units of the drawing: its size, and the margins around the plot area.
_WIDTH, _HEIGHT = 420, 176
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 10, 24

_PLOT_WIDTH = _WIDTH - _LEFT - _RIGHT
_PLOT_HEIGHT = _HEIGHT - _TOP - _BOTTOM

# Of a waterfall: the height of a bar with its label, and the margin on both sides,
# which has room for half a tick's label.
_ROW = 30
_SIDE = 18

Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """Values by time slice, None where there is none. *look* is a CSS class."""

    name: str
    values: Sequence[float | None]
    look: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Several series over time. *marks* are the names of the slices.

    *labels* are numbers of slices and the texts below them. *unit* formats a value,
    *min_top* is the least end of the axis, *empty* the text where all values are zero.
    """

    title: str
    series: Sequence[Series]
    marks: Sequence[str]
    labels: Sequence[tuple[int, str]]
    unit: Format
    min_top: float = 1.0
    empty: str = "no requests"


def columns(plot: Plot) -> str:
    """The series stacked, one column for each slice."""
    stacks = [
        [series.values[i] or 0 for series in plot.series]
        for i in range(len(plot.marks))
    ]
    top, ticks = scale(max(map(sum, stacks), default=0), plot.min_top)
    slot = _slot_width(plot)
    parts = []
    for i, stack in enumerate(stacks):
        y = float(_TOP + _PLOT_HEIGHT)
        for series, value in zip(plot.series, stack, strict=True):
            height = value / top * _PLOT_HEIGHT
            y -= height
            if value > 0:
                # Never so thin that it cannot be seen.
                parts.append(
                    f'<rect class="{series.look}" x="{_LEFT + i * slot + 0.5:.1f}" '
                    f'y="{y:.1f}" width="{max(slot - 1, 1):.1f}" '
                    f'height="{max(height, 0.8):.1f}"/>'
                )
    return _svg(plot, top, ticks, "".join(parts))


def lines(plot: Plot) -> str:
    """A line for each series, broken where there is no value."""
    values = [v for series in plot.series for v in series.values if v is not None]
    top, ticks = scale(max(values, default=0), plot.min_top)
    slot = _slot_width(plot)
    parts = []
    for series in plot.series:
        # A run is a part of the line without a gap, as texts "x,y".
        runs: list[list[str]] = [[]]
        for i, value in enumerate(series.values):
            if value is None:
                runs.append([])
            else:
                x = _LEFT + (i + 0.5) * slot
                y = _TOP + _PLOT_HEIGHT * (1 - value / top)
                runs[-1].append(f"{x:.1f},{y:.1f}")
        line, dot = f"line {series.look}", f"dot {series.look}"
        for points in filter(None, runs):
            parts.append(f'<polyline class="{line}" points="{" ".join(points)}"/>')
            # A line of one point is not drawn.
            if len(points) == 1:
                cx, cy = points[0].split(",")
                parts[-1] = f'<circle class="{dot}" cx="{cx}" cy="{cy}" r="2"/>'
    return _svg(plot, top, ticks, "".join(parts))


def scale(highest: float, min_top: float) -> tuple[float, list[float]]:
    """The end of an axis that shows *highest*, and its ticks, which are round.

    The step is the smallest of 1, 2, 2.5 and 5 times a power of ten with which at most
    four steps reach *highest*.
    """
    # The small numbers allow for the error of binary fractions: 0.3 / 0.1 is not 3.
    top = max(highest, min_top)
    power = 10.0 ** math.floor(math.log10(top / 4))
    step = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= top / 4 - 1e-12)
    count = math.ceil(top / step - 1e-9)
    return step * count, [step * i for i in range(count + 1)]


def _slot_width(plot: Plot) -> float:
    return _PLOT_WIDTH / max(len(plot.marks), 1)


def _svg(plot: Plot, top: float, ticks: Sequence[float], content: str) -> str:
    """*content* with axes and labels, and an invisible column for each slice, whose
    title browsers show as a tooltip.
    """
    slot = _slot_width(plot)
    if not content:
        x, y = _LEFT + _PLOT_WIDTH / 2, _TOP + _PLOT_HEIGHT / 2 + 4
        text = escape(plot.empty)
        content = f'<text class="blank middle" x="{x}" y="{y}">{text}</text>'
    parts = []
    for tick in ticks:
        y = _TOP + _PLOT_HEIGHT * (1 - tick / top)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text class="tick end" x="{_LEFT - 6}" y="{y + 3.5:.1f}">'
            f"{escape(plot.unit(tick))}</text>"
        )
    parts.append(content)
    for i, text in plot.labels:
        parts.append(
            f'<text class="tick middle" x="{_LEFT + (i + 0.5) * slot:.1f}" '
            f'y="{_HEIGHT - 7}">{escape(text)}</text>'
        )
    for i, mark in enumerate(plot.marks):
        # The tooltip: the values that are not zero.
        values = [(series.name, series.values[i]) for series in plot.series]
        texts = [f"{name}: {plot.unit(value)}" for name, value in values if value]
        hint = "\n".join([mark, *(texts or ["nothing"])])
        parts.append(
            f'<rect class="hint" x="{_LEFT + i * slot:.1f}" y="{_TOP}" '
            f'width="{slot:.1f}" height="{_PLOT_HEIGHT}"><title>{escape(hint)}'
            "</title></rect>"
        )
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(_summary(plot))}">{"".join(parts)}</svg>'
    )


def _summary(plot: Plot) -> str:
    """The plot in a sentence, for screen readers."""
    parts = []
    for series in plot.series:
        values = [v for v in series.values if v is not None]
        if values:
            most, last = plot.unit(max(values)), plot.unit(values[-1])
            parts.append(f"{series.name}: {most} at most, {last} at last")
    return f"{plot.title}. " + ("; ".join(parts) or "Nothing yet")


# A waterfall


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of a request, in milliseconds. *look* is a CSS class."""

    name: str
    start: float
    length: float
    note: str
    look: str


def waterfall(bars: Sequence[Bar], unit: Format) -> str:
    """*bars* below each other, along one axis of milliseconds."""
    longest = max((bar.start + bar.length for bar in bars), default=0)
    top, ticks = scale(longest, 1)
    height = _ROW * len(bars) + 26

    def x_of(value: float) -> float:
        return _SIDE + (_WIDTH - 2 * _SIDE) * value / top

    parts = []
    for tick in ticks:
        x = x_of(tick)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{height - 20}"/>'
            f'<text class="tick middle" x="{x:.1f}" y="{height - 6}">'
            f"{escape(unit(tick))}</text>"
        )
    for i, bar in enumerate(bars):
        x, y = x_of(bar.start), i * _ROW
        width = max(x_of(bar.start + bar.length) - x, 2)
        # The label of a bar on the right half ends where the bar does.
        label_x, anchor = (x, "") if x < _WIDTH / 2 else (x + width, " end")
        parts.append(
            f'<text class="label{anchor}" x="{label_x:.1f}" y="{y + 13}">'
            f'{escape(bar.name)}<tspan class="note"> {escape(bar.note)}</tspan></text>'
            f'<rect class="{bar.look}" x="{x:.1f}" y="{y + 18}" width="{width:.1f}" '
            'height="7" rx="2"/>'
        )
    summary = "Timing. " + "; ".join(f"{bar.name}: {bar.note}" for bar in bars)
    return (
        f'<svg class="waterfall" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(summary)}">{"".join(parts)}</svg>'
    )
