"""What became of requests, as values, and those who want to know.

A hook is called once for each request, when its last byte is on its way, when it has
failed, or when its caller has left. It must neither fail nor take its time.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from ..core.completion import Usage
from ..core.counters import LimitReached
from ..errors import GatewayError
from .retries import Trace

logger = logging.getLogger("lastword")


class End(StrEnum):
    """How a request ended."""

    WHOLE = "whole"
    FAILED = "failed"
    CUT = "cut"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Failure:
    """What observers read of an error: its kind, status and code; the rule of a limit.

    The error itself would keep alive all that its traceback leads to.
    """

    kind: str
    status: int
    code: str | None = None
    rule: str | None = None

    @classmethod
    def of(cls, error: GatewayError) -> "Failure":
        rule = error.rule if isinstance(error, LimitReached) else None
        return cls(type(error).__name__, error.status, error.code, rule)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, when it is over.

    *status* is what the caller saw first; *began* is in Unix seconds, *first* and
    *took* are seconds from then to the first event and to the end, *gap* the longest
    that its caller waited between two events. *usage* is what was counted or estimated
    until then, *cost* that in US dollars, if the price is known. *via* is how the last
    target came to the text, *dropped* what it was not told; *error* is why there is
    none, or no more. Between events there were *gaps*, *gap_seconds* long in all.
    """

    trace: Trace
    end: End
    status: int
    began: float
    took: float
    first: float | None = None
    model: str = ""
    stream: bool = False
    usage: Usage = Usage()
    cost: Decimal | None = None
    via: str = ""
    error: Failure | None = None
    gap: float | None = None
    gaps: int = 0
    gap_seconds: float = 0.0
    dropped: Sequence[str] = ()


Hook = Callable[[RequestRecord], None]


def notify(hooks: Sequence[Hook], finished: RequestRecord) -> None:
    """Tell everybody. Whose telling fails does not spoil the request."""
    for hook in hooks:
        try:
            hook(finished)
        except Exception:
            logger.exception("a hook failed")
