"""The ledger under a real gunicorn with several workers loses no row."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.upstream import completion, whole

from .server import Server, route_headers

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_ledger_is_complete_after_stop(script, tmp_path: Path, worker: str) -> None:
    """Every request has one row, although the server stops right after."""
    upstream = script(whole(completion()))
    headers = route_headers(upstream)
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {worker} --threads 16",
        WEB_CONCURRENCY="2",
        GATEWAY_INSTANCE=str(tmp_path),
    )

    def complete(number: int) -> int:
        return server.complete(
            {**headers, "x-portkey-trace-id": str(number)}
        ).status_code

    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(complete, range(60))) == {200}
    finally:
        server.stop()

    connection = sqlite3.connect(tmp_path / "gateway.db")
    ids = [trace for (trace,) in connection.execute("SELECT trace_id FROM requests")]
    connection.close()
    assert sorted(ids, key=int) == [str(number) for number in range(60)]
