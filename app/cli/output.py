"""What commands print: columns for people, JSON for scripts."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

as_json = click.option("as_json", "--json", is_flag=True, help="JSON, for scripts.")


def show(
    rows: Iterable[Mapping[str, Any]], headings: Sequence[str], json_: bool
) -> None:
    """Print *rows*: as columns under *headings*, or all of them as a JSON list."""
    listed = list(rows)
    if json_:
        click.echo(json.dumps(listed, indent=2, default=str))
        return
    cells = [headings, *([_cell(row.get(h)) for h in headings] for row in listed)]
    click.echo(columns(cells))


def columns(cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells that stand below each other."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return decimal(value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_inner(each)}" for key, each in value.items())
    return str(value)


def _inner(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def decimal(value: float) -> str:
    """Up to six places, and never an exponent: `0.00045`."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def day(seconds: int | None) -> str | None:
    """Unix seconds as a date, in UTC."""
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


Command = Callable[..., Any]
