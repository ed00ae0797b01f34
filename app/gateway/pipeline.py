"""What happens to a completion request, in order. Start reading here.

    complete        the request as a whole: heartbeats before its first event, the
                    record of how it ended
    _try_targets    the route: which target is tried, and which one after a failure
    _try_target     one target, again and again as its retry policy says
    call_target     one attempt: every step that it takes

Up to the commit point, where an answer is whole or has its first event, every failure
is a GatewayError that leads to a retry, to the next target, or to the caller. Behind it
a failure ends the stream (streaming/event_stream.py).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from ..core.balance import pick_by_weight, rendezvous
from ..core.permissions import Permissions
from ..core.route_walk import RouteWalk
from ..core.routing import Group, Node, Route, Target
from ..errors import CallerLeft, Cancelled, GatewayError, UpstreamStatus, release
from ..planning.plan import Plan
from ..planning.replanning import replan_after_error
from ..state.breaker import Breaker, guard_call
from ..upstream.fair_turns import pause
from .authorization import authorize, authorize_listing
from .clients.connections import ClientConnection, ClientConnections
from .context import RequestContext
from .metering import Metering
from .outcome import Outcome
from .quarantine import Quarantine
from .recorder import RequestRecorder
from .request_record import End, Hook
from .response_cache import ResponseCache
from .retries import Clock, RetrySchedule, Trace, recorded_attempt
from .streaming.heartbeat import HeartbeatStream
from .target_caller import TargetCaller
from .tracing import Tracing
from .usage_charges import UsageCounter


@dataclass(frozen=True, slots=True)
class Gateway:
    """The service behind the endpoint. One for each process.

    *hooks* get the record of every request; *tracing*, if there is one, begins their
    spans; *resources* are released at the end. *clients* watches the connections of
    callers, *quarantine* callers at whose requests the embedded engine ends. While a
    stream is silent, a comment is sent every *heartbeat* seconds.
    """

    target_caller: TargetCaller
    cache: ResponseCache
    metering: Metering
    breaker: Breaker
    clients: ClientConnections
    quarantine: Quarantine
    heartbeat: float | None = None
    clock: Clock = Clock()
    hooks: Sequence[Hook] = ()
    tracing: Tracing | None = None
    resources: ExitStack = field(default_factory=ExitStack)

    def complete(
        self, route: Route, trace: Trace, connection: ClientConnection
    ) -> Outcome:
        """The completion, or its stream once that has begun.

        Writes into *trace* what was tried. Everything ends when *connection* is
        cancelled. Raises the GatewayError of the last target.
        """
        cancellation = connection.cancellation
        context = RequestContext(
            route, trace, self.metering.new_meter(route), cancellation, self.clock
        )
        if self.heartbeat is None or not route.streams:
            return self._complete(context)
        # A stream's caller may have to hear of us before the first event is there.
        stream = HeartbeatStream(
            lambda: self._complete(context),
            self.heartbeat,
            cancellation,
            self.target_caller.beside_error,
        )
        return stream.outcome()

    def _complete(self, context: RequestContext) -> Outcome:
        """The outcome, with its record: now if it is over, else when its stream is."""
        recorder = RequestRecorder(context, self.hooks)
        try:
            outcome = self._try_targets(context)
        except Cancelled as e:
            end = End.LEFT if isinstance(e.reason, CallerLeft) else End.FAILED
            recorder.ended(end, e.reason.status, e.reason)
            release(e)
            raise e.reason from None
        except GatewayError as e:
            attempts = context.trace.attempts
            if len({attempt.path for attempt in attempts}) > 1:
                e.attempts = [attempt.to_body() for attempt in attempts]
            recorder.ended(End.FAILED, e.status, e)
            raise
        except Exception:
            recorder.ended(End.FAILED, 500)
            raise
        recorder.follow(outcome)
        return outcome

    def _try_targets(self, context: RequestContext) -> Outcome:
        """The outcome of the first target that has one, in the route's order."""
        walk = RouteWalk(context.route.root, self._pick, self.breaker.available)
        target = walk.first()
        while True:
            try:
                return self._try_target(context, target)
            except GatewayError as e:
                # A target that fails without waiting for anybody lets others have
                # their turn: there may be hundreds of such in a route.
                pause()
                following = walk.after(e)
                if following is None:
                    raise
            target = following

    def _pick(self, group: Group, children: Sequence[Node]) -> Node:
        """The child of a loadbalance: by its caller if that sticks, else by weight."""
        if group.sticky is not None:
            return rendezvous(children, group.sticky)
        return pick_by_weight(children, self.clock.chance())

    def _try_target(self, context: RequestContext, target: Target) -> Outcome:
        """The outcome of *target*, with its retries. Each attempt is on the trace."""
        trace, clock, cancellation = context.trace, self.clock, context.cancellation
        retries = RetrySchedule(target, trace, clock, context.deadline)
        while True:
            try:
                with recorded_attempt(target, trace, clock, context.began) as attempted:
                    # Before anything is reserved, and before a breaker takes this
                    # attempt for its probe: one that is not made has no result.
                    cancellation.check()
                    if context.deadline is not None:
                        attempted = context.limit(attempted)
                    return self.call_target(context, attempted)
            except GatewayError as e:
                delay = retries.next_delay(e)
                if delay is None:
                    raise
            (clock.sleep or cancellation.wait)(delay)

    def call_target(self, context: RequestContext, target: Target) -> Outcome:
        """One attempt at one target, up to the commit point: its steps, in order."""
        authorize(target, context.route.permissions)
        plan = self.target_caller.plan(target)
        cached = self.cache.look_up(plan, context)
        if cached.outcome:
            return cached.outcome
        with cached, ExitStack() as guards:
            if plan.provider.embedded:
                guards.enter_context(self.quarantine.guarding(context.trace))
            counter = context.meter.reserve(plan)
            try:
                # A call that was cancelled, or not made for want of a budget, says
                # nothing of its target.
                with guard_call(self.breaker, target), context.cancellation.explained():
                    outcome = self._call(context, plan, counter)
            except BaseException:
                # What a failed attempt has used is settled now; that of the last one
                # when its answer has been sent, since a stream has just begun.
                context.meter.charge()
                raise
            headers = {**outcome.gateway_headers, **context.meter.headers}
            outcome = replace(outcome, gateway_headers=headers)
            if cached.policy:
                cached.store(outcome)
            return outcome

    def _call(
        self, context: RequestContext, plan: Plan, counter: UsageCounter
    ) -> Outcome:
        """The answer to *plan*. If an upstream's error says that it has to be asked in
        another way (through chat, without a parameter), it is, once for each reason.
        """
        while True:
            try:
                outcome = self.target_caller.call(plan, counter, context.cancellation)
            except UpstreamStatus as e:
                other_plan = replan_after_error(plan, e)
                if other_plan is None:
                    raise
                # Calls for other parts, broken off, would have been refused as well.
                counter.refuse(plan)
                context.meter.raise_to(other_plan)
                plan = other_plan
            else:
                self.target_caller.learn(plan)
                return outcome

    def models(self, target: Target, permissions: Permissions) -> Outcome:
        """The provider's own list of models. Raises GatewayError."""
        authorize_listing(target, permissions)
        return self.target_caller.models(target)

    def close(self) -> None:
        """Release connections and files."""
        self.resources.close()
