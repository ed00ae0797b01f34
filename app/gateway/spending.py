"""What a request may use, and what it has used.

A gateway key is charged for a request once, when that is over; a virtual key for each
try, when that is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from ..core import prices
from ..core.completion import Usage
from ..core.limits import Claim, Limits
from ..core.prices import Price
from ..core.request import CompletionRequest
from ..core.routing import Route
from ..core.shaping import prompt_estimate
from ..providers.fitting import Plan
from ..state.limits import Charge, Meter, Reservation

# Tokens of a text whose length nobody has limited. Source: the endpoint's default.
_UNLIMITED = 16

_NONE = Limits()


@dataclass(frozen=True, slots=True)
class Till:
    """Where requests pay. One for each process.

    *prices* are the operator's own, which come before those that are known anyway.
    """

    meter: Meter
    prices: Sequence[Price]
    now: Callable[[], float]

    def bill(self, route: Route) -> "Bill":
        """An empty bill for a request along *route*."""
        return Bill(self, route)

    def cost(self, plan: Plan, usage: Usage) -> Decimal | None:
        """US dollars; None if the model's price is not known."""
        model = plan.wanted.model
        return prices.cost(plan.provider.name, model, usage, self.prices)


class Bill:
    """What one request uses. *usage* and *cost* are the sums of what was charged.

    *cost* is in US dollars, and None as long as no price is known. *headers* tell how
    much of the limits is left: those of the gateway key, else those of the virtual key.
    """

    def __init__(self, till: Till, route: Route) -> None:
        self._till, self._route = till, route
        self._plan: Plan | None = None
        self._key: Reservation | None = None
        self._try: Reservation | None = None
        self.usage = Usage()
        self.cost: Decimal | None = None
        self.headers: dict[str, str] = {}

    def reserve(self, plan: Plan) -> Usage:
        """Take as much as one try may use. Raises LimitReached, and takes nothing."""
        most = most_used(plan)
        claims = [*self._claims(plan, most)]
        held = self._till.meter.reserve(claims, self._till.now()) if claims else ()
        for claim, reservation in zip(claims, held, strict=True):
            self._hold(claim, reservation)
        self._plan = plan
        return most

    def _claims(self, plan: Plan, most: Usage) -> Iterator[Claim]:
        if self._key is None and self._route.limits != _NONE:
            yield self._claim(self._key_holder, self._route.limits, plan, most)
        if plan.target.limits != _NONE:
            holder = f"virtual-key:{plan.target.virtual_key}"
            yield self._claim(holder, plan.target.limits, plan, most)

    def _claim(self, holder: str, limits: Limits, plan: Plan, most: Usage) -> Claim:
        money = self._till.cost(plan, most)
        return Claim(holder, limits, most.paid_tokens, money)

    @property
    def _key_holder(self) -> str:
        return f"key:{self._route.asker.caller}"

    def _hold(self, claim: Claim, reservation: Reservation) -> None:
        if claim.holder == self._key_holder:
            self._key = reservation
            self.headers |= reservation.headers
        else:
            self._try = reservation
            self.headers = {**reservation.headers, **self.headers}

    def charge(self, usage: Usage) -> None:
        """A try is over, and has used this."""
        self._settle(*self._charged(usage))

    def close(self, usage: Usage) -> None:
        """The request is over; its last try has used this, if it was not charged."""
        last = self._charged(usage)
        self._settle(*last, *self._charges(self._key, self.usage, self.cost))

    def _charged(self, usage: Usage) -> Sequence[Charge]:
        """What a try that has used this costs its virtual key; it is on the bill."""
        if self._plan is None:
            return ()
        cost, held = self._till.cost(self._plan, usage), self._try
        self._plan = self._try = None
        self.usage += usage
        if cost is not None:
            self.cost = (self.cost or 0) + cost
        return self._charges(held, usage, cost)

    @staticmethod
    def _charges(
        held: Reservation | None, usage: Usage, cost: Decimal | None
    ) -> Sequence[Charge]:
        return (Charge(held, usage.paid_tokens, cost),) if held else ()

    def _settle(self, *charges: Charge) -> None:
        if charges:
            self._till.meter.settle(charges, self._till.now())


def most_used(plan: Plan) -> Usage:
    """What all calls can take: their prompts, about, and all tokens they may make."""
    requests = [part.request for part in plan.parts]
    prompts = (prompt for request in requests for prompt in request.prompts)
    made = sum(map(_most_made, requests))
    return Usage(sum(map(prompt_estimate, prompts)), made, estimated=True)


def _most_made(request: CompletionRequest) -> int:
    length = _UNLIMITED if request.max_tokens is None else request.max_tokens
    return length * request.drawn * len(request.prompts)
