"""How the values of core/permissions.py are written into the tables, and read again.

What this version cannot read, such as a limit that a later one wrote, it does not know
how to hold anybody to. Such a key is read as a disabled one with a problem, and never
written again, which would lose what stands there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.limits import Limits
from ..core.permissions import Alias, GatewayKey, VirtualKey

# Fields that stand in columns of their own, are sealed, or are found when read.
_APART = {"id", "name", "hint", "settings", "disabled", "problem"}


def document(record: VirtualKey | GatewayKey | Alias) -> str:
    """The fields of *record* that are no columns, as JSON; without its empty ones.

    Raises ValueError for a key that could not be read.
    """
    fields = dataclasses.asdict(record)
    if not isinstance(record, Alias):
        _be_sound(record)
        fields["limits"] = record.limits.to_body()
    # A disabled virtual key has no column for it.
    apart = _APART - ({"disabled"} if isinstance(record, VirtualKey) else set())
    kept = {k: v for k, v in fields.items() if k not in apart and v not in (None, {})}
    return dumps(kept)


def _be_sound(key: VirtualKey | GatewayKey) -> None:
    if key.problem:
        name = key.id if isinstance(key, VirtualKey) else key.name
        raise ValueError(
            f"{name} cannot be read by this version of the gateway ({key.problem}): "
            "use the one that stored it, or make it anew"
        )


def virtual_key(
    id: str, document: str, settings: Mapping[str, Any] | None = None
) -> VirtualKey:
    """What *document* says; with a problem, if this version does not understand it."""
    try:
        return VirtualKey(id, settings=settings or {}, **_fields(document))
    except (TypeError, ValueError) as e:
        return VirtualKey(id, "", disabled=True, problem=str(e))


def gateway_key(name: str, hint: str, document: str, disabled: bool) -> GatewayKey:
    """What *document* says; with a problem, if this version does not understand it."""
    try:
        fields = _fields(document)
        aliases = {k: Alias(**v) for k, v in fields.pop("aliases", {}).items()}
        return GatewayKey(name, hint, aliases=aliases, disabled=disabled, **fields)
    except (TypeError, ValueError) as e:
        return GatewayKey(name, hint, disabled=True, problem=str(e))


def _fields(document: str) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(document)
    return fields | {"limits": Limits.of(fields.get("limits", {}))}


def alias(document: str) -> Alias:
    return Alias(**orjson.loads(document))


def dumps(value: Any) -> str:
    """JSON that is the same for the same value."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
