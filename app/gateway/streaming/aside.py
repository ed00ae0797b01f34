"""Works something out in a thread of its own, while somebody else can speak."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Result(Generic[T]):
    value: T | None = None
    error: BaseException | None = None


class Aside(Generic[T]):
    """What *call* comes to. *discard* gets it, if nobody wants it any more."""

    def __init__(
        self, call: Callable[[], T], discard: Callable[[T], None] = lambda value: None
    ) -> None:
        self._call, self._discard = call, discard
        self._results: SimpleQueue[_Result[T]] = SimpleQueue()
        self._lock = threading.Lock()
        self._abandoned = False

    def start(self) -> None:
        threading.Thread(target=self._work, name="aside", daemon=True).start()

    def wait(self, seconds: float) -> T | None:
        """The value, once; None if it is not there within so many *seconds*.

        Raises what the call does.
        """
        try:
            result = self._results.get(timeout=seconds)
        except Empty:
            return None
        try:
            if result.error is not None:
                raise result.error
            return result.value
        finally:
            # The error's traceback leads to this frame: they would hold each other.
            del result

    def abandon(self) -> None:
        """Want it no more. The thread ends when its call lets it."""
        with self._lock:
            self._abandoned = True
        while not self._results.empty():
            self._let_go(self._results.get())

    def _work(self) -> None:
        result = self._result()
        with self._lock:
            if not self._abandoned:
                self._results.put(result)
                return
        self._let_go(result)

    def _result(self) -> _Result[T]:
        try:
            return _Result(self._call())
        except BaseException as e:  # noqa: B036 - raised where it is waited for
            return _Result(error=e)

    def _let_go(self, result: _Result[T]) -> None:
        if result.value is not None:
            self._discard(result.value)
