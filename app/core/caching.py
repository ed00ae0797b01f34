"""Values of the response cache: policy, entry, scope and status.

Source: https://portkey.ai/docs/product/ai-gateway/cache-simple-and-semantic
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .request import CompletionRequest


class CacheStatus(StrEnum):
    """The values of `x-portkey-cache-status`."""

    HIT = "HIT"
    MISS = "MISS"
    REFRESH = "REFRESH"
    DISABLED = "DISABLED"


class CacheSharing(StrEnum):
    """Who shares answers: callers with the same credentials, or of the same config."""

    CREDENTIALS = "credentials"
    CONFIG = "config"


# Seconds. Source: the page above, of the hosted gateway.
_WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Answers are cached for *max_age* seconds, and shared as *scope* says."""

    max_age: float = _WEEK
    scope: CacheSharing = CacheSharing.CREDENTIALS

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "CachePolicy | None":
        """The policy of a config's `cache`; None if its max_age allows no caching."""
        max_age = float(config.get("max_age", _WEEK))
        scope = CacheSharing(config.get("scope", CacheSharing.CREDENTIALS))
        return cls(max_age, scope) if max_age > 0 else None


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A complete response, its JSON in *body*, as it is cached.

    *created_at* is in Unix seconds, *max_age* in seconds. *headers* and *warnings* are
    sent with it again.
    """

    body: bytes
    created_at: float
    max_age: float
    headers: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def age(self, now: float) -> float:
        """Seconds since it was created. Clocks of two machines may differ a little."""
        return max(0.0, now - self.created_at)

    def is_fresh(self, now: float, max_age: float = float("inf")) -> bool:
        """Whether it may be used, where none older than *max_age* is accepted."""
        return self.age(now) < min(self.max_age, max_age)


# Upstream headers about the answer. The others are about the original request (limits,
# ids, times), or about the account that paid for it.
_REPLAYABLE = ("openai-model", "openai-version")


def replayable_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an answer's headers that are also true when it is sent again."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: lower[name] for name in _REPLAYABLE if name in lower}


def is_cacheable(request: CompletionRequest) -> bool:
    """Whether a cached answer could satisfy *request*.

    Usage after each chunk of a stream cannot be restored from a whole answer.
    """
    return not request.continuous_usage


@dataclass(frozen=True, slots=True)
class CacheScope:
    """What separates the cached answers of callers.

    *caller* names the gateway key, *config* the stored config (or is the fingerprint of
    one in a header); *namespace* is chosen by the caller. *refreshes* asks for a new
    answer, which replaces the cached one.
    """

    caller: str = ""
    config: str = ""
    namespace: str = ""
    refreshes: bool = False
