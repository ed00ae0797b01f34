"""Thousands of streams at once: how many are lost, and how late events are.

Each contestant runs alone, on all processors, with two workers if it has workers.
"""

import statistics
from dataclasses import dataclass, replace

from .cases import Measurements, Trial
from .contestants import Contestant, Upstreams
from .load import load_streams
from .process import wait_until
from .upstream import EventRate, streamer
from .watcher import watch

# Seconds within which all start. A stream takes a minute, so all are open at once then.
_RAMP = 10.0


@dataclass(frozen=True)
class ManyStreams:
    """So many *streams*, each at this *rate*."""

    streams: int = 2000
    rate: EventRate = EventRate(events=120, every=0.5)

    @property
    def name(self) -> str:
        return f"{self.streams} streams of 2 events a second"

    def measure(self, contestant: Contestant, upstreams: Upstreams) -> Measurements:
        """Streams lost or cut, how late the event at the 99th percentile is, the
        slowest health check meanwhile, and the most memory.
        """
        with streamer(self.rate) as port:
            upstreams = replace(upstreams, stream=port)
            with contestant.start(upstreams, 2) as server:
                assert server.pid is not None
                trial = Trial(contestant, server, upstreams, 0)
                wait_until(trial.is_ready, contestant.patience)
                url, headers = trial.url("stream"), contestant.headers(port)
                body = trial.body("stream", stream=True)
                with watch(server.health_url, server.pid) as server_stats:
                    stats = load_streams(url, headers, body, self.streams, _RAMP)
        # Lateness is what the longest gaps have beyond the upstream's own interval.
        gap = statistics.quantiles(stats.gaps, n=100)[98] if stats.gaps else 0.0
        return {
            "lost": self.streams - stats.whole,
            "late p99": max(gap - self.rate.every, 0.0),
            "page": server_stats.slowest,
            "most": server_stats.memory,
        }
