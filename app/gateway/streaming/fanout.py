"""Several upstream calls for one request, side by side.

Threads, which gevent turns into greenlets. At most *limit* run at a time; the rest
start as soon as others have ended.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from queue import Empty, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

# Items that may wait for a slow reader before their producers have to wait, too. Of a
# stream, one item is all that one block of its body holds.
_QUEUE_SIZE = 64


class EndOfProducer:
    """Stands for the end of one producer."""


END = EndOfProducer()


class Fanout(Generic[T]):
    """What *producers* yield, each item with the number of its producer, as it comes.

    The first exception of any of them ends it all, and is raised. Close it in any case.
    """

    def __init__(
        self, producers: Sequence[Callable[[], Iterator[T]]], limit: int
    ) -> None:
        self._producers = producers
        self._not_started = iter(range(len(producers)))
        self._running = len(producers)
        self._lock = threading.Lock()
        self._queue: Queue[tuple[int, T | EndOfProducer | BaseException]]
        threads = min(limit, len(producers))
        # Room for an item of each thread: so `close` can let all of them go.
        self._queue = Queue(max(_QUEUE_SIZE, threads))
        self._failure: BaseException | None = None
        self._stopped = threading.Event()
        for _ in range(threads):
            threading.Thread(target=self._work, name="fanout", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether all producers have ended, and all they yielded was received."""
        return self._running == 0

    def receive(self, wake_at: float = inf) -> list[tuple[int, T | EndOfProducer]]:
        """The items that came next, all that are here; END after a producer's last.

        None of them if nothing came until *wake_at*, on the monotonic clock.
        """
        received: list[tuple[int, T | EndOfProducer]] = []
        try:
            while self._failure is None and len(received) < _QUEUE_SIZE:
                # Waits for the first item only.
                timeout = 0.0 if received else wake_at - time.monotonic()
                number, item = self._queue.get(
                    block=timeout > 0, timeout=None if timeout == inf else timeout
                )
                if isinstance(item, BaseException):
                    self._failure = item
                else:
                    received.append((number, item))
                    self._running -= isinstance(item, EndOfProducer)
                    if self.done:
                        break
        except Empty:
            pass
        # What came before a failure is received before it.
        if self._failure is not None and not received:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                # Its traceback leads to this frame: they would hold each other.
                del failure
        return received

    def close(self) -> None:
        """Start nothing more, and let those that wait for room in the queue go."""
        self._stopped.set()
        # Each thread that waits for room puts in the one item that it has, and nothing
        # more behind `_stopped`: an empty queue has room for all of these.
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass

    def _work(self) -> None:
        while True:
            # An iterator must not be advanced by two threads at once.
            with self._lock:
                stopped = self._stopped.is_set()
                number = None if stopped else next(self._not_started, None)
            if number is None:
                return
            try:
                # To leave this loop closes the generator, and so breaks its call off:
                # nothing else refers to it.
                for item in self._producers[number]():
                    self._put(number, item)
                    if self._stopped.is_set():
                        return
                self._put(number, END)
            except BaseException as e:  # noqa: B036 - raised where items are received
                self._put(number, e)
                return

    def _put(self, number: int, item: T | EndOfProducer | BaseException) -> None:
        if not self._stopped.is_set():
            self._queue.put((number, item))


def gather(calls: Sequence[Callable[[], T]], limit: int) -> list[T]:
    """The results of *calls*, in their order. The first failure is raised at once."""

    def producer(call: Callable[[], T]) -> Callable[[], Iterator[T]]:
        def produce() -> Iterator[T]:
            yield call()

        return produce

    results: dict[int, T] = {}
    fanout = Fanout([producer(call) for call in calls], limit)
    try:
        while not fanout.done:
            for number, result in fanout.receive():
                if not isinstance(result, EndOfProducer):
                    results[number] = result
    finally:
        fanout.close()
    return [results[number] for number in range(len(calls))]
