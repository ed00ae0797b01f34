"""Fetches what comes late, while somebody else can do something meanwhile."""

import threading
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")

# Items that may wait for a slow reader before their source has to wait, too.
_BUFFER = 64

# Items that are taken at a time, if they are there.
_TAKEN = 16


class _End:
    """Stands for the end of the items; that of *error*, if there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Aside(Generic[T]):
    """The items of a generator, which a thread of its own goes through.

    None, in place of an item, says that none has come for *every* seconds. Raises what
    the generator does. Close it in any case: *discard* gets the items that nobody took.
    """

    def __init__(
        self,
        items: Generator[T, None, None],
        every: float,
        discard: Callable[[T], None] = lambda item: None,
    ) -> None:
        self._items, self._every, self._discard = items, every, discard
        self._queue: SimpleQueue[T | _End] = SimpleQueue()
        self._room = threading.Semaphore(_BUFFER)
        self._lock = threading.Lock()
        self._closed = False
        self._end: _End | None = None

    def start(self) -> None:
        threading.Thread(target=self._fetch, name="aside", daemon=True).start()

    def __iter__(self) -> "Aside[T]":
        return self

    def __next__(self) -> T | None:
        return self.some(1)[0]

    def some(self, most: int = _TAKEN) -> list[T | None]:
        """All that has come by now, *most* items; one at least, or None."""
        if self._end:
            self._raise(self._end)
        try:
            item = self._queue.get(timeout=self._every)
        except Empty:
            return [None]
        items: list[T | None] = []
        while not isinstance(item, _End):
            self._room.release()
            items.append(item)
            if len(items) == most or self._queue.empty():
                return items
            item = self._queue.get()
        self._end = item
        return items or self._raise(item)

    @staticmethod
    def _raise(end: _End) -> NoReturn:
        if end.error is not None:
            raise end.error
        raise StopIteration

    def close(self) -> None:
        """Take no more. The thread ends when its generator lets it."""
        with self._lock:
            self._closed = True
        self._room.release()
        while not self._queue.empty():
            item = self._queue.get()
            if not isinstance(item, _End):
                self._discard(item)

    def _fetch(self) -> None:
        end = _End()
        try:
            for item in self._items:
                if not self._put(item):
                    self._discard(item)
                    break
        except BaseException as e:  # noqa: B036 - raised where the items are read
            end = _End(e)
        finally:
            self._items.close()
            self._put(end)

    def _put(self, item: T | _End) -> bool:
        """Whether somebody may still take *item*."""
        self._room.acquire()
        with self._lock:
            if not self._closed:
                self._queue.put(item)
            return not self._closed
