"""The limits of a gateway key or virtual key: their rules, and how they are parsed.

A rule says what is counted (requests, tokens, money, or slots for parallel requests)
and over which window; the table RULES has them all. counters.py has the arithmetic.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

# Seconds after which the slot of a parallel request is free although nobody has
# released it, as when its process was killed. A request that takes longer than that
# no longer counts as a parallel one.
LEASE = 900

# Money is counted in whole billionths of a dollar. Counters stay below 2**53, the
# integers that a double holds exactly, since Lua in Redis calculates with doubles.
NANO = 10**9
MAX_COUNT = 2**53 - 1


class Unit(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    SLOTS = "slots"
    MONEY = "money"


# Windows: when an entry that is added at *now* expires, in whole Unix seconds.


def sliding_minute(now: float) -> int:
    """61 seconds after the second of *now* began.

    Entries have whole seconds, so one leaves when even the last moment of its second
    is a minute ago: no 60 seconds ever hold more than the limit.
    """
    return math.floor(now) + 61


def utc_day(now: float) -> int:
    return (math.floor(now) // 86400 + 1) * 86400


def utc_month(now: float) -> int:
    day = datetime.fromtimestamp(now, UTC)
    year, month = divmod(day.year * 12 + day.month, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())


def lease(now: float) -> int:
    return math.ceil(now) + LEASE


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of limit is counted.

    A *budget* is a limit that the operator has to raise once it is used up; any other
    limit clears by waiting.
    """

    name: str
    unit: Unit
    window: Callable[[float], int]
    budget: bool = False


# In the order in which they refuse: what takes longest to wait for comes first.
RULES = (
    Rule("money_per_month", Unit.MONEY, utc_month, budget=True),
    Rule("tokens_per_month", Unit.TOKENS, utc_month, budget=True),
    Rule("money_per_day", Unit.MONEY, utc_day, budget=True),
    Rule("tokens_per_day", Unit.TOKENS, utc_day, budget=True),
    Rule("tokens_per_minute", Unit.TOKENS, sliding_minute),
    Rule("requests_per_minute", Unit.REQUESTS, sliding_minute),
    Rule("requests_in_parallel", Unit.SLOTS, lease),
)
_RULES_BY_NAME = {rule.name: rule for rule in RULES}
_USAGE_RULES = [r.name for r in RULES if r.unit in (Unit.TOKENS, Unit.MONEY)]


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
        """Whether it limits tokens or money."""
        return any(getattr(self, name) is not None for name in _USAGE_RULES)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Limits":
        """Parse limits from JSON. Raises ValueError, which names everything wrong."""
        values, problems = {}, []
        for name, value in body.items():
            try:
                values[name] = _parse_limit(name, value)
            except ValueError as e:
                problems.append(str(e))
        if problems:
            raise ValueError("; ".join(problems))
        return cls(**values)

    def to_body(self) -> dict[str, Any]:
        """The limits that are set, as `of` parses them; money as a string, exactly."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: f"{value:f}" if isinstance(value, Decimal) else value
            for name, value in values.items()
            if value is not None
        }


def _parse_limit(name: str, value: Any) -> Any:
    if name not in _RULES_BY_NAME:
        names = ", ".join(sorted(_RULES_BY_NAME))
        raise ValueError(f"{name} is no limit; the limits are {names}")
    if value is None:
        return None
    if _RULES_BY_NAME[name].unit == Unit.MONEY:
        return _parse_money(name, value)
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{name} must be a whole number from 0 on, not {value!r}")
    return value


def _parse_money(name: str, value: Any) -> Decimal:
    problem = f"{name} must be an amount of US dollars from 0 on, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise ValueError(problem)
    try:
        money = Decimal(str(value))
    except InvalidOperation as e:
        raise ValueError(problem) from e
    if not money.is_finite() or not 0 <= money * NANO <= MAX_COUNT:
        raise ValueError(problem)
    return money
