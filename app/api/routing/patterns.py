"""Regular expressions of callers, run by RE2 and bounded in time.

RE2 takes time in proportion to the text, whatever the pattern; in return it supports no
backreferences and no lookaround. But the factor is the size of the program that it
compiles a pattern to: when the automaton does not fit into its memory, it follows every
instruction for every byte, at up to 45 ns each (`a[ab]{300}c` on a text of a and b).
So there are bounds on the size of programs and of texts, on their product, and on the
time of all searches of a request.

RE2 releases Python's lock while it searches, but a gevent worker does nothing else
meanwhile. So a search that may take long is run in a native thread, one at a time, and
after a number of short ones other greenlets get a turn. RE2 holds the lock while it
compiles: the length of a pattern bounds that.
"""

import sys
import threading
import time
from functools import lru_cache
from typing import Any

import re2

from ...errors import InvalidRoute
from ...state.per_process import PerProcess

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
# Seconds of CPU time for all searches of a request; the last one may exceed them.
BUDGET = 0.25

# Steps of a search up to which it is run in place: up to 6 ms. And the seconds of such
# searches after which other greenlets get a turn.
_MAX_INLINE_STEPS = 2**17
_MAX_INLINE_TIME = 0.003
# Seconds of that turn. Not 0: gevent would resume this greenlet up to fifty times
# before it polls the sockets.
_PAUSE = 1e-4
# Seconds that a search takes beside RE2's own work.
_OVERHEAD = 1e-5

# Bytes of memory for a pattern's automaton, patterns whose program is cached, and texts
# of a request whose bytes are cached.
_MEMORY, _CACHED_PATTERNS, _CACHED_TEXTS = 2**18, 128, 64

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
# Only whether there is a match matters.
_OPTIONS.never_capture = True
_OPTIONS.max_mem = _MEMORY

# One compiles or pauses at a time: however many requests have patterns, everybody else
# gets a turn between two of them. And one searches in a native thread at a time. The
# locks are created late, since gevent replaces their class.
_compile_lock = PerProcess(lambda: threading.Lock())
_thread_lock = PerProcess(lambda: threading.Lock())


@lru_cache(_CACHED_PATTERNS)
def compile_pattern(pattern: str) -> Any:
    """The program of *pattern*. Raises ValueError if RE2 refuses it, or it is large.

    Other greenlets get a turn after each compilation.
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
    with _compile_lock.get():
        try:
            program = re2.compile(pattern, options=_OPTIONS)
            size = program_size(program)
        except re2.error as e:
            # Cut, since RE2's message may repeat the whole pattern.
            reason = e.args[0] if e.args else ""
            if isinstance(reason, bytes):
                reason = reason.decode("utf-8", "replace")
            raise ValueError(str(reason)[:100]) from e
        finally:
            time.sleep(_PAUSE)
    if size > LARGEST_PROGRAM:
        raise ValueError(
            f"its program has {size} instructions, and at most {LARGEST_PROGRAM} are "
            "allowed"
        )
    return program


def program_size(pattern: Any) -> int:
    """The number of instructions of the larger one of its two programs.

    RE2 has no backward program if that does not fit into memory; its size is -1 then.
    """
    backwards: int = pattern.reverseprogramsize
    forwards: int = pattern.programsize
    return max(forwards, backwards if backwards >= 0 else LARGEST_PROGRAM + 1)


class Searches:
    """The searches of one request, which share its budget."""

    def __init__(self) -> None:
        self._time_spent = self._inline_time = 0.0
        self._bytes: dict[int, bytes] = {}

    def __call__(self, pattern: str, text: str) -> bool:
        """Whether *pattern* matches in *text*. Raises InvalidRoute beyond the bounds.

        *text* has to stay the same object for the whole request: its bytes are cached
        by its identity.
        """
        program = compile_pattern(pattern)
        encoded = self._encode(text)
        steps = program_size(program) * len(encoded)
        if steps > MOST_STEPS:
            raise _out_of_bounds(
                f"a pattern of {program_size(program)} instructions meets a text of "
                f"{len(encoded)} bytes, and their product may be at most {MOST_STEPS}"
            )
        if self._time_spent > BUDGET:
            raise _out_of_bounds(
                f"its patterns have taken {self._time_spent:.2f} s to search, and at "
                f"most {BUDGET} s are allowed for a request"
            )
        if steps > _MAX_INLINE_STEPS:
            matches, seconds = _search_in_thread(program, encoded)
            self._time_spent += seconds
            return matches
        matches, seconds = _search(program, encoded)
        self._time_spent += seconds + _OVERHEAD
        self._inline_time += seconds + _OVERHEAD
        if self._inline_time > _MAX_INLINE_TIME:
            self._inline_time = 0.0
            with _compile_lock.get():
                time.sleep(_PAUSE)
        return matches

    def _encode(self, text: str) -> bytes:
        # Before and after encoding, so that no huge text is encoded to be measured.
        if len(text) > LONGEST_TEXT:
            raise _text_too_long(len(text))
        if id(text) not in self._bytes:
            if len(self._bytes) >= _CACHED_TEXTS:
                self._bytes.clear()
            self._bytes[id(text)] = text.encode("utf-8", "replace")
        encoded = self._bytes[id(text)]
        if len(encoded) > LONGEST_TEXT:
            raise _text_too_long(len(encoded))
        return encoded


def _search(program: Any, text: bytes) -> tuple[bool, float]:
    """Whether *program* matches in *text*, and the CPU time of the search."""
    began = time.thread_time()
    matches = program.search(text) is not None
    return matches, time.thread_time() - began


def _search_in_thread(program: Any, text: bytes) -> tuple[bool, float]:
    """The same in a native thread, while other greenlets of a gevent worker run.

    One at a time, so that patterns take one processor at most and leave threads of the
    pool for the resolution of host names.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return _search(program, text)
    import gevent

    with _thread_lock.get():
        result: tuple[bool, float] = gevent.get_hub().threadpool.apply(
            _search, (program, text)
        )
    return result


def _text_too_long(size: int) -> InvalidRoute:
    return _out_of_bounds(
        f"a text has {size} bytes, and patterns search at most {LONGEST_TEXT}"
    )


def _out_of_bounds(message: str) -> InvalidRoute:
    return InvalidRoute(
        f"The conditions of the config ask for too much: {message}.",
        legacy="Invalid config passed",
        code="conditions_too_expensive",
    )
