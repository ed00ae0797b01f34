"""What commands print: columns for people, JSON for scripts."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

json_option = click.option("as_json", "--json", is_flag=True, help="JSON, for scripts.")


def show(
    rows: Iterable[Mapping[str, Any]], headings: Sequence[str], as_json: bool
) -> None:
    """Print *rows*: the columns of these *headings*, or all fields as a JSON list."""
    records = list(rows)
    if as_json:
        click.echo(json.dumps(records, indent=2, default=str))
        return
    # Columns as wide as their longest cells, two spaces between them, and no rulers, so
    # that awk can read them as well.
    lines = [headings, *([_cell(row.get(h)) for h in headings] for row in records)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())


def _cell(value: Any) -> str:
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return decimal(value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_cell(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def decimal(value: float) -> str:
    """Up to six places, and never an exponent: `0.00045`."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def day(seconds: int | None) -> str | None:
    """Unix seconds as a date, in UTC."""
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
