"""Opens the store and the ledger as the settings say."""

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
    """The database, its tables up to date. Raises StoreUnavailable if they are not."""
    engine = connect(settings.database_url, Path(settings.instance))
    try:
        if not is_current(engine):
            # A shared database is migrated by its operator: gateways of an older
            # version may still use it.
            if settings.database_url:
                raise StoreUnavailable(
                    "The store's tables are not those of this version: flask db "
                    "upgrade."
                )
            upgrade(engine)
    except Exception:
        # Callers try again with a new engine; this one's connections would stay open.
        engine.dispose()
        raise
    return engine


def repository(settings: Settings) -> Repository:
    """The store, with the keys that decrypt its secrets."""
    engine = database(settings)
    keys = secret_box.keys(settings.secret_key, Path(settings.instance))
    return Repository(engine, secret_box.SecretBox(keys))


def ledger(settings: Settings) -> Ledger:
    """The ledger, opened with the first request."""
    return Ledger(lambda: database(settings), days=settings.ledger_days)


def ledger_queries(settings: Settings) -> LedgerQueries:
    """The ledger for reading, opened with the first query."""
    return LedgerQueries(lambda: database(settings))


def store_cache(settings: Settings) -> StoreCache:
    """The store for requests, opened with the first lookup."""
    file = Path(settings.instance) / "gateway.db"
    return StoreCache(
        lambda: repository(settings),
        ttl=settings.store_ttl,
        grace=settings.store_grace,
        # Only SQLite: a PostgreSQL that does not answer is no empty store.
        file=None if settings.database_url else file,
    )
