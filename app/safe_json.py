"""JSON from outside, read so that it can be written again."""

from typing import Any

import orjson

# orjson reads 1024 levels and writes 254: a few are left for what documents are put
# into. Fewer brackets cannot nest deeper.
_DEEPEST = 250
_WRITTEN = 254


def load(text: bytes | str) -> Any:
    """What *text* says. Raises ValueError if it is not JSON, or nested too deep."""
    document = orjson.loads(text)
    if _brackets(text) > _DEEPEST:
        wrapped = document
        for _ in range(_WRITTEN - _DEEPEST):
            wrapped = [wrapped]
        try:
            orjson.dumps(wrapped)
        except orjson.JSONEncodeError as e:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep") from e
    return document


def _brackets(text: bytes | str) -> int:
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")
