"""What a key may use, and the arithmetic of counting it.

A counter is the sum of its entries, each of which expires at some time. A request that
begins *draws* on counters: it adds an entry to each of them, to all or to none. When
it is over, what it really used corrects those entries. That is all there is to a limit,
whatever its unit and its window; the table RULES says how they differ.

A request may try several targets. Each try needs its own estimate on top of what the
earlier ones were charged; what is held and not used up is kept for it, and the rest is
*raised*: drawn as well, in entries of their own, which count no further request.

A minute slides: it is kept in seconds, and no 60 seconds ever hold more than the
limit. Days and months are those of the calendar, in UTC. A place among the parallel
requests is an entry of its own, which expires even if its process was killed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from ..errors import RateLimited

# Seconds after which a place is free, though nobody has given it back. No request
# that is under way for longer counts as one of the parallel ones.
LEASE = 900

# Money is counted in whole billionths of a dollar, numbers up to what a double holds.
NANO = 10**9
MOST = 2**53 - 1

# Of one request: of such numbers a counter can sum up a million.
_MOST_USED = 2**43


class Unit(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    PLACES = "places"
    MONEY = "money"


def _minute(now: float) -> int:
    """A second is forgotten when its last moment is a minute ago."""
    return math.floor(now) + 61


def _day(now: float) -> int:
    return (math.floor(now) // 86400 + 1) * 86400


def _month(now: float) -> int:
    day = datetime.fromtimestamp(now, UTC)
    year, month = divmod(day.year * 12 + day.month, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())


def _lease(now: float) -> int:
    return math.ceil(now) + LEASE


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of limit is counted.

    *expiry* is when an entry made now is forgotten, in Unix seconds. The limits that
    are a budget have to be raised, the others to be waited for.
    """

    name: str
    unit: Unit
    expiry: Callable[[float], int]
    budget: bool = False


