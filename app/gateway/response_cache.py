"""Gives the answer to one request to an identical one again.

Identical requests that arrive together are one flight: the first calls, the others wait
for its answer. Only whole answers are kept, a stream's when it was sent to its end.
"""

from dataclasses import dataclass
from types import TracebackType

from ..core.cache_key import key
from ..core.caching import (
    CacheEntry,
    CachePolicy,
    CacheStatus,
    is_cacheable,
    replayable_headers,
)
from ..core.replay import ChunkAssembler, to_chunks
from ..planning.plan import Plan
from ..state.response_store import ResponseStore
from ..state.single_flight import FlightLeader
from ..upstream.open_calls import OpenCalls
from .context import RequestContext
from .outcome import Outcome
from .request_record import End
from .streaming.event_stream import EventStream, StoredFrames


@dataclass(slots=True)
class CacheLookup:
    """What the cache has for one plan: an outcome, or room for one.

    Used as a context, within which the target is called: if that fails, somebody else
    who waits for the same answer goes next.
    """

    cache: "ResponseCache"
    outcome: Outcome | None = None
    key: str = ""
    policy: CachePolicy | None = None
    leader: FlightLeader | None = None

    def __enter__(self) -> "CacheLookup":
        if self.leader:
            self.leader.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.leader:
            self.leader.__exit__(kind, error, trace)

    def store(self, outcome: Outcome) -> None:
        """Keep *outcome* once it is whole, and give it to those who wait for it."""
        body = outcome.body
        if isinstance(body, bytes):
            self._store_body(outcome, body)
        elif isinstance(body, EventStream):
            # Kept as a whole answer, from which either form can be made again.
            chunks = ChunkAssembler()

            def ended(end: End) -> None:
                is_whole = end is End.WHOLE
                self._store_body(
                    outcome, chunks.whole(outcome.tally.total) if is_whole else None
                )

            body.listen(frame=chunks.feed, end=ended)

    def _store_body(self, outcome: Outcome, body: bytes | None) -> None:
        """Keep the whole answer in *body*; without one, let the next caller ask."""
        responses, policy = self.cache.responses, self.policy
        if body is None or policy is None:
            if self.leader:
                self.leader.finish()
            return
        entry = CacheEntry(
            body,
            responses.now(),
            policy.max_age,
            replayable_headers(outcome.headers),
            outcome.warnings,
        )
        responses.keep(self.key, entry, self.leader)


@dataclass(frozen=True, slots=True)
class ResponseCache:
    """Looks answers up, where a config asks for that. One for each process."""

    responses: ResponseStore

    def look_up(self, plan: Plan, context: RequestContext) -> CacheLookup:
        """The answer that was given to the same request before, if there is one.

        Waits for an identical request that is under way. Raises UpstreamTimeout when
        that has no answer in time, and Cancelled.
        """
        trace, scope = context.trace, context.route.cache_scope
        target = plan.target
        policy, request = target.cache, target.request
        trace.cache = CacheStatus.DISABLED
        if policy is None or request is None or not is_cacheable(request):
            return CacheLookup(self)
        # What a caller's own credentials paid for is shared with the same ones only.
        secrets = [s.name for s in plan.provider.settings if s.secret]
        name = key(target, policy, scope, secrets=secrets)
        # Not a flight: whoever asks for a fresh answer must not get one that another
        # request had begun before.
        if scope.refreshes:
            trace.cache = CacheStatus.REFRESH
            return CacheLookup(self, key=name, policy=policy)
        entry_or_leader = self.responses.find(
            name, policy.max_age, target.request_timeout, context.cancellation.check
        )
        if isinstance(entry_or_leader, FlightLeader):
            trace.cache = CacheStatus.MISS
            return CacheLookup(self, key=name, policy=policy, leader=entry_or_leader)
        trace.cache = CacheStatus.HIT
        return CacheLookup(self, self._outcome(entry_or_leader, plan))

    def _outcome(self, entry: CacheEntry, plan: Plan) -> Outcome:
        """*entry*, whole or as a stream. Nobody is paid for it."""
        body: bytes | EventStream = entry.body
        if plan.request.stream:
            include_usage = plan.request.include_usage
            frames = list(to_chunks(entry.body, include_usage=include_usage))
            body = EventStream(StoredFrames(frames), OpenCalls())
        age = {"Age": str(int(entry.age(self.responses.now())))}
        return Outcome(body, entry.headers, plan, entry.warnings, gateway_headers=age)
