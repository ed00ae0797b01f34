"""Follows requests to their ends."""

import logging
from collections.abc import Sequence

from ..errors import GatewayError
from ..planning.plan import Plan
from .context import RequestContext
from .outcome import Outcome
from .request_record import End, Failure, Hook, RequestRecord
from .streaming.event_stream import EventStream

logger = logging.getLogger("lastword")


class RequestRecorder:
    """Follows one request to its end, then hands its record to the hooks."""

    def __init__(self, context: RequestContext, hooks: Sequence[Hook]) -> None:
        self._trace, self._meter = context.trace, context.meter
        self._clock, self._hooks = context.clock, hooks
        self._cancellation = context.cancellation
        self._began, self._started = context.clock.now(), context.clock.monotonic()
        self._first: float | None = None
        self._outcome: Outcome | None = None

    def follow(self, outcome: Outcome) -> None:
        """An answer is there, or its first event."""
        self._outcome, self._first = outcome, self._passed
        span = self._trace.span
        if isinstance(outcome.body, EventStream):
            if span:
                span.set_answer(outcome.body.opening, outcome.body.finish_reasons)
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
        stream = self._stream
        usage, cost = self._meter.close()
        finished = RequestRecord(
            self._trace,
            end,
            status,
            began=self._began,
            took=self._passed,
            first=self._first,
            model=self._model,
            stream=stream is not None,
            usage=usage,
            cost=cost,
            via=self._via,
            error=stream.error if stream else Failure.of(error) if error else None,
            gap=stream.gaps.longest if stream else None,
            gaps=stream.gaps.gaps if stream else 0,
            gap_seconds=stream.gaps.seconds if stream else 0.0,
            dropped=self._plan.dropped if self._plan else (),
        )
        if end == End.LEFT:
            logger.info("client_left", extra={"trace_id": self._trace.id})
        for hook in self._hooks:
            # One that fails affects neither the others nor the request.
            try:
                hook(finished)
            except Exception:
                logger.exception("a hook failed")

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
