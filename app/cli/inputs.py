"""What commands are given: names and values, dates, secrets that nobody sees."""

import datetime
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
from flask import current_app, g

from ..core.hosts import InternalHost
from ..core.limits import Limits
from ..errors import GatewayError
from ..settings import Settings
from ..store import factory
from ..store.repository import RecordExists, RecordNotFound, Repository

F = TypeVar("F", bound=Callable[..., Any])

_NONE = Limits()


def settings() -> Settings:
    """Those of the application that runs the command."""
    found: Settings = current_app.extensions["lastword.settings"]
    return found


def named_hosts() -> tuple[str, ...]:
    """The internal hosts that what is stored may lead to."""
    return settings().named_custom_hosts


def friendly_host(error: InternalHost) -> str:
    """How to trust the host that *error* refuses."""
    value = ",".join((*named_hosts(), error.host))
    return (
        f"{error.reason}; if it is meant to be called, set "
        f"GATEWAY_TRUSTED_CUSTOM_HOSTS={value} for the gateway and for this command"
    )


def store() -> Repository:
    """The store, one for a command; its tables are made, if it is SQLite's."""
    if "store" not in g:
        g.store = factory.repository(settings())
        click.get_current_context().call_on_close(g.store.engine.dispose)
    found: Repository = g.store
    return found


def friendly(command: F) -> F:
    """*command*, whose failures are told in a line each."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except RecordNotFound as e:
            raise click.ClickException(f"there is no {e}") from e
        except RecordExists as e:
            raise click.ClickException(f"there is {e} already") from e
        except (GatewayError, ValueError) as e:
            raise click.ClickException(str(e)) from e

    return told  # type: ignore[return-value] # The same signature.


def pairs(given: Iterable[str]) -> dict[str, Any]:
    """`name=value` as a mapping; a value that is JSON is what it says."""
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected name=value, not {pair!r}")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text


limit = click.option(
    "limit",
    "--limit",
    multiple=True,
    metavar="NAME=VALUE",
    help="Such as requests_per_minute=60, or money_per_month=20 (US dollars).",
)


def limits(given: Iterable[str], old: Limits = _NONE) -> Limits:
    """*old*, changed by each `name=value`; `name=` takes one away."""
    named = old.to_body()
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"expected name=value, not {pair!r}")
        named[name] = _amount(value)
    return Limits.of(named)


def _amount(text: str) -> int | str | None:
    """As it is typed, so that money stays exact; None for nothing."""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else text or None


_SOURCES = "- for standard input, file:PATH, env:NAME, or prompt"


def secret(source: str, name: str) -> str:
    """The secret that *source* leads to. It never stands on a command line."""
    kind, _, place = source.partition(":")
    if source == "-":
        return sys.stdin.read().strip()
    if source == "prompt":
        return str(click.prompt(name, hide_input=True))
    if kind == "file" and place:
        return Path(place).read_text().strip()
    if kind == "env" and place:
        return os.environ[place] if place in os.environ else _absent(place)
    raise click.BadParameter(f"{name}: expected {_SOURCES}")


def _absent(name: str) -> str:
    raise click.ClickException(f"the variable {name} is not set")


def expiry(text: str | None) -> int | None:
    """The Unix second that *text* means: `2027-01-31`, or `30d`, `12h` from now."""
    if not text:
        return None
    if found := re.fullmatch(r"(\d+)([dh])", text):
        return int(time.time()) + int(found[1]) * {"d": 86400, "h": 3600}[found[2]]
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError as e:
        raise click.BadParameter(
            f"expected a date such as 2027-01-31, or 30d, not {text!r}"
        ) from e
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    return int(midnight.timestamp())


def read(file: str) -> str:
    """The text of *file*; of standard input for `-`."""
    return sys.stdin.read() if file == "-" else Path(file).read_text()
