"""Objects of which each process has its own, also after a fork."""

from collections.abc import Callable
from multiprocessing import current_process
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One object for each process, created by *create* when it is first needed.

    A child keeps its parent's object, untouched: to close an inherited connection would
    break the parent's own.
    """

    def __init__(self, create: Callable[[], T]) -> None:
        self._create = create
        self._by_pid: dict[int | None, T] = {}

    def get(self) -> T:
        # Read each time: nothing runs in the child of an os.fork to reset a value.
        pid = current_process().pid
        try:
            return self._by_pid[pid]
        except KeyError:
            # Two threads may both create one; `setdefault` is atomic and keeps the
            # first. So *create* must not have side effects.
            return self._by_pid.setdefault(pid, self._create())

    def pop(self) -> T | None:
        """Remove this process's object; None if it has none."""
        return self._by_pid.pop(current_process().pid, None)
