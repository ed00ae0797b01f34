"""The record of a finished request, and the hooks that receive it.

The recorder builds one `RequestRecord` when the last byte of an answer is on its way,
when the request has failed, or when its caller has left. The log line, the ledger row,
the metrics and the spans are each a table of fields over this record; whatever more
than one of them needs is a property here. A hook must neither fail nor block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum

from ..core.completion import Usage
from ..core.counters import LimitReached
from ..core.redaction import without_likely_keys
from ..errors import GatewayError
from ..upstream.target_secrets import redactor
from .retries import Attempt, Trace

# Characters of a name that callers or providers can make up: a column of the ledger is
# as long, and no line of the log gets out of hand.
MAX_TEXT = 200

# Characters of an error code, as long as its column in the ledger.
MAX_ERROR_CODE = 80

# Attempts of a request that are written down, the last ones: a config may have
# thousands of targets.
MAX_ATTEMPTS = 32

# The largest count written down. Some providers report absurd numbers, and databases
# and OpenTelemetry take 64 bits.
MAX_COUNT = 2**62


class End(StrEnum):
    """How a request ended."""

    WHOLE = "whole"
    FAILED = "failed"
    CUT = "cut"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as observers read it: class name, status, code, the rule of a limit.

    The exception itself would keep alive all frames of its traceback.
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
    """One finished request.

    *status* is the one that the caller saw; *began* is in Unix seconds, *first* and
    *took* are the seconds from then to the first event and to the end. *usage* is what
    was counted or estimated, *cost* its price in US dollars, if that is known. *via* is
    the completion mode of the last target, *dropped* names the parameters that it did
    not get. *error* says why there is no answer, or only a part of one. A stream had
    *gaps* between its events, *gap_seconds* in all and *gap* the longest.
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

    # The last target

    @property
    def provider(self) -> str | None:
        target = self.trace.target
        return target.provider if target else None

    @property
    def virtual_key(self) -> str | None:
        target = self.trace.target
        return target.virtual_key if target else None

    @property
    def target_path(self) -> str | None:
        """Its path in the config, cut."""
        target = self.trace.target
        return target.path[:MAX_TEXT] if target else None

    @property
    def alias(self) -> str | None:
        """The model that the caller named, cut, if an alias replaced it."""
        target = self.trace.target
        return (target.alias[:MAX_TEXT] or None) if target else None

    # The request

    @property
    def ended(self) -> float:
        """Unix seconds."""
        return self.began + self.took

    @property
    def model_name(self) -> str:
        """The model, cut."""
        return self.model[:MAX_TEXT]

    @property
    def trace_id(self) -> str:
        """The request's trace id, cut: a caller may choose it."""
        return self.trace.id[:MAX_TEXT]

    @property
    def cache(self) -> str:
        """The cache status in lower case."""
        return self.trace.cache.value.lower()

    @property
    def attempts(self) -> Sequence[Attempt]:
        """The last attempts, at most MAX_ATTEMPTS."""
        return self.trace.attempts[-MAX_ATTEMPTS:]

    @property
    def prompt_tokens(self) -> int:
        """All prompt tokens that are paid for, those of repeated calls included."""
        return self.usage.paid_prompt_tokens

    @property
    def completion_tokens(self) -> int:
        return self.usage.completion_tokens

    @property
    def cost_micros(self) -> int | None:
        """The cost in millionths of a dollar, rounded up."""
        if self.cost is None:
            return None
        return int((self.cost * 10**6).to_integral_value(ROUND_CEILING))

    @property
    def error_code(self) -> str | None:
        """The error's code, cut: a provider may have chosen it, of any JSON type."""
        if self.error is None or self.error.code is None:
            return None
        return str(self.error.code)[:MAX_TEXT]

    def redacted_prompt(self) -> str:
        """The first MAX_TEXT characters of the prompt, without anything like a key.

        More than that is redacted, since redaction may shorten the text; but not all
        of a prompt, which may be a megabyte.
        """
        target = self.trace.target
        if target is None or target.request is None:
            return ""
        text = str(target.request.prompt)[: 10 * MAX_TEXT]
        return without_likely_keys(redactor(target).text(text))[:MAX_TEXT]


Hook = Callable[[RequestRecord], None]
