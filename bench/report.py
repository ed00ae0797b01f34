"""Reports results as a table, JSON and a plot, and checks the documented promises.

The promises are those of docs/performance.md.
"""

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# By case, metric and contestant, the value of each round.
Results = dict[tuple[str, str, str], list[float]]

OWN = "lastword"

_UNITS: Mapping[str, tuple[float, str]] = {
    "cpu": (1e6, "us"),
    "p50": (1e3, "ms"),
    "p99": (1e3, "ms"),
    "added p50": (1e3, "ms"),
    "added first": (1e3, "ms"),
    "first": (1e3, "ms"),
    "gap p99": (1e3, "ms"),
    "late p99": (1e3, "ms"),
    "page": (1e3, "ms"),
    "most": (2**-20, "MB"),
    "lost": (1.0, ""),
    "start": (1.0, "s"),
    "rest": (2**-20, "MB"),
    "stream": (2**-10, "kB"),
}


def with_added_latency(results: Results) -> Results:
    """*results*, and the latency that each contestant adds to a direct call."""
    more: Results = {}
    for (case, metric, name), values in results.items():
        direct = results.get((case, metric, "direct"))
        # Within each round, as with all comparisons.
        if metric in ("p50", "first") and direct and name != "direct":
            pairs = zip(values, direct, strict=False)
            more[case, f"added {metric}", name] = [a - b for a, b in pairs]
    return results | more


def median(results: Results, case: str, metric: str, name: str = OWN) -> float | None:
    values = results.get((case, metric, name))
    return statistics.median(values) if values else None


def ratio(
    results: Results, case: str, metric: str, of: str, name: str = OWN
) -> float | None:
    """The median of each round's ratio, so that changes of the machine cancel out."""
    own, other = results.get((case, metric, name)), results.get((case, metric, of))
    if not own or not other or not all(other):
        return None
    return statistics.median(a / b for a, b in zip(own, other, strict=False))


# The table


