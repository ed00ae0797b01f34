"""`flask db` and `flask secrets`: the store itself."""

import secrets as random
from pathlib import Path

import click
from flask.cli import AppGroup

from ..store import database, secret_box
from ..store.repository import Repository
from . import inputs

db = AppGroup("db", help="The tables of the store.")
secrets = AppGroup("secrets", help="What stored credentials are sealed with.")


@db.command()
@inputs.friendly
def upgrade() -> None:
    """Bring the tables up to date. SQLite's are at every start."""
    settings = inputs.settings()
    engine = database.connect(settings.database_url, Path(settings.instance))
    database.upgrade(engine)
    engine.dispose()
    click.echo("the tables are up to date")


@secrets.command()
@inputs.friendly
def rotate() -> None:
    """Seal all credentials anew.

    With GATEWAY_SECRET_KEY: put the new secret before the old one, rotate, then take
    the old one away. Without it, a new secret is made in secret.key.
    """
    settings = inputs.settings()
    instance = Path(settings.instance)
    store = inputs.store()
    if settings.secret_key:
        count = store.reseal(
            secret_box.SecretBox(secret_box.keys(settings.secret_key, instance))
        )
    else:
        count = _rotate_file(store, instance)
    click.echo(f"{count} secrets are sealed anew")


def _rotate_file(store: Repository, instance: Path) -> int:
    """Both keys stand in the file until all is sealed by the new one."""
    path = instance / secret_box.FILE
    old, new = path.read_text().split(), random.token_urlsafe(32)
    secret_box.rewrite(path, [new, *old])
    count = store.reseal(secret_box.SecretBox([new]))
    secret_box.rewrite(path, [new])
    return count
