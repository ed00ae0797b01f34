"""Ends a request before its time, from any thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...errors import Cancelled, GatewayError, release

# Breaks off what is under way. It must not wait.
Hook = Callable[[], None]


class Cancellation:
    """Whether a request is to end, and why. One for each."""

    def __init__(self) -> None:
        self._event: threading.Event | None = None
        self._lock = threading.Lock()
        self._hooks: list[Hook] = []
        self.reason: GatewayError | None = None

    def cancel(self, reason: GatewayError) -> None:
        """End it for this *reason*, if it does not end for another one already."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            hooks, self._hooks = self._hooks, []
        if self._event is not None:
            self._event.set()
        for hook in hooks:
            hook()

    def check(self) -> None:
        """Raise Cancelled if it is to end."""
        if self.reason is not None:
            raise Cancelled(self.reason)

    def wait(self, seconds: float) -> None:
        """Sleep, and raise Cancelled as soon as it is to end."""
        # Few requests ever sleep, and an event costs more than all else in here.
        with self._lock:
            self.check()
            self._event = self._event or threading.Event()
        self._event.wait(seconds)
        self.check()

    def add(self, hook: Hook) -> None:
        """Have *hook* called when it is to end; at once, if that was before."""
        with self._lock:
            if self.reason is None:
                self._hooks.append(hook)
                return
        hook()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise Cancelled in place of all that fails within because of it."""
        try:
            yield
        except Exception as e:
            if self.reason is not None and not isinstance(e, Cancelled):
                release(e)
                raise Cancelled(self.reason) from None
            raise
