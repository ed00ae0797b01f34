"""The time from a caller's hang-up to the end of the upstream calls.

    python -m tests.soak.hangups --times 20

In every situation, directly and through nginx. Ends with 1 if one takes too long.
"""

import argparse
import socket
import sys
import time
from collections.abc import Callable

from tests.e2e.nginx import Nginx, nowhere
from tests.e2e.server import Server, eventually
from tests.e2e.test_hangups import SITUATIONS, Situation, has_called, request
from tests.upstream import Upstream

# Seconds.
_PROMISED = 1.0

Connect = Callable[[], socket.socket]


def took(connect: Connect, situation: Situation) -> float:
    """Seconds from the hang-up to the end of the last call."""
    upstream = Upstream([situation.answer])
    connection = connect()
    connection.sendall(request(upstream, situation))
    eventually(lambda: has_called(upstream, situation.calls))
    began = time.monotonic()
    connection.close()
    closed = upstream.wait_closed(10)
    seconds = time.monotonic() - began
    upstream.stop()
    return seconds if closed and has_called_no_more(upstream, situation) else 99.0


def has_called_no_more(upstream: Upstream, situation: Situation) -> bool:
    return len(upstream.requests) == situation.calls


def measured(label: str, connect: Connect, times: int) -> bool:
    """Print a row for each situation. Whether all of them are fast enough."""
    worst = []
    for name, situation in SITUATIONS.items():
        seconds = sorted(took(connect, situation) for _ in range(times))
        worst.append(seconds[min(times - 1, times * 99 // 100)])
        middle = seconds[times // 2]
        print(
            f"{label:>8}  {name:<28} {middle:>5.2f} s {worst[-1]:>5.2f} s", flush=True
        )
    return max(worst) <= _PROMISED


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--worker", default="gevent")
    args = parser.parse_args()
    arguments = f"-k {args.worker} --threads 16"
    server = Server(GUNICORN_CMD_ARGS=arguments, WEB_CONCURRENCY="1")
    try:
        print(f"{'':>8}  {'a caller leaves':<28} {'median':>7} {'p99':>7}")
        kept = measured("direct", server.connect, args.times)
        with Nginx(server.url, nowhere()) as nginx:
            kept &= measured("nginx", nginx.connect, args.times)
    finally:
        server.stop()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
