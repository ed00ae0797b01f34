"""Hooks that receive the record of a finished request."""

import time
from typing import Any

from app.core.routing import Route, Target
from app.gateway.clients.cancellation import Cancellation
from app.gateway.context import RequestContext
from app.gateway.metering import Metering
from app.gateway.recorder import RequestRecorder
from app.gateway.request_record import End, RequestRecord
from app.gateway.retries import Clock, Trace


def test_failing_hook_stops_no_other() -> None:
    received: list[RequestRecord] = []
    no_counters: Any = None
    route = Route(Target("openai"))
    meter = Metering(no_counters, (), time.time).new_meter(route)
    context = RequestContext(route, Trace(), meter, Cancellation(), Clock())

    def broken(record: RequestRecord) -> None:
        raise RuntimeError("a hook's own trouble")

    RequestRecorder(context, [broken, received.append]).ended(End.FAILED, 502)

    assert [record.status for record in received] == [502]
