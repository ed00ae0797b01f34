"""Thousands of streams at once: who loses some, and what the others wait for.

Each contestant is alone meanwhile, on all processors, with two workers if it has such.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .cases import Bout, Figures
from .contestants import Contestant, Places
from .load import streams
from .looking import looked_at
from .process import until
from .upstream import Pace, streamer

# Seconds in which they come, so that each has begun long before the first one ends.
_RAMP = 10.0


@dataclass(frozen=True)
class Many:
    """So many *streams*, each at its *pace*."""

    streams: int = 2000
    pace: Pace = Pace(events=120, every=0.5)

    @property
    def name(self) -> str:
        return f"{self.streams} streams of 2 events a second"

    def measure(self, contestant: Contestant, places: Places) -> Figures:
        """What was lost or cut, and how late events were; of its own page the longest
        answer meanwhile, and the most memory.
        """
        with streamer(self.pace) as port:
            places = replace(places, stream=port)
            with contestant.start(places, 2) as running:
                bout = Bout(contestant, running, places, 0)
                until(bout.is_ready, contestant.patience)
                return self._asked(bout)

    def _asked(self, bout: Bout) -> Figures:
        running = bout.running
        assert running.pid is not None
        headers = bout.contestant.headers(bout.places.stream)
        body = bout.body("stream", stream=True)
        with looked_at(running.page, running.pid) as seen:
            found = streams(bout.url("stream"), headers, body, self.streams, _RAMP)
        return {
            "lost": self.streams - found.whole,
            "late p99": self._late(found.gaps),
            "page": seen.slowest,
            "most": seen.memory,
        }

    def _late(self, gaps: Sequence[float]) -> float:
        """Of a hundred events, the seconds that the latest but one came too late."""
        gap = statistics.quantiles(gaps, n=100)[98] if gaps else 0.0
        return max(gap - self.pace.every, 0.0)
