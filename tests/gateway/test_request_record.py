"""Who is told what became of a request."""

from app.gateway.request_record import End, RequestRecord, notify
from app.gateway.retries import Trace


def test_everybody_is_told_though_one_fails() -> None:
    told: list[RequestRecord] = []

    def broken(finished: RequestRecord) -> None:
        raise RuntimeError("a hook's own trouble")

    finished = RequestRecord(Trace(), End.WHOLE, 200, began=0, took=1)
    notify([broken, told.append], finished)

    assert told == [finished]