# In the order in which they refuse: what takes longest to wait for comes first.
RULES = (
    Rule("money_per_month", Unit.MONEY, _month, budget=True),
    Rule("tokens_per_month", Unit.TOKENS, _month, budget=True),
    Rule("money_per_day", Unit.MONEY, _day, budget=True),
    Rule("tokens_per_day", Unit.TOKENS, _day, budget=True),
    Rule("tokens_per_minute", Unit.TOKENS, _minute),
    Rule("requests_per_minute", Unit.REQUESTS, _minute),
    Rule("requests_in_parallel", Unit.PLACES, _lease),
)
_NAMES = {rule.name: rule for rule in RULES}
_OF_USE = [r.name for r in RULES if r.unit in (Unit.TOKENS, Unit.MONEY)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one holder may use; None is no limit. Money is in US dollars."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_in_parallel: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    money_per_day: Decimal | None = None
    money_per_month: Decimal | None = None

    @property
    def has_money(self) -> bool:
        """Whether there is a budget of money."""
        return self.money_per_day is not None or self.money_per_month is not None

    @property
    def limits_use(self) -> bool:
        """Whether it says how many tokens, or how much money, may be used."""
        return any(getattr(self, name) is not None for name in _OF_USE)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Limits":
        """The limits in JSON. Raises ValueError, which names everything wrong."""
        values, problems = {}, []
        for name, value in given.items():
            try:
                values[name] = _limit(name, value)
            except ValueError as e:
                problems.append(str(e))
        if problems:
            raise ValueError("; ".join(problems))
        return cls(**values)

    def to_body(self) -> dict[str, Any]:
        """The limits that are set, as `of` reads them; money as a text, exactly."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: f"{value:f}" if isinstance(value, Decimal) else value
            for name, value in values.items()
            if value is not None
        }


def _limit(name: str, value: Any) -> Any:
    if name not in _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise ValueError(f"{name} is no limit; the limits are {known}")
    if value is None:
        return None
    return (
        _money(name, value) if _NAMES[name].unit == Unit.MONEY else _count(name, value)
    )


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{name} must be a whole number from 0 on, not {value!r}")
    return value


def _money(name: str, value: Any) -> Decimal:
    problem = f"{name} must be an amount of US dollars from 0 on, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueError(problem)
    try:
        money = Decimal(str(value))
    except InvalidOperation as e:
        raise ValueError(problem) from e
    if not money.is_finite() or not 0 <= money * NANO <= MOST:
        raise ValueError(problem)
    return money


@dataclass(frozen=True, slots=True)
class CounterEntry:
    """An entry to be made in a counter, which must not sum up to more than *limit*.

    *part* tells it from the counter's other entries, and begins with when it expires.
    Without a limit it is made in any case. Money is in billionths of a dollar.
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
class Held:
    """What a request has drawn on one holder so far.

    *tokens* and *money* (US dollars) are what its earlier tries were charged of that.
    """

    draws: Sequence[CounterEntry]
    tokens: int = 0
    money: Decimal | None = None


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """What one try of a request wants to use of one holder, such as `key:abc`.

    *tokens* is an estimate: those of the prompts and the most that can be made. *money*
    is that in US dollars; None where the price is unknown: then money is not counted.
    With *held*, it raises what the request holds already, as far as that is needed.
    """

    holder: str
    limits: Limits
    tokens: int = 0
    money: Decimal | None = None
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class CounterAdjustment:
    """What to add to an entry. One that is taken away from never sinks below 0.

    An *urgent* one frees a place: it has to be made before the caller can ask again.
    """

    counter: str
    part: str
    expires: int
    amount: int
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class CounterState:
    """A counter: its sum, and when the last of its entries expires (0: it has none)."""

    used: int = 0
    newest: int = 0


def nano(money: Decimal) -> int:
    """Dollars in whole billionths, rounded up."""
    return int((money * NANO).to_integral_value(ROUND_CEILING))


def draws(
    claims: Sequence[UsageRequest], id: str, now: float
) -> tuple[CounterEntry, ...]:
    """What the request *id* draws on. Each holder may have one claim."""
    found = (
        _draw(claim, rule, id, now)
        for rule in RULES
        for claim in claims
        if getattr(claim.limits, rule.name) is not None
    )
    return tuple(draw for draw in found if draw is not None)


def _draw(claim: UsageRequest, rule: Rule, id: str, now: float) -> CounterEntry | None:
    """The draw of *claim* by one rule; None for a raise that is not needed."""
    expires = rule.expiry(now)
    part = f"{expires}/{id}" if rule.unit == Unit.PLACES else str(expires)
    limit = getattr(claim.limits, rule.name)
    if rule.unit == Unit.MONEY:
        limit = nano(limit)
    amount = _amount(claim, rule.unit)
    if claim.held is not None:
        amount = _raise(claim, claim.held, rule, now)
        if amount <= 0:
            return None
    if amount is None:
        return CounterEntry(claim.holder, rule, part, expires, 0, None)
    return CounterEntry(claim.holder, rule, part, expires, amount, limit)


def _amount(claim: UsageRequest, unit: Unit) -> int | None:
    """What *claim* needs of *unit*; None where that is not known."""
    if unit == Unit.TOKENS:
        return claim.tokens
    if unit == Unit.MONEY:
        return None if claim.money is None else nano(claim.money)
    return 1


def _raise(claim: UsageRequest, held: Held, rule: Rule, now: float) -> int:
    """What has to be drawn beyond what is *held*; nothing if that is 0 or less.

    What has expired holds nothing any more. What was charged is taken from that first.
    """
    if rule.unit == Unit.TOKENS:
        charged, needed = held.tokens, held.tokens + claim.tokens
    elif rule.unit == Unit.MONEY and claim.money is not None:
        before = held.money or Decimal(0)
        charged, needed = nano(before), nano(before + claim.money)
    else:
        return 0
    own = [draw for draw in held.draws if draw.rule is rule]
    expired = sum(draw.amount for draw in own if draw.expires <= now)
    valid = sum(draw.amount for draw in own if draw.expires > now)
    return needed - min(charged, expired) - valid


def changes(
    parts: Sequence[Sequence[CounterEntry]],
    tokens: int,
    money: Decimal | None,
    now: float,
) -> list[list[CounterAdjustment]]:
    """What it takes to have *parts* right, when *tokens* and *money* were used.

    They are what a request has drawn on one holder, in that order. The last ones are
    filled up first: what was used counts as long as it can. What goes beyond all of
    them goes to the last one.
    """
    used = {
        Unit.TOKENS: _believed(tokens),
        Unit.MONEY: 0 if money is None else _believed(nano(money)),
        Unit.REQUESTS: 1,
        Unit.PLACES: 0,
    }
    drawn: dict[str, int] = {}
    for draw in (draw for part in parts for draw in part):
        drawn[draw.rule.name] = drawn.get(draw.rule.name, 0) + draw.amount
    left = {draw.rule.name: used[draw.rule.unit] for part in parts for draw in part}
    corrected = []
    for part in reversed(parts):
        own = []
        for draw in part:
            name = draw.rule.name
            drawn[name] -= draw.amount
            share = max(min(left[name], draw.amount), left[name] - drawn[name])
            left[name] -= share
            if more := share - draw.amount:
                own.append(_change(draw, more, now))
        corrected.append(own)
    return corrected[::-1]


def _believed(used: int) -> int:
    """*used*, as far as one request can have used it: a provider may count absurdly."""
    return min(max(used, 0), _MOST_USED)


def _change(draw: CounterEntry, more: int, now: float) -> CounterAdjustment:
    """*more* where it was drawn; but what goes beyond that slides from now on."""
    part, expires = draw.part, draw.expires
    if more > 0 and draw.rule.expiry is _minute:
        expires = _minute(now)
        part = str(expires)
    urgent = draw.rule.unit == Unit.PLACES
    return CounterAdjustment(draw.counter, part, expires, more, urgent)


class LimitReached(RateLimited):
    """A holder has used up a limit.

    *limit*, *used* and *requested* are tokens, requests, or billionths of a dollar.
    *retry_after* is in seconds; None if no waiting makes so large a request fit.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self,
        draw: CounterEntry,
        used: int,
        retry_after: float | None,
        told: Mapping[str, str],
    ) -> None:
        self.holder, self.rule = draw.holder, draw.rule.name
        self.limit, self.used, self.requested = draw.limit or 0, used, draw.amount
        self.retry_after = retry_after
        budget = draw.rule.budget
        headers = dict(told)
        if retry_after is not None:
            headers["retry-after"] = str(math.ceil(retry_after))
        if budget:
            # Nobody waits for days, and SDKs would ask again at once.
            headers["x-should-retry"] = "false"
        super().__init__(
            _message(draw, used, retry_after),
            type="insufficient_quota" if budget else _TYPES[draw.rule.unit],
            code="insufficient_quota" if budget else "rate_limit_exceeded",
            headers=headers,
        )


# As OpenAI has them, which knows no parallel requests.
_TYPES = {
    Unit.TOKENS: "tokens",
    Unit.REQUESTS: "requests",
    Unit.PLACES: "requests",
}


def _message(draw: CounterEntry, used: int, retry_after: float | None) -> str:
    limit, seen, wanted = (
        _shown(draw.rule.unit, value) for value in (draw.limit or 0, used, draw.amount)
    )
    words = f"Limit of {draw.holder} reached on {draw.rule.name}: "
    words += f"Limit {limit}, Used {seen}, Requested {wanted}. "
    if retry_after is None:
        return words + "The request is too large for this limit."
    return words + f"Please try again in {duration(retry_after)}."


def _shown(unit: Unit, value: int) -> str:
    if unit != Unit.MONEY:
        return str(value)
    return f"${(Decimal(value) / NANO).normalize():f}"


def refused(
    drawn: Sequence[CounterEntry],
    standings: Sequence[CounterState],
    at: int,
    entries: Sequence[tuple[int, int]],
    now: float,
) -> LimitReached:
    """The refusal of draw number *at*, when *entries* were in its way.

    These are pairs of expiry and amount. *standings* are those of all draws.
    """
    draw, standing = drawn[at], standings[at]
    wait = _wait(draw, standing.used, entries, now)
    return LimitReached(draw, standing.used, wait, headers(drawn, standings, now))


def _wait(
    draw: CounterEntry, used: int, entries: Sequence[tuple[int, int]], now: float
) -> float | None:
    """Seconds until so much has expired that *draw* fits, if nothing else comes."""
    limit = draw.limit or 0
    if draw.amount > limit:
        return None
    if draw.rule.unit == Unit.PLACES:
        # It is free as soon as anybody is ready, long before its lease ends.
        return 1.0
    for expires, amount in sorted(entries):
        used -= amount
        if used + draw.amount <= limit:
            return expires - now
    return 0.0


def headers(
    drawn: Sequence[CounterEntry], standings: Sequence[CounterState], now: float
) -> dict[str, str]:
    """What OpenAI's headers tell of the tightest limits on requests and on tokens.

    Source: https://platform.openai.com/docs/guides/rate-limits
    """
    told = {}
    for unit in (Unit.REQUESTS, Unit.TOKENS):
        left = [
            (draw.limit - standing.used, draw.limit, standing.newest)
            for draw, standing in zip(drawn, standings, strict=True)
            if draw.rule.unit == unit and draw.limit is not None
        ]
        if left:
            remaining, limit, newest = min(left)
            told[f"x-ratelimit-limit-{unit}"] = str(limit)
            told[f"x-ratelimit-remaining-{unit}"] = str(max(remaining, 0))
            told[f"x-ratelimit-reset-{unit}"] = duration(max(newest - now, 0))
    return told


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: `20ms`, `8s`, `6m0s`, `26h0m5s`; rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
