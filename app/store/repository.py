"""Reading and changing what is stored. Every change raises the revision."""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Table, delete, insert, select, update

from ..core.gateway_keys import PREFIX
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
    """There is nothing of this name."""


class RecordExists(ValueError):
    """There is something of this name already."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a config. *created* is in Unix seconds."""

    number: int
    document: Mapping[str, Any]
    created: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is stored, as of a *revision*. *keys* are by their keyed hashes.

    The settings of virtual keys are still *sealed*. *pepper* is what keys are hashed
    with, empty before there is one.
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
    """What is stored in *engine*, its secrets sealed by *sealer*."""

    def __init__(self, engine: Engine, sealer: SecretBox) -> None:
        self.engine = engine
        self._sealer = sealer

    def revision(self) -> int:
        """A number that is another one after every change."""
        with reading(self.engine) as connection:
            return int(connection.execute(select(revisions.c.number)).scalar_one())

    def contents(self) -> Snapshot:
        """All of it, at one moment."""
        with reading(self.engine) as connection:
            return Snapshot(
                int(connection.execute(select(revisions.c.number)).scalar_one()),
                _configs(connection),
                *_virtual_keys(connection),
                _keys(connection),
                _aliases(connection),
                self._pepper(connection),
            )

    def settings(self, sealed: bytes) -> dict[str, Any]:
        """The settings of a virtual key. Raises StoreUnavailable under another key."""
        opened: dict[str, Any] = orjson.loads(self._sealer.open(sealed))
        return opened

    # Configs

    def put_config(self, id: str, document: Mapping[str, Any]) -> int:
        """Store *document* as the newest version of a config; its number."""
        now = int(time.time())
        with self._change() as connection:
            number = _version(connection, id) + 1
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

    def versions(self, id: str) -> list[Version]:
        """All versions of a config, newest first. Raises Absent."""
        query = (
            select(config_versions)
            .where(config_versions.c.config == id)
            .order_by(config_versions.c.version.desc())
        )
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
        if not rows:
            raise RecordNotFound(id)
        return [Version(r.version, orjson.loads(r.document), r.created) for r in rows]

    def delete_config(self, id: str) -> None:
        with self._change() as connection:
            versions = config_versions.c.config == id
            connection.execute(delete(config_versions).where(versions))
            _delete(connection, configs, id)

    # Virtual keys

    def put_virtual_key(self, key: VirtualKey) -> None:
        """Store *key*, in place of one of the same id."""
        row = {
            "id": key.id,
            "document": serialization.document(key),
            "sealed": self._sealer.seal(orjson.dumps(dict(key.settings))),
            "updated": int(time.time()),
        }
        with self._change() as connection:
            _put(connection, virtual_keys, row)

    def delete_virtual_key(self, id: str) -> None:
        with self._change() as connection:
            _delete(connection, virtual_keys, id)

    # Gateway keys

    def create_key(self, key: GatewayKey) -> str:
        """Store *key*; the text that a caller has to send. Raises Present.

        It is not kept: this is the only time that it can be seen.
        """
        text = PREFIX + secrets.token_urlsafe(24)
        with self._change() as connection:
            if _exists(connection, gateway_keys, key.name):
                raise RecordExists(key.name)
            pepper = self._pepper(connection) or self._make_pepper(connection)
            row = _key_row(key, hint=text[-4:]) | {"hash": hashed(text, pepper)}
            connection.execute(insert(gateway_keys).values(row))
        return text

    def update_key(self, key: GatewayKey) -> None:
        """Store what *key* says, for the key of its name. Raises Absent."""
        with self._change() as connection:
            changed = connection.execute(
                update(gateway_keys)
                .where(gateway_keys.c.name == key.name)
                .values(_key_row(key, hint=key.hint))
            )
            if not changed.rowcount:
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

    def reseal(self, sealer: SecretBox) -> int:
        """Seal everything anew, by *sealer*; how many secrets that were."""
        with self._change() as connection:
            return sum(
                self._reseal(connection, table, sealer)
                for table in (virtual_keys, own_secrets)
            )

    def _reseal(self, connection: Connection, table: Table, sealer: SecretBox) -> int:
        name = _primary(table)
        rows = connection.execute(select(name, table.c.sealed)).all()
        for key, sealed in rows:
            new = sealer.seal(self._sealer.open(sealed))
            connection.execute(update(table).where(name == key).values(sealed=new))
        return len(rows)

    def _pepper(self, connection: Connection) -> bytes:
        query = select(own_secrets.c.sealed).where(own_secrets.c.name == "pepper")
        sealed = connection.execute(query).scalar()
        return self._sealer.open(sealed) if sealed else b""

    def _make_pepper(self, connection: Connection) -> bytes:
        pepper = secrets.token_bytes(32)
        row = {"name": "pepper", "sealed": self._sealer.seal(pepper)}
        connection.execute(insert(own_secrets).values(row))
        return pepper

    def _change(self) -> Any:
        return _changing(self.engine)


