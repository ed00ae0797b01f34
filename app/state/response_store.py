"""Cached responses and identical requests in flight, behind one interface."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..core.caching import CacheEntry
from .single_flight import FlightLeader, SingleFlight, no_check


class ResponseBackend(Protocol):
    """A store of cache entries. *now* is in Unix seconds. No method ever raises."""

    def get(self, key: str, now: float) -> CacheEntry | None:
        """The entry under *key*, unless it has expired."""

    def put(self, key: str, entry: CacheEntry, now: float) -> None:
        """Store *entry*, in place of an older one."""

    def close(self) -> None:
        """Close files and connections."""


@dataclass(frozen=True, slots=True)
class ResponseStore:
    """The responses that a process can repeat: the cached ones, and those in flight."""

    cache: ResponseBackend
    flights: SingleFlight = field(default_factory=SingleFlight)
    now: Callable[[], float] = time.time

    def find(
        self,
        key: str,
        max_age: float,
        wait: float | None = None,
        check: Callable[[], None] = no_check,
    ) -> CacheEntry | FlightLeader:
        """The response under *key*, not older than *max_age*; else the role of leader.

        The leader calls `keep` with its response, or `FlightLeader.finish` without one.
        Raises UpstreamTimeout when another request takes longer than *wait* seconds for
        it, and what *check* raises, which is called now and then meanwhile.
        """
        # *max_age* is part of the key: the leader may take an older response from the
        # cache than another request accepts.
        # Joined before the cache is read: a request that read first could miss what a
        # leader stores in between, and call upstream again.
        joined = self.flights.join((key, max_age), wait, check)
        if isinstance(joined, CacheEntry):
            return joined
        now = self.now()
        entry = self.cache.get(key, now)
        if entry is None or not entry.is_fresh(now, max_age):
            return joined
        # It was cached after all: those who joined meanwhile get it, too.
        joined.finish(entry)
        return entry

    def keep(
        self, key: str, entry: CacheEntry, leader: FlightLeader | None = None
    ) -> None:
        """Cache *entry*, and give it to the requests that wait for *leader*."""
        # In this order: a request that comes between the two finds it in the cache, or
        # joins the flight; in the other order it would find neither.
        try:
            self.cache.put(key, entry, self.now())
        finally:
            if leader:
                leader.finish(entry)
