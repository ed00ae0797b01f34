"""`flask usage`: sums of requests, tokens and cost, from the ledger."""

import csv
import io

import click
from flask.cli import with_appcontext

from ..store import factory
from ..store.ledger_queries import GROUPS, usage_totals
from . import inputs, output

_HEADINGS = (
    "group",
    "requests",
    "failed",
    "cached",
    "prompt_tokens",
    "completion_tokens",
    "cost",
)


@click.command()
@click.option("--by", type=click.Choice(GROUPS), default="key", show_default=True)
@click.option("--since", metavar="DAY", help="2026-11-01; else all there is.")
@output.json_option
@click.option("as_csv", "--csv", is_flag=True, help="CSV, for spreadsheets.")
@with_appcontext
@inputs.report_errors
def usage(by: str, since: str | None, as_json: bool, as_csv: bool) -> None:
    """Requests, tokens and cost, summed up.

    Cost is in US dollars, of requests whose price is known; cached are the requests
    that were answered from the cache.
    """
    # `expiry` parses days; 0 is before all requests.
    began = inputs.expiry(since) or 0
    engine = factory.database(inputs.settings())
    # Closed also when the query fails.
    click.get_current_context().call_on_close(engine.dispose)
    totals = usage_totals(engine, by, began)
    rows = [{name: getattr(each, name) for name in _HEADINGS} for each in totals]
    if not as_csv:
        output.show(rows, _HEADINGS, as_json)
        return
    # click writes the text at once; the csv module by itself would end lines with CRLF.
    text = io.StringIO()
    writer = csv.DictWriter(text, _HEADINGS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"cost": output.decimal(row["cost"])} for row in rows)
    click.echo(text.getvalue(), nl=False)
