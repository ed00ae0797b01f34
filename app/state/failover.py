"""Counters in Redis, and those of the machine while Redis is unavailable.

A request waits for one round trip, which reserves. Its adjustments are sent in the
background, unless one frees the slot of a parallel request: the caller may send the
next request as soon as it has the response, and that must find the slot free.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..core.counters import CounterAdjustment, CounterEntry
from .background_writer import BackgroundWriter
from .meter import Adjustments, Counters, ReserveResult, reservation_id
from .redis_store import RedisCounters, RedisUnavailable


class FailoverCounters:
    """Counters in Redis; those of *local* while it is unavailable.

    What was reserved in Redis is settled there, as soon as it is available again.
    """

    def __init__(
        self, shared: RedisCounters, local: Counters, writer: BackgroundWriter
    ) -> None:
        self._shared, self._local, self._writer = shared, local, writer

    def reserve(
        self, request_id: str, entries: Sequence[CounterEntry], now: float
    ) -> ReserveResult:
        try:
            result = self._shared.reserve(request_id, entries, now)
            return replace(result, counters=self)
        except RedisUnavailable as e:
            if e.maybe_executed:
                # Redis may have added the entries although it did not answer: they are
                # removed later. If it has not, the script finds no reservation of this
                # id and changes nothing.
                undo: dict[str, list[CounterAdjustment]] = {}
                for entry in entries:
                    adjustment = CounterAdjustment(
                        entry.counter, entry.part, entry.expires, -entry.amount
                    )
                    id = reservation_id(request_id, entry.holder)
                    undo.setdefault(id, []).append(adjustment)
                self._enqueue(undo, now)
            # The result names the local counters, so that this request is settled there
            # even if Redis is back by then.
            return self._local.reserve(request_id, entries, now)

    def adjust(self, adjustments: Adjustments, now: float) -> None:
        if not any(each.urgent for own in adjustments.values() for each in own):
            self._enqueue(adjustments, now)
            return
        try:
            self._shared.adjust(adjustments, now)
        except RedisUnavailable:
            # Redis may have executed them. To send them again does no harm, as the
            # script adjusts each reservation once.
            self._enqueue(adjustments, now)

    def _enqueue(self, adjustments: Adjustments, now: float) -> None:
        for id, own in adjustments.items():
            self._writer.put(self._shared.adjust_call(id, own, now))

    def close(self) -> None:
        self._writer.close()
        self._shared.close()
        self._local.close()
