"""When the same target is asked again, and after how long.

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
# Tries of a whole request from which on no target is tried again.
MOST_TRIES = 100
# Seconds: the longest wait of our own choice, and all waits for one target together.
LONGEST_WAIT = 10.0
BUDGET = 60.0

# In milliseconds, in milliseconds; in seconds or as a date.
_IN_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")

# Waiting does not help against these. Source: OpenAI's list of error codes.
_HOPELESS = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a target is asked again, and after which failures."""

    attempts: int = 0
    on_status_codes: tuple[int, ...] = RETRY_STATUS_CODES
    use_retry_after: bool = False

    def applies(self, error: GatewayError) -> bool:
        """Whether *error* is one after which to ask again, if attempts are left.

        A lost connection is, whatever the list says.
        """
        if not isinstance(error, UpstreamError) or error.code in _HOPELESS:
            return False
        lost = isinstance(error, UpstreamUnreachable)
        return lost or error.status in self.on_status_codes

    def delay(
        self, retry: int, error: GatewayError, *, now: float, jitter: float, left: float
    ) -> float | None:
        """Seconds to wait before the *retry*-th retry, from 0 on; None for no retry.

        *now* is in Unix seconds; *jitter*, between 0 and 1, the share of the longest
        wait that is taken; *left* the seconds that all waits may still take.
        """
        if retry >= min(self.attempts, MOST_ATTEMPTS) or not self.applies(error):
            return None
        asked = _asked(error.headers, now) if self._obeys(error) else None
        wait = jitter * min(2.0**retry, LONGEST_WAIT) if asked is None else asked
        return wait if wait <= left else None

    def _obeys(self, error: GatewayError) -> bool:
        return self.use_retry_after and error.status == 429


def _asked(headers: Mapping[str, str], now: float) -> float | None:
    """The wait that upstream asks for, in seconds; None for none, or none to come."""
    given = {name.lower(): value for name, value in headers.items()}
    for name in _IN_MILLISECONDS:
        if name in given:
            return _positive(given[name], 1000)
    if "retry-after" in given:
        return _positive(given["retry-after"], 1) or _until(given["retry-after"], now)
    return None


def _positive(value: str, divisor: int) -> float | None:
    try:
        seconds = float(value) / divisor
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def _until(date: str, now: float) -> float | None:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.timestamp() - now if at.timestamp() > now else None
