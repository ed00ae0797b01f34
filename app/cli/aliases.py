"""`flask aliases`: models that answer in place of others."""

from dataclasses import asdict

import click
from flask.cli import AppGroup

from ..core.permissions import Alias
from ..providers import PROVIDERS
from . import inputs, output

aliases = AppGroup("aliases", help="Models that answer in place of others.")
_HEADINGS = ("for", "model", "virtual_key", "provider", "shutdown_date")


@aliases.command()
@click.argument("for_model")
@click.argument("model")
@click.option("--virtual-key", help="Whose credentials it needs.")
@click.option("--provider", type=click.Choice(list(PROVIDERS)))
@click.option(
    "--shutdown-date",
    type=click.DateTime(["%Y-%m-%d"]),
    help="From this day on; until then callers are told. Without it, at once.",
)
@inputs.report_errors
def create(
    for_model: str,
    model: str,
    virtual_key: str | None,
    provider: str | None,
    shutdown_date: click.DateTime | None,
) -> None:
    """Let MODEL answer requests FOR_MODEL."""
    day = f"{shutdown_date:%Y-%m-%d}" if shutdown_date else None
    alias = Alias(model, virtual_key, provider, day)
    inputs.store().put_alias(for_model, alias)


# `list_` in Python, so that the builtin keeps its name in this module.
@aliases.command("list")
@output.json_option
@inputs.report_errors
def list_(as_json: bool) -> None:
    """All aliases that hold for everybody."""
    aliases = sorted(inputs.store().contents().aliases.items())
    rows = ({"for": model} | asdict(alias) for model, alias in aliases)
    output.show(rows, _HEADINGS, as_json)


@aliases.command()
@click.argument("for_model")
@inputs.report_errors
def delete(for_model: str) -> None:
    """Delete an alias."""
    inputs.store().delete_alias(for_model)
