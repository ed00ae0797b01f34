"""Hooks that receive the record of a finished request."""

from app.gateway.request_record import End, RequestRecord, notify
from app.gateway.retries import Trace


def test_failing_hook_stops_no_other() -> None:
    received: list[RequestRecord] = []

    def broken(record: RequestRecord) -> None:
        raise RuntimeError("a hook's own trouble")

    record = RequestRecord(Trace(), End.WHOLE, 200, began=0, took=1)
    notify([broken, received.append], record)

    assert received == [record]
