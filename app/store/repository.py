"""Configs, keys, aliases in the database. Every change increments the revision.

Workers keep all records in memory (store_cache.py) and only ask for the revision, one
number, to learn whether they have to read again. So each change increments it in its
own transaction: readers see both or neither.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, delete, insert, select, update

from ..core.credentials import PREFIX
from ..core.permissions import Alias, GatewayKey, VirtualKey
from . import serialization
from .database import reading, writing
from .secret_box import SecretBox
from .tables import (
    aliases,
    config_versions,
    configs,
    gateway_keys,
    own_secrets,
    revisions,
    virtual_keys,
)

logger = logging.getLogger("lastword")


class RecordNotFound(LookupError):
    """No record has this name."""


class RecordExists(ValueError):
    """A record of this name exists already."""


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One version of a config. *created* is in Unix seconds."""

    number: int
    document: Mapping[str, Any]
    created: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All records, as of a *revision*. *keys* are by their keyed hashes.

    The settings of virtual keys are still *sealed*. *pepper* is the key of those
    hashes, empty before there is one.
    """

    revision: int
    configs: Mapping[str, Mapping[str, Any]]
    virtual_keys: Mapping[str, VirtualKey]
    sealed: Mapping[str, bytes] = field(repr=False)
    keys: Mapping[str, GatewayKey]
    aliases: Mapping[str, Alias]
    pepper: bytes = field(default=b"", repr=False)


EMPTY = Snapshot(-1, {}, {}, {}, {}, {})


class Repository:
    """The records in the database *engine*, secrets sealed by *secret_box*."""

    def __init__(self, engine: Engine, secret_box: SecretBox) -> None:
        self.engine = engine
        self._secret_box = secret_box

    def revision(self) -> int:
        """A number that every change increments."""
        with reading(self.engine) as connection:
            return int(connection.execute(select(revisions.c.number)).scalar_one())

    def contents(self) -> Snapshot:
        """All records, in one transaction."""
        newest = (configs.c.id == config_versions.c.config) & (
            configs.c.version == config_versions.c.version
        )
        documents = select(configs.c.id, config_versions.c.document)
        with reading(self.engine) as connection:
            # The revision comes first. In PostgreSQL (READ COMMITTED) each statement
            # sees what was committed before it: records may be newer than the revision,
            # and are read once more then, but never older, which would hide a change.
            revision = connection.execute(select(revisions.c.number)).scalar_one()
            config_rows = connection.execute(
                documents.join(config_versions, newest)
            ).all()
            virtual_key_rows = connection.execute(select(virtual_keys)).all()
            key_rows = connection.execute(select(gateway_keys)).all()
            alias_rows = connection.execute(select(aliases)).all()
            pepper = self._pepper(connection)
        parsed_virtual_keys = {
            r.id: serialization.parse_virtual_key(r.id, r.document)
            for r in virtual_key_rows
        }
        parsed_keys = {
            r.hash: serialization.parse_gateway_key(
                r.name, r.hint, r.document, r.disabled
            )
            for r in key_rows
        }
        problems = {
            **{f"virtual key {id}": k.problem for id, k in parsed_virtual_keys.items()},
            **{f"gateway key {k.name}": k.problem for k in parsed_keys.values()},
        }
        for name, problem in problems.items():
            if problem:
                logger.error("the %s is refused: %s", name, problem)
        return Snapshot(
            int(revision),
            {r.id: orjson.loads(r.document) for r in config_rows},
            parsed_virtual_keys,
            {r.id: bytes(r.sealed) for r in virtual_key_rows},
            parsed_keys,
            {r.model: serialization.parse_alias(r.document) for r in alias_rows},
            pepper,
        )

    def settings(self, sealed: bytes) -> dict[str, Any]:
        """The settings of a virtual key. Raises StoreUnavailable if they were sealed
        under another GATEWAY_SECRET_KEY.
        """
        settings: dict[str, Any] = orjson.loads(self._secret_box.open(sealed))
        return settings

    # Configs

    def put_config(self, id: str, document: Mapping[str, Any]) -> int:
        """Store *document* as the newest version of a config, and return its number."""
        now = int(time.time())
        with self._change() as connection:
            query = select(configs.c.version).where(configs.c.id == id)
            number = (connection.execute(query).scalar() or 0) + 1
            row = {"id": id, "version": number, "updated": now}
            _put(connection, configs, row)
            connection.execute(
                insert(config_versions).values(
                    config=id,
                    version=number,
                    document=serialization.dumps(document),
                    created=now,
                )
            )
        return number

    def versions(self, id: str) -> list[ConfigVersion]:
        """All versions of a config, newest first. Raises RecordNotFound."""
        query = (
            select(config_versions)
            .where(config_versions.c.config == id)
            .order_by(config_versions.c.version.desc())
        )
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise RecordNotFound(id)
        return [
            ConfigVersion(r.version, orjson.loads(r.document), r.created) for r in rows
        ]

    def delete_config(self, id: str) -> None:
        with self._change() as connection:
            # Not left to ON DELETE CASCADE, which SQLite ignores by default.
            versions = config_versions.c.config == id
            connection.execute(delete(config_versions).where(versions))
            _delete(connection, configs, id)

    # Virtual keys

    def put_virtual_key(self, key: VirtualKey) -> None:
        """Store *key*, in place of one of the same id."""
        row = {
            "id": key.id,
            "document": serialization.document(key),
            "sealed": self._secret_box.seal(orjson.dumps(dict(key.settings))),
            "updated": int(time.time()),
        }
        with self._change() as connection:
            _put(connection, virtual_keys, row)

    def delete_virtual_key(self, id: str) -> None:
        with self._change() as connection:
            _delete(connection, virtual_keys, id)

    # Gateway keys

    def create_key(self, key: GatewayKey) -> str:
        """Store *key*, and return the text that callers send. Raises RecordExists.

        The text itself is not stored: this is the only time that it can be seen.
        """
        text = PREFIX + secrets.token_urlsafe(24)
        with self._change() as connection:
            if _exists(connection, gateway_keys, key.name):
                raise RecordExists(key.name)
            # A keyed hash: a copy of the database alone, without GATEWAY_SECRET_KEY, is
            # of no use to check guesses. A fast hash is enough, as keys are 24 random
            # bytes, which nobody guesses.
            pepper = self._pepper(connection)
            if not pepper:
                pepper = secrets.token_bytes(32)
                sealed = self._secret_box.seal(pepper)
                pepper_row = {"name": "pepper", "sealed": sealed}
                connection.execute(insert(own_secrets).values(pepper_row))
            row = _key_row(key, hint=text[-4:]) | {"hash": key_hash(text, pepper)}
            connection.execute(insert(gateway_keys).values(row))
        return text

    def update_key(self, key: GatewayKey) -> None:
        """Replace the key of the same name. Raises RecordNotFound."""
        with self._change() as connection:
            result = connection.execute(
                update(gateway_keys)
                .where(gateway_keys.c.name == key.name)
                .values(_key_row(key, hint=key.hint))
            )
            if not result.rowcount:
                raise RecordNotFound(key.name)

    def delete_key(self, name: str) -> None:
        with self._change() as connection:
            _delete(connection, gateway_keys, name)

    # Aliases

    def put_alias(self, model: str, alias: Alias) -> None:
        document, now = serialization.document(alias), int(time.time())
        row = {"model": model, "document": document, "updated": now}
        with self._change() as connection:
            _put(connection, aliases, row)

    def delete_alias(self, model: str) -> None:
        with self._change() as connection:
            _delete(connection, aliases, model)

    # Secrets

    def reseal(self, secret_box: SecretBox) -> int:
        """Seal all secrets anew by *secret_box*; return how many."""
        # In one transaction: after a failure, all are sealed as before.
        count = 0
        with self._change() as connection:
            for table in (virtual_keys, own_secrets):
                id = _primary_key(table)
                for key, sealed in connection.execute(select(id, table.c.sealed)).all():
                    new = secret_box.seal(self._secret_box.open(sealed))
                    row = update(table).where(id == key).values(sealed=new)
                    connection.execute(row)
                    count += 1
        return count

    def _pepper(self, connection: Connection) -> bytes:
        query = select(own_secrets.c.sealed).where(own_secrets.c.name == "pepper")
        sealed = connection.execute(query).scalar()
        return self._secret_box.open(sealed) if sealed else b""

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """A transaction that increments the revision, so that all workers refresh."""
        with writing(self.engine) as connection:
            # Before anything else: it locks the row, so that changes are serialized.
            connection.execute(update(revisions).values(number=revisions.c.number + 1))
            yield connection


def key_hash(key: str, pepper: bytes) -> str:
    """The keyed hash of a gateway key."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def _key_row(key: GatewayKey, *, hint: str) -> dict[str, Any]:
    return {
        "name": key.name,
        "hint": hint,
        "document": serialization.document(key),
        "disabled": key.disabled,
        "updated": int(time.time()),
    }


def _primary_key(table: Table) -> Any:
    (column,) = table.primary_key.columns
    return column


def _exists(connection: Connection, table: Table, key: str) -> bool:
    name = _primary_key(table)
    return connection.execute(select(name).where(name == key)).scalar() is not None


def _put(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    # Each database has its own syntax to insert or update. Two steps are enough here:
    # `_change` holds the lock of the revision, so that nobody inserts in between.
    name = _primary_key(table)
    if _exists(connection, table, row[name.name]):
        connection.execute(update(table).where(name == row[name.name]).values(row))
    else:
        connection.execute(insert(table).values(row))


def _delete(connection: Connection, table: Table, key: str) -> None:
    """Delete a row. Raises RecordNotFound if there is none."""
    if not connection.execute(delete(table).where(_primary_key(table) == key)).rowcount:
        raise RecordNotFound(key)
