"""Several upstream calls for one request, side by side.

Threads, which gevent turns into greenlets. At most *limit* run at a time; the rest
follow as places come free.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from queue import Empty, Queue
from typing import Generic, TypeVar

from . import pulse

T = TypeVar("T")

# Pieces that may wait for a slow reader before their sources have to wait, too.
_BUFFER = 64


class _End:
    """Stands for the end of one source."""


class Fanout(Generic[T]):
    """The items of *sources*, each with the number of its source, as they come.

    The first exception of any source ends it all, and is raised. Close it in any case.
    """

    def __init__(
        self, sources: Sequence[Callable[[], Iterator[T]]], limit: int
    ) -> None:
        self._sources = sources
        self._waiting = iter(range(len(sources)))
        self._running = len(sources)
        self._lock = threading.Lock()
        self._queue: Queue[tuple[int, T | _End | BaseException]] = Queue(_BUFFER)
        self._stopped = threading.Event()
        for _ in range(min(limit, len(sources))):
            threading.Thread(target=self._work, name="fanout", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[int, T]]:
        while self._running:
            number, item = self._get()
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    # Its traceback leads to this frame: they would hold each other.
                    del item
            if isinstance(item, _End):
                self._running -= 1
            else:
                yield number, item

    def _get(self) -> tuple[int, T | _End | BaseException]:
        """The next item; the caller hears of us meanwhile."""
        while True:
            try:
                return self._queue.get_nowait()
            except Empty:
                pass
            seconds = pulse.wait() - time.monotonic()
            try:
                return self._queue.get(timeout=None if seconds == inf else seconds)
            except Empty:
                pass

    def close(self) -> None:
        """Start nothing more, and let those that wait for a place in the queue go."""
        self._stopped.set()
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass

    def _work(self) -> None:
        while (number := self._next()) is not None:
            try:
                for item in self._sources[number]():
                    self._put(number, item)
                    if self._stopped.is_set():
                        return
                self._put(number, _End())
            except BaseException as e:  # noqa: B036 - raised where the items are read
                self._put(number, e)
                return

    def _next(self) -> int | None:
        with self._lock:
            return None if self._stopped.is_set() else next(self._waiting, None)

    def _put(self, number: int, item: T | _End | BaseException) -> None:
        if not self._stopped.is_set():
            self._queue.put((number, item))


def gather(sources: Sequence[Callable[[], T]], limit: int) -> list[T]:
    """The results of *sources*, in their order. The first failure is raised at once."""
    fan = Fanout([_as_iterator(source) for source in sources], limit)
    try:
        results = dict(fan)
    finally:
        fan.close()
    return [results[number] for number in range(len(sources))]


def _as_iterator(source: Callable[[], T]) -> Callable[[], Iterator[T]]:
    def once() -> Iterator[T]:
        yield source()

    return once
