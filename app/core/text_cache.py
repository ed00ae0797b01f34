"""What was made of a text is kept for the next request that has the same in it."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Texts for each function, and characters of each: 2 MB, and what is made of it. Whoever
# sends a text may make it up.
_MOST, _LONGEST = 256, 8192


def cached_by_text(
    make: Callable[Concatenate[str, P], T],
) -> Callable[Concatenate[str, P], T]:
    """Have *make*, which is to be pure, make it once for each of the last texts.

    What is too long is made again each time, and what it raises is raised each time.
    """
    known: Any = lru_cache(_MOST)(make)

    def recalled(text: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        which = known if len(text) <= _LONGEST else make
        made: T = which(text, *args, **kwargs)
        return made

    return recalled
