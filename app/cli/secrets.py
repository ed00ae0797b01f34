"""`flask db` and `flask secrets`: the store's tables and its encryption."""

import secrets as random
from pathlib import Path

import click
from flask.cli import AppGroup

from ..store import database, secret_box
from . import inputs

db = AppGroup("db", help="The tables of the store.")
secrets = AppGroup("secrets", help="What stored credentials are sealed with.")


@db.command()
@inputs.report_errors
def upgrade() -> None:
    """Bring the tables up to date. SQLite's are at every start."""
    settings = inputs.settings()
    # Not `factory.database`, which refuses tables that are out of date.
    engine = database.connect(settings.database_url, Path(settings.instance))
    click.get_current_context().call_on_close(engine.dispose)
    database.upgrade(engine)
    click.echo("the tables are up to date")


@secrets.command()
@inputs.report_errors
def rotate() -> None:
    """Seal all credentials anew.

    With GATEWAY_SECRET_KEY: put the new secret before the old one, rotate, then take
    the old one away. Without it, a new secret is made in secret.key.
    """
    settings = inputs.settings()
    instance = Path(settings.instance)
    store = inputs.store()
    if settings.secret_key:
        # The setting lists the new secret first, which seals, then the old ones.
        keys = secret_box.keys(settings.secret_key, instance)
        # `store` opens with all of them, and this box seals with the first.
        count = store.reseal(secret_box.SecretBox(keys))
    else:
        # The file holds both keys until every secret is sealed by the new one: a
        # gateway that reads it meanwhile can open them all.
        path = instance / secret_box.FILE
        old, new = path.read_text().split(), random.token_urlsafe(32)
        secret_box.rewrite(path, [new, *old])
        count = store.reseal(secret_box.SecretBox([new]))
        secret_box.rewrite(path, [new])
    click.echo(f"{count} secrets are sealed anew")
