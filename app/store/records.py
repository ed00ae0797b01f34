"""How the values of core/access.py are written into the tables, and read again."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from ..core.access import Alias, GatewayKey, VirtualKey

T = TypeVar("T")

# Fields that stand in columns of their own, or are sealed.
_APART = {"id", "name", "hint", "settings", "disabled"}


def document(record: VirtualKey | GatewayKey | Alias) -> str:
    """The fields of *record* that are no columns, as JSON; without its empty ones."""
    fields = dataclasses.asdict(record)
    # A disabled virtual key has no column for it.
    apart = _APART - ({"disabled"} if isinstance(record, VirtualKey) else set())
    kept = {k: v for k, v in fields.items() if k not in apart and v not in (None, {})}
    return dumps(kept)


def virtual_key(
    id: str, document: str, settings: Mapping[str, Any] | None = None
) -> VirtualKey:
    return VirtualKey(id, settings=settings or {}, **orjson.loads(document))


def gateway_key(name: str, hint: str, document: str, disabled: bool) -> GatewayKey:
    fields = orjson.loads(document)
    aliases = {k: Alias(**v) for k, v in fields.pop("aliases", {}).items()}
    return GatewayKey(name, hint, aliases=aliases, disabled=disabled, **fields)


def alias(document: str) -> Alias:
    return Alias(**orjson.loads(document))


def dumps(value: Any) -> str:
    """JSON that is the same for the same value."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
