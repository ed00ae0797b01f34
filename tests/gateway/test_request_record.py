"""Who is told what became of a request."""

from app.gateway.request_record import End, Finished, tell
from app.gateway.retries import Trace


def test_everybody_is_told_though_one_fails() -> None:
    told: list[Finished] = []

    def broken(finished: Finished) -> None:
        raise RuntimeError("a hook's own trouble")

    finished = Finished(Trace(), End.WHOLE, 200, began=0, took=1)
    tell([broken, told.append], finished)

    assert told == [finished]
