"""Takes what became of requests, and has it looked at when the request is over."""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from ..gateway.request_record import RequestRecord

logger = logging.getLogger("lastword")

# Requests that are looked at before somebody else has a turn.
_AT_ONCE = 50

# Requests that may wait.
_MOST = 100_000


class Observer(Protocol):
    """Who wants to know of requests."""

    def note(self, finished: RequestRecord) -> None:
        """Take one more into account."""

    def publish(self) -> None:
        """Show what was noted; nothing else waits just now."""

    def close(self) -> None:
        """Let go of everything: no more will come."""


class BackgroundDispatcher:
    """Tells *observers* of requests, in a thread, every *every* seconds.

    Whoever answers a request only appends to a queue. What comes too fast is *lost*.
    One for each process.
    """

    def __init__(self, observers: Sequence[Observer], every: float = 1.0) -> None:
        self._observers, self._every = observers, every
        self._waiting: deque[RequestRecord] = deque()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = 0

    def start(self) -> None:
        """Begin. Nothing is done if it has begun."""
        if self._thread is None:
            with self._lock:
                self._thread = self._thread or self._begun()

    def _begun(self) -> threading.Thread:
        atexit.register(self.close)
        thread = threading.Thread(target=self._work, name="observers", daemon=True)
        thread.start()
        return thread

    def finished(self, finished: RequestRecord) -> None:
        """Have the observers told soon: a hook of the gateway's."""
        if len(self._waiting) < _MOST:
            self._waiting.append(finished)
        else:
            self.lost += 1

    def flush(self) -> None:
        """Tell all that waits. An observer that fails misses that, and no more."""
        with self._lock:
            # Others come meanwhile, and wait for the next time.
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for observer in self._observers:
                try:
                    self._tell(observer, waiting)
                except Exception:
                    logger.exception("requests are not observed")

    @staticmethod
    def _tell(observer: Observer, waiting: Iterable[RequestRecord]) -> None:
        for number, finished in enumerate(waiting, 1):
            observer.note(finished)
            if number % _AT_ONCE == 0:
                time.sleep(0)
        observer.publish()

    def close(self) -> None:
        """Tell what waits, and end."""
        atexit.unregister(self.close)
        self._stop.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(5)
        self.flush()
        for observer in self._observers:
            try:
                observer.close()
            except Exception:
                logger.exception("an observer does not end")

    def _work(self) -> None:
        while not self._stop.wait(self._every):
            self.flush()
