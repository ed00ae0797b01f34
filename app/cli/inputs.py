"""Arguments of commands: name=value, dates, limits, secrets; and their errors."""

import datetime
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
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

_NO_LIMITS = Limits()

SECRET_SOURCES = "- for standard input, file:PATH, env:NAME, or prompt"


def settings() -> Settings:
    """Those of the application that runs the command."""
    value: Settings = current_app.extensions["lastword.settings"]
    return value


def named_hosts() -> tuple[str, ...]:
    """The internal hosts that stored configs and keys may lead to."""
    return settings().named_custom_hosts


def trust_advice(error: InternalHost) -> str:
    """How to trust the host that *error* refuses."""
    value = ",".join((*named_hosts(), error.host))
    return (
        f"{error.reason}; if it is meant to be called, set "
        f"GATEWAY_TRUSTED_CUSTOM_HOSTS={value} for the gateway and for this command"
    )


def store() -> Repository:
    """The store, one for each command. SQLite's tables are created as needed."""
    if "store" not in g:
        # In Flask's `g`, as several helpers of a command use it; closed with click's
        # context, as the end of `g` closes nothing.
        g.store = factory.repository(settings())
        click.get_current_context().call_on_close(g.store.engine.dispose)
    repository: Repository = g.store
    return repository


def report_errors(command: F) -> F:
    """*command*, whose expected errors become a line each instead of a traceback."""

    # Errors that are not listed are bugs, and keep their traceback.
    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except RecordNotFound as e:
            raise click.ClickException(f"there is no {e}") from e
        except RecordExists as e:
            raise click.ClickException(f"there is {e} already") from e
        except (GatewayError, ValueError) as e:
            raise click.ClickException(str(e)) from e

    return wrapper  # type: ignore[return-value] # The same signature.


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """Each `name=value` of *texts*; a value that is JSON is parsed."""
    values: dict[str, Any] = {}
    # So 3, true and {"a": 1} are what they look like; other texts need no quotes.
    for name, text in _split_pairs(texts):
        try:
            values[name] = orjson.loads(text)
        except ValueError:
            values[name] = text
    return values


def _split_pairs(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"expected name=value, not {text!r}")
        yield name, value


limit = click.option(
    "limit",
    "--limit",
    multiple=True,
    metavar="NAME=VALUE",
    help="Such as requests_per_minute=60, or money_per_month=20 (US dollars).",
)


def limits(texts: Iterable[str], old: Limits = _NO_LIMITS) -> Limits:
    """*old*, changed by each `name=value` of *texts*; `name=` takes one away."""
    amounts = old.to_body()
    for name, text in _split_pairs(texts):
        # An amount of money stays a text: as a float, 0.1 would not be exact.
        is_integer = re.fullmatch(r"[0-9]{1,20}", text)
        amounts[name] = int(text) if is_integer else text or None
    return Limits.of(amounts)


def secret(source: str, name: str) -> str:
    """The secret at *source*, one of SECRET_SOURCES.

    Secrets are never arguments themselves: `ps` shows command lines to all users, and
    shells keep them in a history.
    """
    kind, _, location = source.partition(":")
    if source == "-":
        return sys.stdin.read().strip()
    if source == "prompt":
        return str(click.prompt(name, hide_input=True))
    if kind == "file" and location:
        return Path(location).read_text().strip()
    if kind == "env" and location:
        if location not in os.environ:
            raise click.ClickException(f"the variable {location} is not set")
        return os.environ[location]
    raise click.BadParameter(f"{name}: expected {SECRET_SOURCES}")


def expiry(text: str | None) -> int | None:
    """The Unix second that *text* means: `2027-01-31`, or `30d`, `12h` from now."""
    if not text:
        return None
    if match := re.fullmatch(r"(\d+)([dh])", text):
        return int(time.time()) + int(match[1]) * {"d": 86400, "h": 3600}[match[2]]
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError as e:
        raise click.BadParameter(
            f"expected a date such as 2027-01-31, or 30d, not {text!r}"
        ) from e
    # In UTC, as day limits are.
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    return int(midnight.timestamp())


def read(file: str) -> str:
    """The text of *file*; of standard input for `-`."""
    return sys.stdin.read() if file == "-" else Path(file).read_text()
