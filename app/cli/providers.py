"""`flask providers`: modes and parameters of each provider."""

from dataclasses import asdict

import click

from ..providers import PROVIDERS
from ..providers.catalog import feature_table
from . import output


@click.command()
@click.argument(
    "names", nargs=-1, type=click.Choice(list(PROVIDERS)), metavar="[NAME]..."
)
@output.json_option
@click.option(
    "as_markdown", "--markdown", is_flag=True, help="The second half of providers.md."
)
def providers(names: tuple[str, ...], as_json: bool, as_markdown: bool) -> None:
    """How each provider comes to a completion, and what it takes.

    A row for each way. "gateway" stands where the gateway does what the provider
    cannot, "-" where that makes a request fail.
    """
    if as_markdown:
        click.echo(feature_table.markdown())
        return
    names = names or tuple(PROVIDERS)
    rows = (asdict(row) for row in feature_table.rows() if row.provider in names)
    output.show(rows, feature_table.HEADINGS, as_json)
