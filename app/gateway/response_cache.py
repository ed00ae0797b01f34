"""Gives the answer to one request to an identical one again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..core.cache_key import key
from ..core.caching import (
    CacheEntry,
    CachePolicy,
    CacheScope,
    CacheStatus,
    is_repeatable,
    repeated,
)
from ..core.replay import ChunkAssembler, to_chunks
from ..planning.plan import Plan
from ..providers import Provider
from ..state.response_store import ResponseStore
from ..state.single_flight import FlightLeader
from ..upstream.open_calls import OpenCalls
from .clients.cancellation import Cancellation
from .outcome import Outcome, UsageCounter
from .request_record import End
from .retries import Trace
from .streaming.event_stream import EventStream

Ask = Callable[[Plan], Outcome]


@dataclass(frozen=True, slots=True)
class ResponseCache:
    """Gives answers again, where a config asks for that. One for each process."""

    answers: ResponseStore

    def outcome(
        self,
        plan: Plan,
        asker: CacheScope,
        trace: Trace,
        ask: Ask,
        cancellation: Cancellation,
    ) -> Outcome:
        """The answer that was given before; else that of *ask*, which is kept.

        Only whole ones are. Raises what *ask* raises, UpstreamTimeout when somebody
        else has asked the same and gets no answer in time, and Cancelled.
        """
        policy, request = plan.target.cache, plan.target.request
        trace.cache = CacheStatus.DISABLED
        if policy is None or request is None or not is_repeatable(request):
            return ask(plan)
        name = key(plan.target, policy, asker, secrets=_secrets(plan.provider))
        if asker.refreshes:
            trace.cache = CacheStatus.REFRESH
            return self._kept(name, policy, ask(plan), None)
        wait = plan.target.request_timeout
        found = self.answers.find(name, policy.max_age, wait, cancellation.check)
        if isinstance(found, CacheEntry):
            trace.cache = CacheStatus.HIT
            return self._again(found, plan)
        trace.cache = CacheStatus.MISS
        with found:
            return self._kept(name, policy, ask(plan), found)

    def _again(self, entry: CacheEntry, plan: Plan) -> Outcome:
        """*entry*, whole or as a stream. Nobody is paid for it."""
        body: bytes | EventStream = entry.body
        if plan.request.stream:
            include_usage = plan.request.include_usage
            pieces = to_chunks(entry.body, include_usage=include_usage)
            body = EventStream(pieces, OpenCalls())
        age = {"Age": str(int(entry.age(self.answers.now())))}
        return Outcome(body, entry.headers, plan, entry.warnings, gateway_headers=age)

    def _kept(
        self,
        name: str,
        policy: CachePolicy,
        outcome: Outcome,
        lead: FlightLeader | None,
    ) -> Outcome:
        """*outcome*, which is kept once it is whole, and given to those who wait."""
        body, keep = outcome.body, partial(self._keep, name, policy, outcome, lead)
        if isinstance(body, EventStream):
            _joined(body, outcome.tally, keep)
        elif isinstance(body, bytes):
            keep(body)
        return outcome

    def _keep(
        self,
        name: str,
        policy: CachePolicy,
        outcome: Outcome,
        lead: FlightLeader | None,
        body: bytes | None,
    ) -> None:
        """Keep the whole answer in *body*; without one, let the next one ask."""
        if body is None:
            if lead:
                lead.finish()
            return
        entry = CacheEntry(
            body,
            self.answers.now(),
            policy.max_age,
            repeated(outcome.headers),
            outcome.warnings,
        )
        self.answers.keep(name, entry, lead)


def _joined(
    stream: EventStream, tally: UsageCounter, keep: Callable[[bytes | None], None]
) -> None:
    """Have the answer in *stream* kept when it was sent to its end."""
    joined = ChunkAssembler()

    def ended(end: End) -> None:
        keep(joined.whole(tally.total) if end == End.WHOLE else None)

    stream.listen(frame=joined.feed, end=ended)


def _secrets(provider: Provider) -> list[str]:
    return [setting.name for setting in provider.settings if setting.secret]
