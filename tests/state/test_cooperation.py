"""Under gevent, waiting for a file or for Redis blocks no other greenlet."""

import subprocess
import sys
from pathlib import Path

from ..e2e.server import ROOT

LOCKED = """
from gevent import monkey; monkey.patch_all()
import sqlite3, sys
from pathlib import Path
import gevent
from app.core.counters import UsageRequest
from app.core.limits import Limits
from app.state.meter import Meter
from app.state.local_store import LocalCounters, LocalFile

file = LocalFile(Path(sys.argv[1]))
meter = Meter(LocalCounters(file))
mine = [UsageRequest("key:a", Limits(requests_per_minute=9))]
meter.reserve(mine, 0.0)
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
waiting = [gevent.spawn(meter.reserve, mine, 0.0) for _ in range(3)]
gevent.sleep(0.01)
print(any(each.ready() for each in waiting))
other.execute("ROLLBACK")
headers = [each.get()[0].headers for each in waiting]
print(sorted(each["x-ratelimit-remaining-requests"] for each in headers))
other.close(); file.close()
"""

SILENT = """
from gevent import monkey; monkey.patch_all()
import socket
import gevent
from app.state.redis_store import RedisUnavailable, RedisClient, RedisCounters

with socket.create_server(("127.0.0.1", 0), backlog=20) as server:
    client = RedisClient(f"redis://127.0.0.1:{server.getsockname()[1]}")
    counters = RedisCounters(client)

    def ask():
        try:
            counters.reserve("id", (), 0.0)
        except RedisUnavailable:
            return "unavailable"

    waiting = [gevent.spawn(ask) for _ in range(3)]
    gevent.sleep(0.01)
    print(any(each.ready() for each in waiting))
    print([each.get() for each in waiting])
    client.close()
"""


def printed(script: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.check_output(command, cwd=ROOT, text=True).splitlines()


def test_locked_file_blocks_no_greenlet(
    tmp_path: Path,
) -> None:
    lines = printed(LOCKED, str(tmp_path / "limits.db"))

    assert lines == ["False", "['5', '6', '7']"]


def test_silent_redis_blocks_no_greenlet() -> None:
    assert printed(SILENT) == ["False", "['unavailable', 'unavailable', 'unavailable']"]
