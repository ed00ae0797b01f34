"""What a process has for itself, though it was forked."""

from collections.abc import Callable
from multiprocessing import current_process
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One of what *make* makes for each process, made when it is first needed.

    That of a parent stays with its child, untouched: to close it would spoil the
    parent's own.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._all: dict[int | None, T] = {}

    def get(self) -> T:
        pid = current_process().pid
        try:
            return self._all[pid]
        except KeyError:
            return self._all.setdefault(pid, self._make())

    def pop(self) -> T | None:
        """That of this process, which may make another one; None if it has none."""
        return self._all.pop(current_process().pid, None)
