"""The arithmetic of counting what a key uses against its limits.

A counter is the sum of its entries, each of which expires at some time. A request that
starts adds an entry to each counter that limits it: to all of them, or to none if one
refuses. When the request is over, what it really used adjusts those entries. That is
all there is to a limit, whatever its unit and its window.

A request may try several targets. Each try needs its own estimate on top of what the
earlier tries were charged. What the request holds and has not used up counts towards
that; only the rest is added, as entries of their own, which count no further request.

Days and months are those of the calendar, in UTC; a minute slides. The slot of a
parallel request is an entry of its own, with its request's id.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from ..errors import RateLimited
from .limits import NANO, RULES, Limits, Rule, Unit, sliding_minute

# What one request counts for at most, whatever its provider reports: a counter can sum
# up a thousand of these.
_MAX_USED = 2**43


@dataclass(frozen=True, slots=True)
class CounterEntry:
    """An entry to be added to a counter, whose sum must not exceed *limit*.

    *part* tells it from the counter's other entries, and begins with its expiry.
    Without a limit it is added in any case. Money is in billionths of a dollar.
    """

    holder: str
    rule: Rule
    part: str
    expires: int
    amount: int
    limit: int | None

    @property
    def counter(self) -> str:
        return f"{self.holder}:{self.rule.name}"


@dataclass(frozen=True, slots=True)
class PriorUsage:
    """The entries of one holder that a request has added so far.

    *tokens* and *money* (US dollars) are what its earlier tries were charged of them.
    """

    entries: Sequence[CounterEntry]
    tokens: int = 0
    money: Decimal | None = None


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """What one try of a request may use of one holder, such as `key:abc`.

    *tokens* is an estimate: those of the prompts and the most that can be generated.
    *money* is their price in US dollars; None where it is unknown, and then money is
    not counted. With *prior*, only what is missing is added.
    """

    holder: str
    limits: Limits
    tokens: int = 0
    money: Decimal | None = None
    prior: PriorUsage | None = None

    def amount(self, unit: Unit) -> int | None:
        """What it needs of *unit*; None where that is not known."""
        if unit == Unit.TOKENS:
            return self.tokens
        if unit == Unit.MONEY:
            return None if self.money is None else nanodollars(self.money)
        return 1


@dataclass(frozen=True, slots=True)
class CounterAdjustment:
    """What to add to an entry; a negative amount never takes it below 0.

    An *urgent* one frees a slot, and has to be written before the caller has its
    response, since the caller may send the next request at once.
    """

    counter: str
    part: str
    expires: int
    amount: int
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class CounterState:
    """A counter's sum, and when the last of its entries expires (0 without any)."""

    used: int = 0
    last_expiry: int = 0


def nanodollars(money: Decimal) -> int:
    """Dollars in whole billionths, rounded up."""
    return int((money * NANO).to_integral_value(ROUND_CEILING))


# Before a call


def counter_entries(
    usage_requests: Sequence[UsageRequest], request_id: str, now: float
) -> tuple[CounterEntry, ...]:
    """The entries that a request adds. Each holder may have one usage request."""
    entries = (
        _counter_entry(usage, rule, request_id, now)
        for rule in RULES
        for usage in usage_requests
        if getattr(usage.limits, rule.name) is not None
    )
    return tuple(entry for entry in entries if entry is not None)


def _counter_entry(
    usage: UsageRequest, rule: Rule, request_id: str, now: float
) -> CounterEntry | None:
    """The entry by one rule; None if the prior ones suffice."""
    expires = rule.window(now)
    # All requests that expire in the same second share an entry, except for slots: each
    # is freed by itself.
    part = f"{expires}/{request_id}" if rule.unit == Unit.SLOTS else str(expires)
    limit = getattr(usage.limits, rule.name)
    if rule.unit == Unit.MONEY:
        limit = nanodollars(limit)
    amount = usage.amount(rule.unit)
    if usage.prior is not None:
        amount = _missing_amount(usage, usage.prior, rule, now)
        if amount <= 0:
            return None
    if amount is None:
        return CounterEntry(usage.holder, rule, part, expires, 0, None)
    return CounterEntry(usage.holder, rule, part, expires, amount, limit)


def _missing_amount(
    usage: UsageRequest, prior: PriorUsage, rule: Rule, now: float
) -> int:
    """What has to be added beyond the *prior* entries; nothing if 0 or less.

    Entries that have expired hold nothing any more. Earlier charges count against
    those first.
    """
    if rule.unit == Unit.TOKENS:
        charged, needed = prior.tokens, prior.tokens + usage.tokens
    elif rule.unit == Unit.MONEY and usage.money is not None:
        before = prior.money or Decimal(0)
        charged, needed = nanodollars(before), nanodollars(before + usage.money)
    else:
        return 0
    own = [entry for entry in prior.entries if entry.rule is rule]
    expired = sum(entry.amount for entry in own if entry.expires <= now)
    valid = sum(entry.amount for entry in own if entry.expires > now)
    return needed - min(charged, expired) - valid


# After a call


