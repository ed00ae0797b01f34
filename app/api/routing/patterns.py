"""Regular expressions of callers, by an engine that cannot be kept busy by them.

RE2 takes time in proportion to the text, whatever the pattern; in return it knows no
backreferences and no lookaround. But the factor is the size of the program that it
makes of a pattern: when an automaton does not fit into its memory, it follows every
instruction for every byte, at up to 45 ns each (`a[ab]{300}c` on a text of a and b).
So the size of programs and of texts is bounded, and their product, and the time that
all searches of a request take.

RE2 lets go of Python's lock while it searches, but a gevent worker does nothing else
meanwhile. So a search that may take long is made in a thread of the system, one at a
time, and after some short ones others get their turn. It keeps the lock while it
compiles: that is bounded by the length of a pattern.
"""

import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import re2

from ...errors import InvalidRoute
from ...state.per_process import PerProcess

T = TypeVar("T")

# Characters of a pattern, and classes such as \pL among them, which hold hundreds of
# ranges each: within both it takes at most 10 ms to compile.
LONGEST_PATTERN = 500
MOST_CLASSES = 16
# Instructions of its program, forwards or backwards.
LARGEST_PROGRAM = 2000
# Bytes of a text.
LONGEST_TEXT = 2**18
# Instructions times bytes of one search: a second in the worst case, and a millisecond
# in most.
MOST_STEPS = 2**25
# Seconds of a processor for all searches of a request; the last one may exceed them.
BUDGET = 0.25

# Steps of a search up to which it is made at once: up to 6 ms. And the seconds after
# which others get their turn.
_AT_ONCE = 2**17
_TURN = 0.003
# Seconds that this takes. Not 0: gevent would come back up to fifty times before it
# looks whether anything has arrived.
_PAUSE = 1e-4

# Memory of a pattern's automaton; some are kept for later requests.
_MEMORY, _KEPT_PATTERNS = 2**18, 128

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
# Only whether there is a match is asked.
_OPTIONS.never_capture = True
_OPTIONS.max_mem = _MEMORY


# Whose turn it is to work for some milliseconds: however many requests want to, between
# two of them everybody else comes. Locks are made late, as gevent replaces their class.
_working = PerProcess(lambda: threading.Lock())


@lru_cache(_KEPT_PATTERNS)
def compiled(pattern: str) -> Any:
    """The pattern, ready to search. Raises ValueError if it is none for RE2, or large.

    Others get their turn after it is made.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(
            f"it has {len(pattern)} characters, and at most {LONGEST_PATTERN} are "
            "allowed"
        )
    classes = pattern.lower().count("\\p")
    if classes > MOST_CLASSES:
        raise ValueError(
            f"it has {classes} classes such as \\pL, and at most {MOST_CLASSES} are "
            "allowed"
        )
    with _working.get():
        try:
            made = re2.compile(pattern, options=_OPTIONS)
            size = program_size(made)
        except re2.error as e:
            raise ValueError(_reason(e)) from e
        finally:
            time.sleep(_PAUSE)
    if size > LARGEST_PROGRAM:
        raise ValueError(
            f"its program has {size} instructions, and at most {LARGEST_PROGRAM} are "
            "allowed"
        )
    return made


def program_size(pattern: Any) -> int:
    """The instructions of the larger one of its two programs.

    Without memory for a program backwards there is none, and its size is -1.
    """
    backwards: int = pattern.reverseprogramsize
    forwards: int = pattern.programsize
    return max(forwards, backwards if backwards >= 0 else LARGEST_PROGRAM + 1)


def _reason(error: Exception) -> str:
    """What RE2 says, which may repeat the whole pattern, in short."""
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return text[:100]


class Searches:
    """The searches of one request, which share its budget."""

    def __init__(self) -> None:
        self._spent = self._since_turn = 0.0
        self._bytes: dict[int, bytes] = {}

    def __call__(self, pattern: str, text: str) -> bool:
        """Whether *pattern* is found in *text*. Raises InvalidRoute out of bounds.

        The text has to stay the same object as long as the request goes on.
        """
        program = compiled(pattern)
        encoded = self._encoded(text)
        steps = program_size(program) * len(encoded)
        if steps > MOST_STEPS:
            raise _out_of_bounds(
                f"a pattern of {program_size(program)} instructions meets a text of "
                f"{len(encoded)} bytes, and their product may be at most {MOST_STEPS}"
            )
        if self._spent > BUDGET:
            raise _out_of_bounds(
                f"its patterns have taken {self._spent:.2f} s to search, and at most "
                f"{BUDGET} s are allowed for a request"
            )
        found, seconds = self._search(program, encoded, steps)
        self._spent += seconds
        return found

    def _encoded(self, text: str) -> bytes:
        if len(text) > LONGEST_TEXT:
            raise _too_long(len(text))
        if id(text) not in self._bytes:
            if len(self._bytes) >= _KEPT:
                self._bytes.clear()
            self._bytes[id(text)] = text.encode("utf-8", "replace")
        encoded = self._bytes[id(text)]
        if len(encoded) > LONGEST_TEXT:
            raise _too_long(len(encoded))
        return encoded

    def _search(self, program: Any, text: bytes, steps: int) -> tuple[bool, float]:
        """Whether it is found, and the seconds that it took."""
        if steps > _AT_ONCE:
            return _aside(lambda: _searched(program, text))
        found, seconds = _searched(program, text)
        self._since_turn += seconds + _OVERHEAD
        if self._since_turn > _TURN:
            self._since_turn = 0.0
            with _working.get():
                time.sleep(_PAUSE)
        return found, seconds + _OVERHEAD


# Texts whose bytes are kept for the next pattern.
_KEPT = 64
# Seconds that each search takes besides.
_OVERHEAD = 1e-5


def _searched(program: Any, text: bytes) -> tuple[bool, float]:
    began = time.thread_time()
    found = program.search(text) is not None
    return found, time.thread_time() - began


# Whose turn it is to search aside.
_turn = PerProcess(lambda: threading.Lock())


def _aside(work: Callable[[], T]) -> T:
    """What *work* comes to, in a thread of the system, while others have their turn.

    One at a time in a gevent worker, so that patterns take one processor at most, and
    those threads that look up names are not all taken.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return work()
    import gevent

    with _turn.get():
        result: T = gevent.get_hub().threadpool.apply(work)
    return result


def _too_long(size: int) -> InvalidRoute:
    return _out_of_bounds(
        f"a text has {size} bytes, and patterns search at most {LONGEST_TEXT}"
    )


def _out_of_bounds(message: str) -> InvalidRoute:
    return InvalidRoute(
        f"The conditions of the config ask for too much: {message}.",
        legacy="Invalid config passed",
        code="conditions_too_expensive",
    )