def table(results: Results, names: Sequence[str]) -> str:
    """A row for each metric: median and spread of each, our ratio to the others."""
    others = [name for name in names if name not in (OWN, "direct")]
    head = ["case", "figure", *names, *(f"/ {name}" for name in others)]
    rows = [head, *_rows(results, names, others)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _rows(
    results: Results, names: Sequence[str], others: Sequence[str]
) -> Iterator[list[str]]:
    for case, metric in dict.fromkeys((c, f) for c, f, _ in results):
        cells = [_cell(results.get((case, metric, name)), metric) for name in names]
        ratios = [ratio(results, case, metric, of) for of in others]
        yield [case, metric, *cells, *("" if r is None else f"{r:.2f}" for r in ratios)]


def _cell(values: Sequence[float] | None, metric: str) -> str:
    if not values:
        return ""
    factor, unit = _UNITS[metric]
    middle = statistics.median(values) * factor
    spread = (max(values) - min(values)) * factor / 2
    return f"{_short(middle)} {unit} +-{_short(spread)}"


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


# The promises


@dataclass(frozen=True)
class Promise:
    """*measure* returns at most *most*, or None if it was not measured."""

    what: str
    most: float
    measure: Callable[[Results], float | None]


def _slope(results: Results) -> float | None:
    """Cost of a prompt of 1 MB over one of 100 kB, both without that of a small one.

    10 is linear; more would mean that some step is quadratic.
    """
    cases = (
        "whole, 32 connections",
        "whole, prompt of 100 kB",
        "whole, prompt of 1 MB",
    )
    cpus = [median(results, case, "cpu") for case in cases]
    if None in cpus:
        return None
    base, short, long = (cpu or 0.0 for cpu in cpus)
    return (long - base) / (short - base)


def _times(case: str, metric: str, of: str) -> Callable[[Results], float | None]:
    return lambda results: ratio(results, case, metric, of)


def _is(case: str, metric: str, factor: float) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        value = median(results, case, metric)
        return None if value is None else value * factor

    return measure


def _bridged(results: Results) -> float | None:
    own = median(results, "bridged stream, 100", "cpu")
    other = median(results, "stream, 100 connections", "cpu", "portkey")
    return own / other if own and other else None


MANY = "2000 streams of 2 events a second"
W32, S100 = "whole, 32 connections", "stream, 100 connections"
PROMISES = (
    Promise("CPU of a whole answer / Portkey", 0.55, _times(W32, "cpu", "portkey")),
    Promise("CPU of a whole answer / LiteLLM", 0.05, _times(W32, "cpu", "litellm")),
    Promise(
        "added latency / Portkey",
        0.65,
        _times("whole, 1 connection", "added p50", "portkey"),
    ),
    Promise("CPU of an event / Portkey", 0.4, _times(S100, "cpu", "portkey")),
    Promise("CPU of an event / nginx", 3, _times(S100, "cpu", "nginx")),
    Promise("CPU of a bridged event / Portkey's own", 1, _bridged),
    Promise(
        "added time to the first event, ms",
        3,
        _is("stream, 1 after the other", "added first", 1e3),
    ),
    Promise("memory of a worker at rest, MB", 60, _is("memory", "rest", 2**-20)),
    Promise("memory of each of 500 streams, kB", 100, _is("memory", "stream", 2**-10)),
    Promise("1 MB / 100 kB of prompt, CPU above the base", 10, _slope),
    Promise("streams lost of 2,000", 0, _is(MANY, "lost", 1)),
    Promise("their events, p99 of what was added, ms", 250, _is(MANY, "late p99", 1e3)),
    Promise("a health check meanwhile, ms", 50, _is(MANY, "page", 1e3)),
    Promise("memory of all processes meanwhile, MB", 300, _is(MANY, "most", 2**-20)),
    Promise("cold start to the first answer, s", 1.5, _is("cold start", "start", 1)),
)


def promise_lines(results: Results) -> str:
    """A line for each promise that was measured."""
    lines = []
    for promise in PROMISES:
        value = promise.measure(results)
        if value is not None:
            verdict = "holds" if value <= promise.most else "FALLS SHORT"
            lines.append(
                f"{promise.what:<45} {value:>8.3g}  at most {promise.most:g}  {verdict}"
            )
    return "\n".join(lines)


# Files


def write_json(results: Results, path: Path) -> None:
    """Every round's figures, in seconds, bytes and bare numbers."""
    flat = [
        {"case": case, "figure": metric, "contestant": name, "rounds": values}
        for (case, metric, name), values in results.items()
    ]
    path.write_text(json.dumps(flat, indent=1) + "\n")


def read_json(path: Path) -> Results:
    flat = json.loads(path.read_text())
    return {(f["case"], f["figure"], f["contestant"]): f["rounds"] for f in flat}


def plot(results: Results, names: Sequence[str], path: Path) -> None:
    """The processor time of each case, a bar for each contestant, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    # Ids in the SVG are random otherwise, and each run would change the file.
    matplotlib.rcParams["svg.hashsalt"] = "lastword"
    from matplotlib import pyplot

    cases = [c for c, f, n in results if f == "cpu" and n == OWN and "of 1 MB" not in c]
    shown = [name for name in names if name != "direct"]
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(cases) + 1.5))
    high = 0.8 / len(shown)
    for i, name in enumerate(shown):
        values = [(median(results, case, "cpu", name) or 0) * 1e6 for case in cases]
        heights = [row + i * high for row in range(len(cases))]
        axes.barh(heights, values, high, label=name)
    axes.set_yticks([row + 0.4 - high / 2 for row in range(len(cases))], cases)
    axes.invert_yaxis()
    # The costs of contestants differ by a factor of hundreds.
    axes.set_xscale("log")
    axes.set_xlabel("processor time of a request, or of a streamed event, in us")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
