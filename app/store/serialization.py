"""Keys and aliases of core/permissions.py as JSON documents in the tables.

A key that this version cannot parse, such as one with a limit that a later version
added, must not be used without that limit. It is parsed as a disabled key with a
problem, and never written again, which would lose the rest of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.limits import Limits
from ..core.permissions import Alias, GatewayKey, VirtualKey

# Fields with a column of their own, that are sealed, or that come from parsing.
_NOT_IN_DOCUMENT = {"id", "name", "hint", "settings", "disabled", "problem"}


def document(record: VirtualKey | GatewayKey | Alias) -> str:
    """*record* as JSON, without empty fields and those that have a column.

    Raises ValueError for a key that could not be parsed.
    """
    fields = dataclasses.asdict(record)
    if not isinstance(record, Alias):
        if record.problem:
            name = record.id if isinstance(record, VirtualKey) else record.name
            raise ValueError(
                f"{name} cannot be read by this version of the gateway "
                f"({record.problem}): use the one that stored it, or make it anew"
            )
        fields["limits"] = record.limits.to_body()
    omitted = _NOT_IN_DOCUMENT
    if isinstance(record, VirtualKey):
        # Only gateway keys have a column for it.
        omitted = omitted - {"disabled"}
    return dumps(
        {k: v for k, v in fields.items() if k not in omitted and v not in (None, {})}
    )


def parse_virtual_key(
    id: str, document: str, settings: Mapping[str, Any] | None = None
) -> VirtualKey:
    """The key in *document*; with a problem if this version cannot parse it."""
    try:
        return VirtualKey(id, settings=settings or {}, **_fields(document))
    except (TypeError, ValueError) as e:
        return VirtualKey(id, "", disabled=True, problem=str(e))


def parse_gateway_key(
    name: str, hint: str, document: str, disabled: bool
) -> GatewayKey:
    """The key in *document*; with a problem if this version cannot parse it."""
    try:
        fields = _fields(document)
        aliases = {k: Alias(**v) for k, v in fields.pop("aliases", {}).items()}
        return GatewayKey(name, hint, aliases=aliases, disabled=disabled, **fields)
    except (TypeError, ValueError) as e:
        return GatewayKey(name, hint, disabled=True, problem=str(e))


def _fields(document: str) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(document)
    # An unknown limit raises ValueError here, an unknown field TypeError in the caller.
    return fields | {"limits": Limits.of(fields.get("limits", {}))}


def parse_alias(document: str) -> Alias:
    return Alias(**orjson.loads(document))


def dumps(value: Any) -> str:
    """JSON that is the same for the same value."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