def counter_adjustments(
    reservations: Sequence[Sequence[CounterEntry]],
    tokens: int,
    money: Decimal | None,
    now: float,
) -> list[list[CounterAdjustment]]:
    """What corrects *reservations*, when *tokens* and *money* were used.

    They are the entries that a request has added on one holder, one sequence for each
    try, oldest first. The usage fills up the newest first, whose windows end last, so
    that it counts as long as it can. What goes beyond all of them goes to the newest.
    """
    used = {
        # A provider may report absurd numbers; nobody uses less than nothing.
        Unit.TOKENS: min(max(tokens, 0), _MAX_USED),
        Unit.MONEY: min(max(nanodollars(money or Decimal(0)), 0), _MAX_USED),
        Unit.REQUESTS: 1,
        Unit.SLOTS: 0,
    }
    # By rule: what older reservations hold, and what is not yet assigned to one.
    older: dict[str, int] = {}
    unassigned: dict[str, int] = {}
    for entry in (entry for entries in reservations for entry in entries):
        older[entry.rule.name] = older.get(entry.rule.name, 0) + entry.amount
        unassigned[entry.rule.name] = used[entry.rule.unit]
    # From the newest to the oldest, each gets what it can hold of the rest; the newest
    # also gets what all older ones together cannot hold.
    adjustments = []
    for entries in reversed(reservations):
        own = []
        for entry in entries:
            name = entry.rule.name
            older[name] -= entry.amount
            share = max(
                min(unassigned[name], entry.amount), unassigned[name] - older[name]
            )
            unassigned[name] -= share
            if share != entry.amount:
                own.append(_adjustment(entry, share - entry.amount, now))
        adjustments.append(own)
    return adjustments[::-1]


def _adjustment(entry: CounterEntry, amount: int, now: float) -> CounterAdjustment:
    part, expires = entry.part, entry.expires
    if amount > 0 and entry.rule.window is sliding_minute:
        # What goes beyond the estimate counts in the minute in which the request ends.
        expires = sliding_minute(now)
        part = str(expires)
    urgent = entry.rule.unit == Unit.SLOTS
    return CounterAdjustment(entry.counter, part, expires, amount, urgent)


# Refusals


class LimitReached(RateLimited):
    """A holder has used up a limit.

    *limit*, *used* and *requested* are tokens, requests, or billionths of a dollar.
    *retry_after* is in seconds; None if the request alone exceeds the limit.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self,
        entry: CounterEntry,
        used: int,
        retry_after: float | None,
        headers: Mapping[str, str],
    ) -> None:
        self.holder, self.rule = entry.holder, entry.rule.name
        self.limit, self.used, self.requested = entry.limit or 0, used, entry.amount
        self.retry_after = retry_after
        budget = entry.rule.budget
        headers = dict(headers)
        if retry_after is not None:
            headers["retry-after"] = str(math.ceil(retry_after))
        if budget:
            # Waiting for days is no use, and SDKs would retry at once.
            headers["x-should-retry"] = "false"
        super().__init__(
            _message(entry, used, retry_after),
            type="insufficient_quota" if budget else _TYPES[entry.rule.unit],
            code="insufficient_quota" if budget else "rate_limit_exceeded",
            headers=headers,
        )


# As OpenAI has them, which knows no limit of parallel requests.
_TYPES = {
    Unit.TOKENS: "tokens",
    Unit.REQUESTS: "requests",
    Unit.SLOTS: "requests",
}


def _message(entry: CounterEntry, used: int, retry_after: float | None) -> str:
    limit, used_text, requested = (
        (
            f"${(Decimal(value) / NANO).normalize():f}"
            if entry.rule.unit == Unit.MONEY
            else str(value)
        )
        for value in (entry.limit or 0, used, entry.amount)
    )
    text = f"Limit of {entry.holder} reached on {entry.rule.name}: "
    text += f"Limit {limit}, Used {used_text}, Requested {requested}. "
    if retry_after is None:
        return text + "The request is too large for this limit."
    return text + f"Please try again in {format_duration(retry_after)}."


def limit_reached(
    entries: Sequence[CounterEntry],
    states: Sequence[CounterState],
    refused: int,
    blocking: Sequence[tuple[int, int]],
    now: float,
) -> LimitReached:
    """The error for entry number *refused*, whose counter has the entries *blocking*.

    These are pairs of expiry and amount. *states* are those of all entries' counters.
    """
    entry, state = entries[refused], states[refused]
    wait = _retry_after(entry, state.used, blocking, now)
    return LimitReached(
        entry, state.used, wait, ratelimit_headers(entries, states, now)
    )


def _retry_after(
    entry: CounterEntry, used: int, blocking: Sequence[tuple[int, int]], now: float
) -> float | None:
    """Seconds until enough has expired that *entry* fits, if nothing else is added."""
    limit = entry.limit or 0
    if entry.amount > limit:
        return None
    if entry.rule.unit == Unit.SLOTS:
        # A slot is free as soon as any request ends, long before its lease does.
        return 1.0
    for expires, amount in sorted(blocking):
        used -= amount
        if used + entry.amount <= limit:
            return expires - now
    return 0.0


def ratelimit_headers(
    entries: Sequence[CounterEntry], states: Sequence[CounterState], now: float
) -> dict[str, str]:
    """OpenAI's headers, for the tightest limits on requests and on tokens.

    Source: https://platform.openai.com/docs/guides/rate-limits
    """
    headers = {}
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        limits = [
            (entry.limit - state.used, entry.limit, state.last_expiry)
            for entry, state in zip(entries, states, strict=True)
            if entry.rule.unit == unit and entry.limit is not None
        ]
        if limits:
            remaining, limit, last_expiry = min(limits)
            reset = format_duration(max(last_expiry - now, 0))
            headers[f"x-ratelimit-limit-{unit}"] = str(limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(max(remaining, 0))
            headers[f"x-ratelimit-reset-{unit}"] = reset
    return headers


def format_duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: `20ms`, `8s`, `6m0s`, `26h0m5s`; rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
