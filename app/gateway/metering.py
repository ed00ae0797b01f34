"""Metering: reserves what a request may use, and charges what it has used.

A gateway key is charged once, at the end of a request; a virtual key at the end of each
try. Before each try, the most that it may use is reserved from both. The gateway key
keeps its reservations until the end, so for a later try only the difference is
reserved: what earlier tries reserved and did not use counts.
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
from .usage_charges import UsageCounter, max_usage

_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Metering:
    """Meters requests. One per process.

    *prices* are the operator's own, which override the list prices.
    """

    meter: Meter
    prices: Sequence[Price]
    now: Callable[[], float]

    def new_meter(self, route: Route) -> "RequestMeter":
        """The meter of a request along *route*, at nothing."""
        return RequestMeter(self, route)

    def cost(self, plan: Plan, usage: Usage) -> Decimal | None:
        """US dollars; None without a price of the model."""
        model = plan.request.model
        return prices.cost(plan.provider.name, model, usage, self.prices)


@dataclass(slots=True)
class _Account:
    """What one request has reserved and used of the limits of one *holder*.

    *reservations* are in the order in which they were made. *usage* and *cost* are what
    is to be charged so far.
    """

    holder: str
    limits: Limits
    reservations: list[Reservation] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    usage: Usage = Usage()
    cost: Decimal | None = None
    has_charges: bool = False

    def usage_request(self, max_usage: Usage, money: Decimal | None) -> UsageRequest:
        """A reservation of *max_usage* and *money*, on top of what is to be charged."""
        held = None
        if self.reservations:
            entries = [e for each in self.reservations for e in each.entries]
            held = PriorUsage(entries, self.usage.paid_tokens, self.cost)
        return UsageRequest(
            self.holder, self.limits, max_usage.paid_tokens, money, held
        )

    def add(self, usage: Usage, cost: Decimal | None) -> None:
        """Charge one more try."""
        self.usage = self.usage + usage if self.has_charges else usage
        self.has_charges = True
        # Some of several targets may have no price; the sum is that of the others.
        if cost is not None:
            self.cost = (self.cost or 0) + cost

    def take_charges(self) -> Sequence[Charge]:
        """The charge that settles all reservations; nothing the second time."""
        reservations, self.reservations = self.reservations, []
        if not reservations:
            return ()
        first, *others = reservations
        return (Charge(first, self.usage.paid_tokens, self.cost, others),)


class RequestMeter:
    """The usage of one request: reserved before each try, charged after it."""

    def __init__(self, metering: Metering, route: Route) -> None:
        self._metering = metering
        self._key = _Account(f"key:{route.cache_scope.caller}", route.limits)
        # Of the try that is under way.
        self._virtual_key: _Account | None = None
        self._plan: Plan | None = None
        self._counter = UsageCounter()

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers with what is left of the limits: of the gateway key, else of the
        virtual key whose try is under way.
        """
        virtual_key = self._virtual_key.headers if self._virtual_key else {}
        return {**virtual_key, **self._key.headers}

    def reserve(self, plan: Plan) -> UsageCounter:
        """Reserve what one try may use, and return the counter for its calls.

        Raises LimitReached, and reserves nothing.
        """
        holder = f"virtual-key:{plan.target.virtual_key}"
        virtual_key = _Account(holder, plan.target.limits)
        self._reserve_from(virtual_key, plan)
        self._plan, self._virtual_key = plan, virtual_key
        self._counter = UsageCounter()
        return self._counter

    def raise_to(self, plan: Plan) -> None:
        """Reserve what the try under way may use, now that it goes on with *plan*.

        Raises LimitReached, and reserves nothing more.
        """
        assert self._virtual_key, "a try is under way"
        self._reserve_from(self._virtual_key, plan)
        self._plan = plan

    def _reserve_from(self, virtual_key: _Account, plan: Plan) -> None:
        # Both or neither: what one refuses must not stay reserved from the other.
        accounts = [a for a in (self._key, virtual_key) if a.limits != _NO_LIMITS]
        if not accounts:
            return
        most = max_usage(plan)
        money = self._metering.cost(plan, most)
        requests = [account.usage_request(most, money) for account in accounts]
        reservations = self._metering.meter.reserve(requests, self._metering.now())
        for account, reservation in zip(accounts, reservations, strict=True):
            account.reservations.append(reservation)
            account.headers |= reservation.headers

    def charge(self) -> None:
        """Charge the virtual key for the try, which is over."""
        self._settle(self._end_try())

    def close(self) -> tuple[Usage, Decimal | None]:
        """Charge the gateway key for the request, which is over, and its last try.

        Returns what was charged, and that in US dollars; None if no price applied.
        """
        # Settled together: one write to the counters.
        last_try = self._end_try()
        self._settle([*last_try, *self._key.take_charges()])
        return self._key.usage, self._key.cost

    def _end_try(self) -> Sequence[Charge]:
        """Add the try under way to both accounts; the charges of its virtual key."""
        plan, virtual_key = self._plan, self._virtual_key
        if plan is None or virtual_key is None:
            return ()
        self._plan = self._virtual_key = None
        # Also after a failure: what was sent upstream is billed there, answer or none.
        usage = self._counter.total
        cost = self._metering.cost(plan, usage)
        self._key.add(usage, cost)
        virtual_key.add(usage, cost)
        return virtual_key.take_charges()

    def _settle(self, charges: Sequence[Charge]) -> None:
        if charges:
            self._metering.meter.settle(charges, self._metering.now())
