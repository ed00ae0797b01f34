"""Hands records of finished requests to the observers, in a thread of its own.

The gateway's hook only appends to a queue, so that no request waits for a log line, a
metrics file or a span.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from ..gateway.request_record import RequestRecord

logger = logging.getLogger("lastword")

# Records that are processed before other greenlets get a turn.
_YIELD_EVERY = 50

# Records that may wait. An observer that hangs must not fill the memory.
_MAX_QUEUE = 100_000


class Observer(Protocol):
    """A receiver of the records of finished requests: log, metrics, traces."""

    def note(self, record: RequestRecord) -> None:
        """Add one record to what `publish` shows."""

    def publish(self) -> None:
        """Show the records that were added. Called after each batch."""

    def close(self) -> None:
        """Release everything: no more records will come."""


class BackgroundDispatcher:
    """Passes records to *observers* every *interval* seconds. One for each process.

    *lost* counts the records that came while the queue was full.
    """

    def __init__(self, observers: Sequence[Observer], interval: float = 1.0) -> None:
        self._observers, self._interval = observers, interval
        self._queue: deque[RequestRecord] = deque()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self.is_running = False
        self.lost = 0

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        # Several requests may be the first one.
        with self._lock:
            if not self.is_running:
                atexit.register(self.close)
                self._thread = threading.Thread(
                    target=self._run, name="observers", daemon=True
                )
                self._thread.start()
                self.is_running = True

    def enqueue(self, record: RequestRecord) -> None:
        """Queue *record* for the observers: a hook of the gateway."""
        # Without a lock: appending to a deque is atomic, and the bound may be exceeded
        # by as many records as there are threads.
        if len(self._queue) < _MAX_QUEUE:
            self._queue.append(record)
        else:
            self.lost += 1

    def flush(self) -> None:
        """Pass the queued records on. An observer that fails misses these only."""
        with self._lock:
            # The length is read once: under load the queue might never be empty.
            records = [self._queue.popleft() for _ in range(len(self._queue))]
            for observer in self._observers:
                try:
                    self._dispatch(records, observer)
                except Exception:
                    logger.exception("an observer failed and misses records")

    @staticmethod
    def _dispatch(records: Sequence[RequestRecord], observer: Observer) -> None:
        for number, record in enumerate(records, 1):
            observer.note(record)
            # Under gevent this thread is a greenlet, and streams wait meanwhile.
            if number % _YIELD_EVERY == 0:
                time.sleep(0)
        observer.publish()

    def close(self) -> None:
        """Pass the queued records on, stop the thread and close the observers."""
        atexit.unregister(self.close)
        self._stop.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(5)
        self.flush()
        for observer in self._observers:
            try:
                observer.close()
            except Exception:
                logger.exception("an observer could not be closed")

    # `wait` returns at once when the process ends, where `sleep` would delay it.
    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.flush()
