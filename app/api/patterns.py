"""Regular expressions of callers, by an engine that cannot be kept busy by them.

RE2 takes time in proportion to the text, whatever the pattern; in return it knows no
backreferences and no lookaround.
"""

from functools import lru_cache
from typing import Any

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 2**20


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern, ready to search. Raises ValueError if it is none for RE2."""
    try:
        return re2.compile(pattern, options=_OPTIONS)
    except re2.error as e:
        raise ValueError(_reason(e)) from e


def _reason(error: Exception) -> str:
    """What RE2 says, which may repeat the whole pattern, in short."""
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text[:100]


def search(pattern: str, text: str) -> bool:
    """Whether *pattern* is found in *text*."""
    return compiled(pattern).search(text) is not None
