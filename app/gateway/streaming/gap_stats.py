"""How the events of a stream follow one another: what metrics say of its pace."""

from math import inf


class GapStats:
    """Counts the gaps between events. Runs for each block of each stream."""

    __slots__ = ("_events", "_longest", "_first", "_last")

    def __init__(self) -> None:
        self._events = 0
        self._longest = 0.0
        self._first = self._last = inf

    def add(self, now: float, events: int = 1) -> None:
        """So many *events* have come together, *now* by the monotonic clock."""
        # Before the first event that is minus infinity.
        gap = now - self._last
        # Events that came in one block have no gap between them.
        if gap > self._longest:
            self._longest = gap
        elif not self._events:
            self._first = now
        self._last = now
        self._events += events

    @property
    def gaps(self) -> int:
        """How many gaps there were between two events."""
        return max(self._events - 1, 0)

    @property
    def longest(self) -> float | None:
        """Seconds of the longest gap between two events; None without any."""
        return self._longest if self.gaps > 0 else None

    @property
    def seconds(self) -> float:
        """All gaps together: from the first event to the last."""
        return self._last - self._first if self.gaps > 0 else 0.0
