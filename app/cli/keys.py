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


def _allow_options(command: Any) -> Any:
    """Add an option for each kind of resource: --allow-model and so on."""
    # Reversed: click's help begins with the option that was added last.
    for resource in reversed(RESOURCES):
        singular = resource.removesuffix("s").replace("_", "-")
        command = click.option(
            f"--allow-{singular}",
            resource,
            multiple=True,
            metavar="NAME",
            help=f"Only these {resource.replace('_', ' ')}; * stands for anything.",
        )(command)
    return command


@keys.command()
@click.argument("name", type=ID)
@click.option("--config", help="The id of its config, for requests that name none.")
@_allow_options
@inputs.limit
@click.option("--expires", metavar="WHEN", help="2027-01-31, or 30d from now.")
@output.json_option
@inputs.report_errors
def create(
    name: str,
    config: str | None,
    limit: Sequence[str],
    expires: str | None,
    as_json: bool,
    **allowed: Sequence[str],
) -> None:
    """Make a key for NAME, and print it: this is the only time that it is shown."""
    key = GatewayKey(
        name,
        config=config,
        # click passes an empty tuple for an option that was not used: no restriction.
        allowed={resource: [*names] for resource, names in allowed.items() if names},
        limits=inputs.limits(limit),
        expires=inputs.expiry(expires),
    )
    text = inputs.store().create_key(key)
    if as_json:
        output.show([{"name": name, "key": text}], ("name", "key"), True)
    else:
        click.echo(text)


@keys.command("list")
@output.json_option
@inputs.report_errors
def list_(as_json: bool) -> None:
    """All keys, by their names; of a key itself only its end."""
    # The store has only a hash of each key; the hint is what it kept of the text.
    keys = inputs.store().contents().keys.values()
    rows = map(_row, sorted(keys, key=lambda key: key.name))
    output.show(rows, _HEADINGS, as_json)


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
@output.json_option
@inputs.report_errors
def show(name: str, as_json: bool) -> None:
    """One key."""
    output.show([_row(_stored_key(name))], _HEADINGS, as_json)


def _stored_key(name: str) -> GatewayKey:
    # The store has its keys by their hashes, for requests; here a scan is fast enough.
    for key in inputs.store().contents().keys.values():
        if key.name == name:
            return key
    raise RecordNotFound(name)


@keys.command()
@click.argument("name")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=VALUE...")
@inputs.report_errors
def limit(name: str, limits: Sequence[str]) -> None:
    """Change limits of the key NAME; LIMIT= takes one away."""
    key = _stored_key(name)
    new_limits = inputs.limits(limits, key.limits)
    inputs.store().update_key(replace(key, limits=new_limits))


@keys.command()
@click.argument("name")
@inputs.report_errors
def disable(name: str) -> None:
    """Keep a key, and refuse it."""
    inputs.store().update_key(replace(_stored_key(name), disabled=True))


@keys.command()
@click.argument("name")
@inputs.report_errors
def enable(name: str) -> None:
    """Accept a disabled key again."""
    inputs.store().update_key(replace(_stored_key(name), disabled=False))


@keys.command()
@click.argument("name")
@inputs.report_errors
def delete(name: str) -> None:
    """Delete a key."""
    inputs.store().delete_key(name)
