"""Answers that are given again: when, and to whom.

Source: https://portkey.ai/docs/product/ai-gateway/cache-simple-and-semantic
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .request import CompletionRequest


class CacheStatus(StrEnum):
    """What `x-portkey-cache-status` says."""

    HIT = "HIT"
    MISS = "MISS"
    REFRESH = "REFRESH"
    DISABLED = "DISABLED"


class CacheSharing(StrEnum):
    """Whose answers are given to whom: those of the same credentials, or config."""

    CREDENTIALS = "credentials"
    CONFIG = "config"


# Seconds. Source: the page above, of the hosted gateway.
_WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """That answers are repeated, for *max_age* seconds."""

    max_age: float = _WEEK
    scope: CacheSharing = CacheSharing.CREDENTIALS

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "CachePolicy | None":
        """The policy of a config's `cache`; None if nothing may be as old as that."""
        max_age = float(given.get("max_age", _WEEK))
        scope = CacheSharing(given.get("scope", CacheSharing.CREDENTIALS))
        return cls(max_age, scope) if max_age > 0 else None


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A complete response, its JSON in *body*, as it is cached.

    *created_at* is in Unix seconds, *max_age* in seconds. *headers* and *warnings* are
    repeated with it.
    """

    body: bytes
    created_at: float
    max_age: float
    headers: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def age(self, now: float) -> float:
        """Seconds since it was made. Clocks of two machines may differ a little."""
        return max(0.0, now - self.created_at)

    def is_fresh(self, now: float, max_age: float = float("inf")) -> bool:
        """Whether it may be given, to one who takes none older than *max_age*."""
        return self.age(now) < min(self.max_age, max_age)


# What upstream says of the answer. Its other headers are about the request that was
# paid for (limits, ids, times), or about the account that paid.
_REPEATED = ("openai-model", "openai-version")


def repeated(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of an answer's headers that are true of its repetition as well."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: lower[name] for name in _REPEATED if name in lower}


def is_repeatable(request: CompletionRequest) -> bool:
    """Whether a repetition could be what *request* asks for.

    What was counted after each frame of a stream is not known of a whole answer.
    """
    return not request.continuous_usage


@dataclass(frozen=True, slots=True)
class CacheScope:
    """Who asks, which keeps answers apart that are alike.

    *caller* names the gateway key, *config* the stored config (or is the fingerprint of
    one that was sent); *namespace* is the caller's own word. Who *refreshes* wants no
    answer that was given before.
    """

    caller: str = ""
    config: str = ""
    namespace: str = ""
    refreshes: bool = False
