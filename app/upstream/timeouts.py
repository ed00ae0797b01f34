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
    """When an answer has to have begun.

    *at* is a time of the monotonic clock; *seconds* is how long it was, for messages.
    *set_by_caller* if the caller's own time limit was the shorter one.
    """

    at: float
    seconds: float
    set_by_caller: bool

    @classmethod
    def after(cls, limit: float, request_timeout: float | None = None) -> "Deadline":
        """In *limit* seconds, or earlier if the caller says so."""
        # Equal limits count as the gateway's.
        set_by_caller = request_timeout is not None and request_timeout < limit
        seconds = request_timeout if set_by_caller and request_timeout else limit
        return cls(time.monotonic() + seconds, seconds, set_by_caller)

    @property
    def has_passed(self) -> bool:
        return time.monotonic() >= self.at

    def timeout_error(self) -> UpstreamTimeout:
        """The error to raise; the status tells whose limit it was."""
        # Text and status are those of the Portkey gateway, which callers may look for.
        if self.set_by_caller:
            return UpstreamTimeout(
                "Request exceeded the timeout sent in the request: "
                f"{round(self.seconds * 1000)}ms",
                status=408,
            )
        return UpstreamTimeout(
            f"upstream did not begin to answer within {self.seconds:g} s",
            code="timeout",
        )
