"""Takes to Redis what no request has to wait for."""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .per_process import PerProcess
from .redis_store import RedisClient, RedisScriptCall, RedisUnavailable

logger = logging.getLogger("lastword")

# Parcels that wait for Redis to come back, and how many go at a time.
_OWED = 10_000
_BATCH = 200

# Seconds between two tries while Redis is away, and those that the last ones may take.
_PAUSE = 0.2
_LAST = 2.0


@dataclass(frozen=True, slots=True)
class QueuedCommand:
    """A call that nobody waits for; *heard* is told the answer.

    It is sent until there is one. With *lost* it is sent once, and that is called if
    there is none. Both are called by the courier's thread.
    """

    call: RedisScriptCall
    heard: Callable[[Any], None] = lambda answer: None
    lost: Callable[[], None] | None = None


class _Desk:
    """What waits in one process, and the thread that takes it away."""

    def __init__(self) -> None:
        self.waiting: deque[QueuedCommand] = deque(maxlen=_OWED)
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        # When the thread gives up, by the monotonic clock; None while it is open.
        self.ends: float | None = None

    def batch(self) -> list[QueuedCommand]:
        """What is to be sent, as soon as there is something; nothing at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.ends is not None)
            if self._is_over():
                self.thread = None
                return []
            count = min(_BATCH, len(self.waiting))
            return [self.waiting.popleft() for _ in range(count)]

    def _is_over(self) -> bool:
        late = self.ends is not None and time.monotonic() >= self.ends
        return late or not self.waiting

    def put_back(self, parcels: Sequence[QueuedCommand]) -> None:
        """Have *parcels* wait before the others; too many push out the oldest."""
        with self.changed:
            self.waiting = deque([*parcels, *self.waiting], maxlen=_OWED)


class BackgroundWriter:
    """Sends what it is given over *link* at once, in that order and many in one go.

    It is a thread of this process, which begins with the first parcel.
    """

    def __init__(self, link: RedisClient) -> None:
        self._link = link
        self._desks = PerProcess(_Desk)

    def put(self, parcel: QueuedCommand) -> None:
        """Have *parcel* sent. Never waits for Redis."""
        desk = self._desks.get()
        with desk.changed:
            desk.waiting.append(parcel)
            if desk.thread is None:
                self._start(desk)
            desk.changed.notify()

    def _start(self, desk: _Desk) -> None:
        desk.thread = threading.Thread(
            target=self._work, args=(desk,), name="courier", daemon=True
        )
        desk.thread.start()
        atexit.register(self.close)

    def _work(self, desk: _Desk) -> None:
        while batch := desk.batch():
            try:
                self._send(desk, batch)
            except Exception:
                logger.exception("what was to be sent to Redis is lost")

    def _send(self, desk: _Desk, batch: Sequence[QueuedCommand]) -> None:
        try:
            answers = self._link.run_all([parcel.call for parcel in batch])
        except RedisUnavailable:
            desk.put_back([parcel for parcel in batch if parcel.lost is None])
            _give_up(batch)
            time.sleep(_PAUSE)
        else:
            for parcel, answer in zip(batch, answers, strict=True):
                parcel.heard(answer)

    def close(self) -> None:
        """Send what waits, for seconds at most, and end. It may begin again."""
        desk = self._desks.get()
        with desk.changed:
            desk.ends = time.monotonic() + _LAST
            thread = desk.thread
            desk.changed.notify()
        if thread and thread is not threading.current_thread():
            thread.join(_LAST + 1)
        _clear(desk)
        atexit.unregister(self.close)


def _give_up(batch: Sequence[QueuedCommand]) -> None:
    for parcel in batch:
        if parcel.lost:
            parcel.lost()


def _clear(desk: _Desk) -> None:
    with desk.changed:
        desk.ends = None
        left = len(desk.waiting)
        desk.waiting.clear()
    if left:
        logger.warning("Redis is away: %d changes are lost", left)
