"""Identical requests in flight: the first one calls, the others wait for its response.

A request that joins a key nobody works on becomes its leader, calls upstream and
finishes the flight; all that join before that wait. The invariant: every flight in the
dict has a leader that still has to finish it. A leader that is lost (its greenlet was
killed, its stream never started) would make the others wait for the whole patience, so
it also finishes when its `with` block fails, and when it is garbage-collected.

That last case decides how this is built. `__del__` runs in any thread between any two
bytecodes, perhaps in one that is inside this very module: a lock that it needs could
be held by the code that it interrupts. So there is no lock around the dict, only single
operations that are atomic in CPython, and a bare lock as the gate of each flight.

Source: https://pkg.go.dev/golang.org/x/sync/singleflight
"""

import threading
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from ..core.caching import CacheEntry
from ..errors import UpstreamTimeout

# How many leaders that fail a request waits for before it calls by itself.
_MAX_FAILURES = 2

# Seconds to wait for a leader at most: its caller may read its stream slowly.
_PATIENCE = 30.0

# Seconds between two checks whether the caller of a waiting request is still there.
_CHECK_INTERVAL = 0.25


def no_check() -> None:
    """For a request that waits in any case."""


class _Flight:
    """One call under way. Its gate opens at its end, with its result in *entry*."""

    def __init__(self) -> None:
        self.entry: CacheEntry | None = None
        # A bare lock and no Event: `Event.set` acquires a lock of its own, which in
        # `__del__` could deadlock. To release a lock is safe there.
        self._gate = threading.Lock()
        self._gate.acquire()

    def end(self, entry: CacheEntry | None) -> None:
        self.entry = entry
        self._gate.release()

    def wait(self, seconds: float, check: Callable[[], None]) -> bool:
        """Wait for its end; False if that does not come within *seconds*.

        Raises what *check* raises, which is called now and then.
        """
        deadline = time.monotonic() + seconds
        while not self._gate.acquire(timeout=min(_CHECK_INTERVAL, max(0.0, seconds))):
            check()
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                return False
        # Opened again for the next waiter, who does the same.
        self._gate.release()
        return True


class FlightLeader:
    """Held by the request that calls upstream, while others wait for it.

    They continue when it finishes, which it also does when its `with` block fails, or
    when it is garbage-collected.
    """

    def __init__(self, end: Callable[[CacheEntry | None], None] | None = None) -> None:
        self._end = end

    def finish(self, entry: CacheEntry | None = None) -> None:
        """Give *entry* to the waiters; without one, one of them leads. Only once."""
        # Removed before it is called: `finish`, `with` and `__del__` may all come here.
        end, self._end = self._end, None
        if end:
            end(entry)

    def __enter__(self) -> "FlightLeader":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is not None:
            self.finish()

    def __del__(self) -> None:
        self.finish()


class SingleFlight:
    """The calls under way in one process, by the keys of their requests."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        # Only used by `setdefault` and `pop`, each of which is atomic.
        self._flights: dict[Hashable, _Flight] = {}
        self._patience = patience

    def join(
        self,
        key: Hashable,
        wait: float | None = None,
        check: Callable[[], None] = no_check,
    ) -> CacheEntry | FlightLeader:
        """Wait for the answer of the leader; or become the leader.

        After several leaders that failed, or too long a wait for one, a request becomes
        a leader without followers. Raises UpstreamTimeout after *wait* seconds, if that
        is no longer than the patience; and what *check* raises, which is called during
        the wait.
        """
        patience = self._patience if wait is None else min(wait, self._patience)
        deadline = time.monotonic() + patience
        for _ in range(_MAX_FAILURES):
            own = _Flight()
            flight = self._flights.setdefault(key, own)
            if flight is own:
                return FlightLeader(partial(self._finish, key, own))
            if not flight.wait(deadline - time.monotonic(), check):
                # The caller's own limit was the shorter one: a call of its own would
                # come too late. If only our patience ended, it has time left for one.
                if wait is not None and wait <= self._patience:
                    raise UpstreamTimeout(
                        "An identical request that is under way has no answer yet.",
                        status=408,
                    )
                return FlightLeader()
            if flight.entry is not None:
                return flight.entry
            # That leader failed: join again, perhaps as the next leader.
        # Leaders keep failing. One after the other, each waiter would fail as late as
        # all before it together; on its own it fails in the time of one call.
        return FlightLeader()

    def _finish(self, key: Hashable, flight: _Flight, entry: CacheEntry | None) -> None:
        # Removed first: a request that joins now leads a flight of its own, and those
        # that have joined this one get its entry.
        self._flights.pop(key, None)
        flight.end(entry)
