"""Answers a completion request along a route."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from ..core.balance import rendezvous, weighted
from ..core.permissions import Permissions
from ..core.routing import Group, Hands, Node, Route, Target, run, targets
from ..errors import CallerLeft, Cancelled, GatewayError, UpstreamStatus, release
from ..planning import plan as fitting
from ..planning.plan import Plan
from ..state.breaker import Breaker, guard_call
from .authorization import authorize, authorize_listing
from .clients.cancellation import Cancellation
from .clients.connections import ClientConnection, ClientConnections
from .metering import Metering, RequestMeter
from .outcome import Outcome, UsageCounter
from .quarantine import Quarantine
from .recorder import RequestRecorder
from .request_record import End, Hook
from .response_cache import ResponseCache
from .retries import Attempts, Clock, Trace
from .streaming.late import streamed
from .target_caller import TargetCaller
from .tracing import Tracing


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service behind the endpoint. One for each process.

    *hooks* are told what became of every request; *tracing*, if there is one, begins
    their spans; *resources* are let go of at the end.
    *callers* watches over those who wait for an answer, *quarantine* over those at
    whose requests the embedded engine ends. A stream says something every
    *heartbeat* seconds.
    """

    answering: TargetCaller
    repeats: ResponseCache
    till: Metering
    breaker: Breaker
    callers: ClientConnections
    quarantine: Quarantine
    heartbeat: float | None = None
    clock: Clock = Clock()
    hooks: Sequence[Hook] = ()
    tracing: Tracing | None = None
    resources: ExitStack = field(default_factory=ExitStack)

    def complete(
        self, route: Route, trace: Trace, connection: ClientConnection
    ) -> Outcome:
        """The completion, or its stream once it has begun, from where *route* leads.

        Writes into *trace* what was tried. All ends when *connection* is cancelled.
        Raises the GatewayError of the last target.
        """
        begin = partial(self._complete, route, trace, connection.cancellation)
        if self.heartbeat is None or not _wants_a_stream(route):
            return begin()
        beside_error = self.answering.beside_error
        return streamed(begin, self.heartbeat, connection.cancellation, beside_error)

    def _complete(
        self, route: Route, trace: Trace, cancellation: Cancellation
    ) -> Outcome:
        bill = self.till.bill(route)
        watch = RequestRecorder(trace, bill, cancellation, self.clock, self.hooks)
        try:
            outcome = self._run(route, trace, bill, cancellation)
        except Cancelled as e:
            end = End.LEFT if isinstance(e.reason, CallerLeft) else End.FAILED
            watch.ended(end, e.reason.status, e.reason)
            release(e)
            raise e.reason from None
        except GatewayError as e:
            if len({attempt.path for attempt in trace.attempts}) > 1:
                e.attempts = [attempt.to_body() for attempt in trace.attempts]
            watch.ended(End.FAILED, e.status, e)
            raise
        except Exception:
            watch.ended(End.FAILED, 500)
            raise
        watch.follow(outcome)
        return outcome

    def _run(
        self, route: Route, trace: Trace, bill: RequestMeter, cancellation: Cancellation
    ) -> Outcome:
        began = self.clock.monotonic()
        ends = route.deadline and began + route.deadline
        ask = partial(self._ask, route, trace, bill, cancellation)
        attempts = Attempts(ask, trace, self.clock, began, ends, cancellation)
        hands = Hands(attempts, self._pick, self.breaker.available)
        outcome: Outcome = run(route.root, hands)
        return outcome

    def _pick(self, group: Group, children: Sequence[Node]) -> Node:
        if group.sticky is not None:
            return rendezvous(children, group.sticky)
        return weighted(children, self.clock.chance())

    def _ask(
        self,
        route: Route,
        trace: Trace,
        bill: RequestMeter,
        cancellation: Cancellation,
        target: Target,
    ) -> Outcome:
        """The answer of one target: one that was given before, or its own."""
        authorize(target, route.permissions)
        plan = self.answering.plan(target)
        fresh = partial(self._fresh, trace, bill, cancellation)
        return self.repeats.outcome(plan, route.cache_scope, trace, fresh, cancellation)

    def _fresh(
        self, trace: Trace, bill: RequestMeter, cancellation: Cancellation, plan: Plan
    ) -> Outcome:
        """The target's own answer, within limits."""
        if plan.provider.hosted:
            with self.quarantine.guarding(trace):
                return self._called(bill, cancellation, plan)
        return self._called(bill, cancellation, plan)

    def _called(
        self, bill: RequestMeter, cancellation: Cancellation, plan: Plan
    ) -> Outcome:
        tally = bill.reserve(plan)
        try:
            with guard_call(self.breaker, plan.target), cancellation.explained():
                outcome = self._answer(plan, bill, tally, cancellation)
        except BaseException:
            bill.charge()
            raise
        return replace(
            outcome, gateway_headers={**outcome.gateway_headers, **bill.headers}
        )

    def _answer(
        self,
        plan: Plan,
        bill: RequestMeter,
        tally: UsageCounter,
        cancellation: Cancellation,
    ) -> Outcome:
        """The answer to *plan*. An upstream that says that it has to be asked otherwise
        is asked otherwise, if that is within limits as well.
        """
        while True:
            try:
                return self.answering.answer(plan, tally, cancellation)
            except UpstreamStatus as e:
                again = fitting.replan_after_error(plan, e)
                if again is None:
                    raise
                bill.raise_to(again)
                plan = again

    def models(self, target: Target, permissions: Permissions) -> Outcome:
        """The provider's own list of models. Raises GatewayError."""
        authorize_listing(target, permissions)
        return self.answering.models(target)

    def close(self) -> None:
        """Let go of connections and files."""
        self.resources.close()


def _wants_a_stream(route: Route) -> bool:
    """Whether any of its targets will be asked for one."""
    return any(t.request.stream for t in targets(route.root) if t.request)