class _changing:
    """A transaction that raises the revision, so that everybody reads anew."""

    def __init__(self, engine: Engine) -> None:
        self._transaction = writing(engine)

    def __enter__(self) -> Connection:
        connection = self._transaction.__enter__()
        # First of all: it makes those who change something wait for each other.
        connection.execute(update(revisions).values(number=revisions.c.number + 1))
        return connection

    def __exit__(self, *failure: Any) -> bool | None:
        return self._transaction.__exit__(*failure)


def hashed(key: str, pepper: bytes) -> str:
    """The keyed hash of a gateway key."""
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def _configs(connection: Connection) -> dict[str, Mapping[str, Any]]:
    newest = (configs.c.id == config_versions.c.config) & (
        configs.c.version == config_versions.c.version
    )
    query = select(configs.c.id, config_versions.c.document).join(
        config_versions, newest
    )
    return {r.id: orjson.loads(r.document) for r in connection.execute(query)}


def _virtual_keys(
    connection: Connection,
) -> tuple[dict[str, VirtualKey], dict[str, bytes]]:
    rows = connection.execute(select(virtual_keys)).all()
    values = {r.id: serialization.virtual_key(r.id, r.document) for r in rows}
    _tell_problems({f"virtual key {id}": key for id, key in values.items()})
    return values, {r.id: bytes(r.sealed) for r in rows}


def _keys(connection: Connection) -> dict[str, GatewayKey]:
    rows = connection.execute(select(gateway_keys)).all()
    values = {
        r.hash: serialization.gateway_key(r.name, r.hint, r.document, r.disabled)
        for r in rows
    }
    _tell_problems({f"gateway key {key.name}": key for key in values.values()})
    return values


def _tell_problems(keys: Mapping[str, VirtualKey | GatewayKey]) -> None:
    for name, key in keys.items():
        if key.problem:
            logger.error("the %s is refused: %s", name, key.problem)


def _aliases(connection: Connection) -> dict[str, Alias]:
    rows = connection.execute(select(aliases)).all()
    return {r.model: serialization.alias(r.document) for r in rows}


def _key_row(key: GatewayKey, *, hint: str) -> dict[str, Any]:
    return {
        "name": key.name,
        "hint": hint,
        "document": serialization.document(key),
        "disabled": key.disabled,
        "updated": int(time.time()),
    }


def _version(connection: Connection, id: str) -> int:
    query = select(configs.c.version).where(configs.c.id == id)
    return connection.execute(query).scalar() or 0


def _primary(table: Table) -> Any:
    (column,) = table.primary_key.columns
    return column


def _exists(connection: Connection, table: Table, key: str) -> bool:
    name = _primary(table)
    return connection.execute(select(name).where(name == key)).scalar() is not None


def _put(connection: Connection, table: Table, row: Mapping[str, Any]) -> None:
    name = _primary(table)
    if _exists(connection, table, row[name.name]):
        connection.execute(update(table).where(name == row[name.name]).values(row))
    else:
        connection.execute(insert(table).values(row))


def _delete(connection: Connection, table: Table, key: str) -> None:
    """Delete a row. Raises Absent if there is none."""
    if not connection.execute(delete(table).where(_primary(table) == key)).rowcount:
        raise RecordNotFound(key)
