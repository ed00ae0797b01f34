"""The store of these settings, opened when it is first needed."""

from pathlib import Path

from sqlalchemy import Engine

from ..errors import StoreUnavailable
from ..settings import Settings
from . import secret_box
from .database import connect, is_current, upgrade
from .ledger import Ledger
from .ledger_queries import LedgerQueries
from .repository import Repository
from .store_cache import StoreCache


def database(settings: Settings) -> Engine:
    """The database, its tables ready. Raises StoreUnavailable if they are not."""
    engine = connect(settings.database_url, Path(settings.instance))
    try:
        _make_ready(engine, by_hand=bool(settings.database_url))
    except Exception:
        engine.dispose()
        raise
    return engine


def repository(settings: Settings) -> Repository:
    """The store, with the key that opens its secrets."""
    engine = database(settings)
    keys = secret_box.keys(settings.secret_key, Path(settings.instance))
    return Repository(engine, secret_box.SecretBox(keys))


def ledger(settings: Settings) -> Ledger:
    """Where requests are entered; opened when the first one is."""
    return Ledger(lambda: database(settings), days=settings.ledger_days)


def history(settings: Settings) -> LedgerQueries:
    """What the ledger tells the console; opened when that asks."""
    return LedgerQueries(lambda: database(settings))


def _make_ready(engine: Engine, *, by_hand: bool) -> None:
    """Bring the tables up to date, unless the operator does that."""
    if is_current(engine):
        return
    if by_hand:
        raise StoreUnavailable(
            "The store's tables are not those of this version: flask db upgrade."
        )
    upgrade(engine)


def directory(settings: Settings) -> StoreCache:
    """What is stored, for requests."""
    file = Path(settings.instance) / "gateway.db"
    return StoreCache(
        lambda: repository(settings),
        ttl=settings.store_ttl,
        grace=settings.store_grace,
        file=None if settings.database_url else file,
    )
