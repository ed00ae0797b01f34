"""The retry policy: when the same target is called again, and after how long.

Source: the retries of the Portkey gateway, https://portkey.ai/docs/product/ai-gateway/
automatic-retries, bounded in number and time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from ..errors import GatewayError, UpstreamError, UpstreamUnreachable

# Source: the list above; 529 is what Anthropic answers when it is overloaded.
RETRY_STATUS_CODES = (429, 500, 502, 503, 504, 529)

MOST_ATTEMPTS = 5
# Tries of one request in total, after which no target is tried again.
MOST_TRIES = 100
# Seconds: the longest backoff, and all waits for one target together.
LONGEST_WAIT = 10.0
BUDGET = 60.0

# Preferred over retry-after, which is in seconds or a date. The second is Azure's.
_MILLISECOND_HEADERS = ("retry-after-ms", "x-ms-retry-after-ms")

# Waiting does not help against these. Source: OpenAI's list of error codes.
_PERMANENT = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a target is retried, and after which failures."""

    attempts: int = 0
    on_status_codes: tuple[int, ...] = RETRY_STATUS_CODES
    use_retry_after: bool = False

    def applies(self, error: GatewayError) -> bool:
        """Whether *error* may be retried, if attempts are left.

        A lost connection may, whatever the list of statuses says.
        """
        if not isinstance(error, UpstreamError) or error.code in _PERMANENT:
            return False
        is_unreachable = isinstance(error, UpstreamUnreachable)
        return is_unreachable or error.status in self.on_status_codes

    def delay(
        self, retry: int, error: GatewayError, *, now: float, jitter: float, left: float
    ) -> float | None:
        """Seconds to wait before the *retry*-th retry, from 0 on; None for no retry.

        *now* is in Unix seconds; *jitter*, between 0 and 1, the share of the longest
        wait that is taken; *left* the seconds that all waits may still take.
        """
        if retry >= min(self.attempts, MOST_ATTEMPTS) or not self.applies(error):
            return None
        wait = None
        if self.use_retry_after and error.status == 429:
            wait = _retry_after(error.headers, now)
        if wait is None:
            wait = jitter * min(2.0**retry, LONGEST_WAIT)
        return wait if wait <= left else None


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The wait that upstream asks for, in seconds; None if it asks for none."""
    headers = {name.lower(): value for name, value in headers.items()}
    for name in _MILLISECOND_HEADERS:
        if name in headers:
            return _positive_number(headers[name], 1000)
    if "retry-after" not in headers:
        return None
    value = headers["retry-after"]
    seconds = _positive_number(value, 1)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return date.timestamp() - now if date.timestamp() > now else None


def _positive_number(value: str, divisor: int) -> float | None:
    try:
        number = float(value) / divisor
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None
