"""The embedded engine, as the gateway's workers see it.

The gunicorn master runs it (app/engine.py); a worker only knows where it listens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..errors import EngineUnavailable, UpstreamError, UpstreamUnreachable
from ..providers import Call
from ..settings import Settings
from .deadline import Deadline
from .upstream import Upstream

T = TypeVar("T")

INSTALL = "make serve (or: pip install 'lastword[local]')"

# Seconds between two looks at the engine, and for one look.
_POLL = 0.1
_POLL_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the engine is, if it is: *state* says why not."""

    upstream: Upstream
    state: Literal["on", "off", "missing"]
    url: str = ""
    key: str = ""

    @classmethod
    def of(cls, settings: Settings, upstream: Upstream) -> "Engine":
        """The engine that the settings turn on; it is missing if nobody started it."""
        if not settings.engine:
            return cls(upstream, "off")
        url, key = settings.engine_url, settings.engine_key
        return cls(upstream, "on" if url else "missing", url, key)

    def required(self) -> None:
        """Raise EngineUnavailable unless the engine runs, or will in a moment."""
        if self.state == "off":
            raise EngineUnavailable(
                "The embedded engine is off. GATEWAY_ENGINE=1 turns it on, as "
                "`make serve` does.",
                code="engine_off",
            )
        if self.state == "missing":
            raise EngineUnavailable(
                f"The embedded engine is not installed. To install it: {INSTALL}.",
                code="engine_not_installed",
            )

    def loaded(self) -> bool:
        """Whether it would answer now."""
        call = Call("GET", self.url + "/health", {})
        try:
            reply = self.upstream.send(call, Deadline.after(_POLL_LIMIT))
        except UpstreamError:
            return False
        reply.close()
        return reply.status == 200

    def patiently(self, send: Callable[[], T], deadline: Deadline) -> T:
        """What *send* returns, sent again when the engine has come up (again).

        A call that met the engine's end, rather than its absence, is sent again once:
        it may be what ended it. Raises UpstreamTimeout at the deadline.
        """
        deaths = 0
        while True:
            try:
                return send()
            except UpstreamError as e:
                deaths += type(e) is UpstreamUnreachable
                if deaths > 1 or not _is_absent(e):
                    raise
            self._wait(deadline)

    def _wait(self, deadline: Deadline) -> None:
        while not self.loaded():
            if deadline.passed:
                raise deadline.missed()
            time.sleep(_POLL)


def _is_absent(error: UpstreamError) -> bool:
    """Whether *error* says that the engine is not there, or not yet."""
    loading = error.status == 503 and error.type == "unavailable_error"
    return loading or isinstance(error, UpstreamUnreachable)
