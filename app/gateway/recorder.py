"""Follows requests to their ends."""

import logging
from collections.abc import Sequence

from ..errors import GatewayError
from ..planning.plan import Plan
from .clients.cancellation import Cancellation
from .metering import RequestMeter
from .outcome import Outcome
from .request_record import End, Failure, Hook, RequestRecord, notify
from .retries import Clock, Trace
from .streaming.event_stream import EventStream

logger = logging.getLogger("lastword")


class RequestRecorder:
    """Follows one request to its end, and tells what became of it."""

    def __init__(
        self,
        trace: Trace,
        bill: RequestMeter,
        cancellation: Cancellation,
        clock: Clock,
        hooks: Sequence[Hook],
    ) -> None:
        self._trace, self._bill, self._clock, self._hooks = trace, bill, clock, hooks
        self._cancellation = cancellation
        self._began, self._started = clock.now(), clock.monotonic()
        self._first: float | None = None
        self._outcome: Outcome | None = None

    def follow(self, outcome: Outcome) -> None:
        """An answer is there, or its first event."""
        self._outcome, self._first = outcome, self._passed
        span = self._trace.span
        if isinstance(outcome.body, EventStream):
            if span:
                span.set_answer(outcome.body.opening, outcome.body.reasons)
            outcome.body.obey(self._cancellation)
            outcome.body.listen(end=self.ended)
        else:
            if span and isinstance(outcome.body, bytes):
                span.set_answer(outcome.body)
            self.ended(End.WHOLE)

    def ended(
        self, end: End, status: int = 200, error: GatewayError | None = None
    ) -> None:
        """It is over, and is paid. *status* is what the caller saw first, *error* why
        there was no answer.
        """
        bill, stream = self._bill, self._stream
        bill.close()
        finished = RequestRecord(
            self._trace,
            end,
            status,
            began=self._began,
            took=self._passed,
            first=self._first,
            model=self._model,
            stream=stream is not None,
            usage=bill.usage,
            cost=bill.cost,
            via=self._via,
            error=stream.error if stream else Failure.of(error) if error else None,
            gap=stream.pace.longest if stream else None,
            gaps=stream.pace.gaps if stream else 0,
            gap_seconds=stream.pace.seconds if stream else 0.0,
            dropped=self._plan.dropped if self._plan else (),
        )
        if end == End.LEFT:
            logger.info("client_left", extra={"trace_id": self._trace.id})
        notify(self._hooks, finished)

    @property
    def _stream(self) -> EventStream | None:
        body = self._outcome.body if self._outcome else None
        return body if isinstance(body, EventStream) else None

    @property
    def _via(self) -> str:
        return self._plan.mode.value if self._plan else ""

    @property
    def _plan(self) -> Plan | None:
        return self._outcome.plan if self._outcome else None

    @property
    def _model(self) -> str:
        """What was asked for, of the last target."""
        if self._outcome and self._outcome.plan:
            return self._outcome.plan.request.model
        target = self._trace.target
        return target.request.model if target and target.request else ""

    @property
    def _passed(self) -> float:
        return self._clock.monotonic() - self._started
