"""Commands beside the server: `flask providers`, and more to come."""

import json
from dataclasses import asdict

import click
from flask import Flask

from .providers import PROVIDERS, table


def register(app: Flask) -> None:
    """Make the commands known to *app*."""
    app.cli.add_command(providers)


@click.command()
@click.argument(
    "names", nargs=-1, type=click.Choice(list(PROVIDERS)), metavar="[NAME]..."
)
@click.option("as_json", "--json", is_flag=True, help="A list of objects, for scripts.")
@click.option(
    "as_markdown", "--markdown", is_flag=True, help="The second half of providers.md."
)
def providers(names: tuple[str, ...], as_json: bool, as_markdown: bool) -> None:
    """How each provider comes to a completion, and what it takes.

    A row for each way. "gateway" stands where the gateway does what the provider
    cannot, "-" where that makes a request fail.
    """
    if as_markdown:
        click.echo(table.markdown())
    elif as_json:
        wanted = names or tuple(PROVIDERS)
        chosen = [asdict(row) for row in table.rows() if row.provider in wanted]
        click.echo(json.dumps(chosen, indent=2))
    else:
        click.echo(table.text(names))
