"""How long an upstream may take."""

import time
from dataclasses import dataclass

from ..errors import UpstreamTimeout


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds until a connection, until an answer begins, between two pieces of it."""

    connect: float
    first_byte: float
    idle: float


@dataclass(frozen=True, slots=True)
class Deadline:
    """When an answer has to have begun. *own* if the caller set it, not the gateway.

    *at* is a time of the monotonic clock; *seconds* is how long it was, for messages.
    """

    at: float
    seconds: float
    own: bool

    @classmethod
    def after(cls, limit: float, request_timeout: float | None = None) -> "Deadline":
        """In *limit* seconds, or earlier if the caller says so."""
        # Equal limits count as the gateway's.
        own = request_timeout is not None and request_timeout < limit
        seconds = request_timeout if own and request_timeout else limit
        return cls(time.monotonic() + seconds, seconds, own)

    @property
    def left(self) -> float:
        """Seconds left, never quite 0: a socket would take that for "do not wait"."""
        return max(self.at - time.monotonic(), 0.001)

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at

    def missed(self) -> UpstreamTimeout:
        """The error to raise; the status tells whose limit it was."""
        # Text and status are those of the Portkey gateway, which callers may look for.
        if self.own:
            return UpstreamTimeout(
                "Request exceeded the timeout sent in the request: "
                f"{round(self.seconds * 1000)}ms",
                status=408,
            )
        return UpstreamTimeout(
            f"upstream did not begin to answer within {self.seconds:g} s",
            code="timeout",
        )
