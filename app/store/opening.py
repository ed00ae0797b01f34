"""The store of these settings, opened when it is first needed."""

from pathlib import Path

from sqlalchemy import Engine

from ..errors import StoreUnavailable
from ..settings import Settings
from . import sealing
from .database import connect, is_current, upgrade
from .directory import Directory
from .repository import Repository


def repository(settings: Settings) -> Repository:
    """The store, which has to have been made."""
    instance = Path(settings.instance)
    engine = connect(settings.database_url, instance)
    try:
        _make_ready(engine, by_hand=bool(settings.database_url))
    except Exception:
        engine.dispose()
        raise
    return Repository(
        engine, sealing.Sealer(sealing.keys(settings.secret_key, instance))
    )


def _make_ready(engine: Engine, *, by_hand: bool) -> None:
    """Bring the tables up to date, unless the operator does that."""
    if is_current(engine):
        return
    if by_hand:
        raise StoreUnavailable(
            "The store's tables are not those of this version: flask db upgrade."
        )
    upgrade(engine)


def directory(settings: Settings) -> Directory:
    """What is stored, for requests."""
    file = Path(settings.instance) / "gateway.db"
    return Directory(
        lambda: repository(settings),
        ttl=settings.store_ttl,
        grace=settings.store_grace,
        file=None if settings.database_url else file,
    )
