"""`flask keys`: the gateway's own keys, which callers hold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
from flask.cli import AppGroup

from ..core.permissions import RESOURCES, GatewayKey
from ..store.repository import RecordNotFound
from . import inputs, output
from .names import ID

keys = AppGroup("keys", help="The gateway's own keys, which callers hold.")
_HEADINGS = ("name", "key", "config", "allowed", "limits", "expires", "disabled")


def _allows(command: Any) -> Any:
    """The options that say what a key may use."""
    for resource in reversed(RESOURCES):
        one = resource.removesuffix("s").replace("_", "-")
        command = click.option(
            f"--allow-{one}",
            resource,
            multiple=True,
            metavar="NAME",
            help=f"Only these {resource.replace('_', ' ')}; * stands for anything.",
        )(command)
    return command


@keys.command()
@click.argument("name", type=ID)
@click.option("--config", help="The id of its config, for requests that name none.")
@_allows
@inputs.limit
@click.option("--expires", metavar="WHEN", help="2027-01-31, or 30d from now.")
@output.as_json
@inputs.friendly
def create(
    name: str,
    config: str | None,
    limit: Sequence[str],
    expires: str | None,
    as_json: bool,
    **allowed: Sequence[str],
) -> None:
    """Make a key for NAME, and print it: this is the only time that it is shown."""
    listed = {resource: [*names] for resource, names in allowed.items() if names}
    key = GatewayKey(
        name,
        config=config,
        allowed=listed,
        limits=inputs.limits(limit),
        expires=inputs.expiry(expires),
    )
    text = inputs.store().create_key(key)
    if as_json:
        output.show([{"name": name, "key": text}], ("name", "key"), True)
    else:
        click.echo(text)


@keys.command("list")
@output.as_json
@inputs.friendly
def list_(as_json: bool) -> None:
    """All keys, by their names; of a key itself only its end."""
    output.show(map(_row, _all()), _HEADINGS, as_json)


def _all() -> list[GatewayKey]:
    found = inputs.store().contents().keys.values()
    return sorted(found, key=lambda key: key.name)


def _row(key: GatewayKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "key": f"lw-...{key.hint}",
        "config": key.config,
        "allowed": {k: list(v) for k, v in key.allowed.items()},
        "aliases": sorted(key.aliases),
        "limits": key.limits.to_body(),
        "expires": output.day(key.expires),
        "disabled": key.disabled,
    }


@keys.command()
@click.argument("name")
@output.as_json
@inputs.friendly
def show(name: str, as_json: bool) -> None:
    """One key."""
    output.show([_row(_found(name))], _HEADINGS, as_json)


def _found(name: str) -> GatewayKey:
    found = next((key for key in _all() if key.name == name), None)
    if found is None:
        raise RecordNotFound(name)
    return found


@keys.command()
@click.argument("name")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=VALUE...")
@inputs.friendly
def limit(name: str, limits: Sequence[str]) -> None:
    """Change limits of the key NAME; LIMIT= takes one away."""
    key = _found(name)
    changed = inputs.limits(limits, key.limits)
    inputs.store().update_key(replace(key, limits=changed))


@keys.command()
@click.argument("name")
@inputs.friendly
def disable(name: str) -> None:
    """Keep a key, and refuse it."""
    inputs.store().update_key(replace(_found(name), disabled=True))


@keys.command()
@click.argument("name")
@inputs.friendly
def enable(name: str) -> None:
    """Accept a disabled key again."""
    inputs.store().update_key(replace(_found(name), disabled=False))


@keys.command()
@click.argument("name")
@inputs.friendly
def delete(name: str) -> None:
    """Delete a key."""
    inputs.store().delete_key(name)
