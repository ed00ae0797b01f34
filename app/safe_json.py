"""Parses JSON from outside, and refuses what could not be serialised again."""

from typing import Any

import orjson

# orjson parses 1024 levels of nesting and serialises 254. A few of those are left for
# the objects that a document is put into.
_MAX_DEPTH = 250
_MAX_SERIALISED_DEPTH = 254


def load(text: bytes | str) -> Any:
    """The JSON value in *text*. Raises ValueError if invalid, or nested too deeply."""
    document = orjson.loads(text)
    # The number of opening brackets is an upper bound of the depth, and cheap.
    if isinstance(text, str):
        brackets = text.count("[") + text.count("{")
    else:
        brackets = text.count(b"[") + text.count(b"{")
    if brackets > _MAX_DEPTH:
        nested = document
        for _ in range(_MAX_SERIALISED_DEPTH - _MAX_DEPTH):
            nested = [nested]
        try:
            orjson.dumps(nested)
        except orjson.JSONEncodeError as e:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep") from e
    return document
