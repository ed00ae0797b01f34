"""A cache for pure functions of texts, which return in request after request."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Texts per function, and characters of each: 2 MB at most, besides the results. Both
# are bounded, since callers choose the texts.
_MAX_TEXTS, _MAX_LENGTH = 256, 8192


def cached_by_text(
    function: Callable[Concatenate[str, P], T],
) -> Callable[Concatenate[str, P], T]:
    """*function*, which must be pure, with a cache of its last results.

    Texts that are too long are not cached, and errors are not either.
    """
    cached: Any = lru_cache(_MAX_TEXTS)(function)

    def look_up(text: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = cached if len(text) <= _MAX_LENGTH else function
        result: T = call(text, *args, **kwargs)
        return result

    return look_up
