"""Answers a completion request along a route."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from ..core.balance import rendezvous, weighted
from ..core.caching import Asker
from ..core.completion import Usage
from ..core.routing import Group, Hands, Node, Route, Target, run
from ..errors import GatewayError, UpstreamError
from ..providers.fitting import Plan
from ..state.breaker import Breaker, guarded
from .answering import Answering
from .attempts import Attempts, Clock, Trace
from .events import End, Hook
from .outcome import Outcome, Tally
from .repeats import Repeats
from .spending import Bill, Till, most_used
from .watch import Watch


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service behind the endpoint. One for each process.

    *hooks* are told what became of every request; *resources* are let go of at the end.
    """

    answering: Answering
    repeats: Repeats
    till: Till
    breaker: Breaker
    clock: Clock = Clock()
    hooks: Sequence[Hook] = ()
    resources: ExitStack = field(default_factory=ExitStack)

    def complete(self, route: Route, trace: Trace) -> Outcome:
        """The completion, or its stream once it has begun, from where *route* leads.

        Writes into *trace* what was tried. Raises the GatewayError of the last target.
        """
        bill = self.till.bill(route)
        watch = Watch(trace, bill, self.clock, self.hooks)
        ends = route.deadline and self.clock.monotonic() + route.deadline
        ask = partial(self._ask, route.asker, trace, bill)
        attempts = Attempts(ask, trace, self.clock, ends)
        hands = Hands(attempts, self._pick, self.breaker.available)
        try:
            outcome: Outcome = run(route.root, hands)
        except GatewayError as e:
            if len({attempt.path for attempt in trace.attempts}) > 1:
                e.attempts = [attempt.to_body() for attempt in trace.attempts]
            watch.ended(End.FAILED, e.status)
            raise
        except Exception:
            watch.ended(End.FAILED, 500)
            raise
        watch.follow(outcome)
        return outcome

    def _pick(self, group: Group, children: Sequence[Node]) -> Node:
        if group.sticky is not None:
            return rendezvous(children, group.sticky)
        return weighted(children, self.clock.chance())

    def _ask(self, asker: Asker, trace: Trace, bill: Bill, target: Target) -> Outcome:
        """The answer of one target: one that was given before, or its own."""
        plan = self.answering.plan(target)
        return self.repeats.outcome(plan, asker, trace, partial(self._fresh, bill))

    def _fresh(self, bill: Bill, plan: Plan) -> Outcome:
        """The target's own answer, within limits."""
        bill.reserve(plan)
        tally = Tally(most_used(plan).prompt_tokens)
        try:
            with guarded(self.breaker, plan.target):
                outcome = self.answering.answer(plan, tally)
        except BaseException as e:
            is_billed = isinstance(e, UpstreamError) and e.is_billed
            bill.charge(tally.total if is_billed else Usage())
            raise
        return replace(outcome, told={**outcome.told, **bill.headers})

    def models(self, target: Target) -> Outcome:
        """The provider's own list of models. Raises GatewayError."""
        return self.answering.models(target)

    def close(self) -> None:
        """Let go of connections and files."""
        self.resources.close()
