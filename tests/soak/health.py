"""The latency of /healthz, measured in a separate, idle process.

    python -m tests.soak.health URL

Sends a request every 20 ms until its input ends, then prints the latencies as JSON.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import requests


@contextmanager
def health(url: str) -> Iterator[list[float]]:
    """The latencies of all answers during the block, in seconds, available after it."""
    command = [sys.executable, "-m", "tests.soak.health", url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "begun\n"
        seconds: list[float] = []
        try:
            yield seconds
        finally:
            process.stdin.close()
            seconds += json.loads(process.stdout.read())


def quantile(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main(url: str) -> None:
    seconds = []
    with requests.Session() as session:
        session.get(url + "/healthz", timeout=60)
        print("begun", flush=True)
        while not select.select([sys.stdin], [], [], 0.02)[0]:
            began = time.monotonic()
            session.get(url + "/healthz", timeout=60)
            seconds.append(time.monotonic() - began)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1])
