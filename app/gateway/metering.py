"""What a request may use, and what it has used.

A gateway key is charged for a request once, when that is over; a virtual key for each
try, when that is. Before each try, both hold what that may use: the key what is missing
on top of what it holds already, and was not charged for earlier tries.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from ..core import prices
from ..core.completion import Usage
from ..core.counters import PriorUsage, UsageRequest
from ..core.limits import Limits
from ..core.prices import Price
from ..core.routing import Route
from ..planning.plan import Plan
from ..state.meter import Charge, Meter, Reservation
from .outcome import UsageCounter
from .usage_charges import most_used

_NONE = Limits()


@dataclass(frozen=True, slots=True)
class Metering:
    """Where requests pay. One for each process.

    *prices* are the operator's own, which come before those that are known anyway.
    """

    meter: Meter
    prices: Sequence[Price]
    now: Callable[[], float]

    def bill(self, route: Route) -> "RequestMeter":
        """An empty bill for a request along *route*."""
        return RequestMeter(self, route)

    def cost(self, plan: Plan, usage: Usage) -> Decimal | None:
        """US dollars; None if the model's price is not known."""
        model = plan.request.model
        return prices.cost(plan.provider.name, model, usage, self.prices)


@dataclass(slots=True)
class _Account:
    """What a request holds of one *holder*, in the order in which it was drawn.

    *usage* and *cost* are what is to be charged for it, as far as that is known.
    """

    holder: str
    limits: Limits
    held: list[Reservation] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    usage: Usage = Usage()
    cost: Decimal | None = None

    def claim(self, most: Usage, money: Decimal | None) -> UsageRequest:
        """What it takes to use so much on top of what is to be charged."""
        prior = None
        if self.held:
            entries = [entry for each in self.held for entry in each.entries]
            prior = PriorUsage(entries, self.usage.paid_tokens, self.cost)
        return UsageRequest(self.holder, self.limits, most.paid_tokens, money, prior)

    def hold(self, reservation: Reservation) -> None:
        self.held.append(reservation)
        self.headers |= reservation.headers

    def add(self, usage: Usage, cost: Decimal | None) -> None:
        """Have it charged for one more try."""
        self.usage += usage
        if cost is not None:
            self.cost = (self.cost or 0) + cost

    @property
    def charges(self) -> Sequence[Charge]:
        """All that is held, settled to what was used; nothing, if that was done."""
        held, self.held = self.held, []
        if not held:
            return ()
        return (Charge(held[0], self.usage.paid_tokens, self.cost, held[1:]),)


class RequestMeter:
    """What one request uses."""

    def __init__(self, till: Metering, route: Route) -> None:
        self._till = till
        self._key = _Account(f"key:{route.cache_scope.caller}", route.limits)
        # Those of the try that is under way.
        self._virtual_key: _Account | None = None
        self._plan: Plan | None = None
        self._tally = UsageCounter()

    @property
    def usage(self) -> Usage:
        """The sum of what was charged."""
        return self._key.usage

    @property
    def cost(self) -> Decimal | None:
        """That in US dollars; None as long as no price is known."""
        return self._key.cost

    @property
    def headers(self) -> Mapping[str, str]:
        """How much of the limits is left: of the gateway key's, else of those of the
        virtual key whose try is under way.
        """
        lower = self._virtual_key.headers if self._virtual_key else {}
        return {**lower, **self._key.headers}

    def reserve(self, plan: Plan) -> UsageCounter:
        """Take as much as one try may use. The calls that it makes are for the tally.

        Raises LimitReached, and takes nothing.
        """
        holder = f"virtual-key:{plan.target.virtual_key}"
        virtual_key = _Account(holder, plan.target.limits)
        self._take(plan, virtual_key)
        self._plan, self._virtual_key, self._tally = plan, virtual_key, UsageCounter()
        return self._tally

    def raise_to(self, plan: Plan) -> None:
        """Take as much as the try may use that is under way, now that *plan* is next.

        Raises LimitReached, and takes nothing more.
        """
        assert self._virtual_key, "a try is under way"
        self._take(plan, self._virtual_key)
        self._plan = plan

    def _take(self, plan: Plan, virtual_key: _Account) -> None:
        accounts = [a for a in (self._key, virtual_key) if a.limits != _NONE]
        if not accounts:
            return
        most = most_used(plan)
        money = self._till.cost(plan, most)
        claims = [account.claim(most, money) for account in accounts]
        reserved = self._till.meter.reserve(claims, self._till.now())
        for account, reservation in zip(accounts, reserved, strict=True):
            account.hold(reservation)

    def charge(self) -> None:
        """The try is over: its virtual key pays for it."""
        self._settle(*self._charged())

    def close(self) -> None:
        """The request is over: its last try is paid, and all of it by its key."""
        last = self._charged()
        self._settle(*last, *self._key.charges)

    def _charged(self) -> Sequence[Charge]:
        """What the try that is under way costs its virtual key; it is on the bill."""
        plan, account = self._plan, self._virtual_key
        if plan is None or account is None:
            return ()
        self._plan = self._virtual_key = None
        usage = self._tally.total
        cost = self._till.cost(plan, usage)
        for each in (self._key, account):
            each.add(usage, cost)
        return account.charges

    def _settle(self, *charges: Charge) -> None:
        if charges:
            self._till.meter.settle(charges, self._till.now())
