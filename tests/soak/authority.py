"""Random configs, keys and forwarded headers: no call exceeds its permissions.

The long form of tests/authority: run with `python -m tests.soak.authority`. Each
gateway is a new one with its own store, and gets 200 requests. A violation is printed
with the seed that reproduces it, and the exit code is 1.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.authority import forwarding, world

_EACH = 200

Run = Callable[[Path, int, int], tuple[int, int]]


def _one(run: Run, seed: int) -> tuple[int, int, str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return *run(Path(folder), seed, _EACH), ""
        except AssertionError as e:
            return 0, 0, f"seed {seed}: {e}"


def _report(what: str, run: Run, requests: int, seed: int, processes: int) -> int:
    seeds = range(seed, seed + -(-requests // _EACH))
    began = time.monotonic()
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        results = list(pool.map(_one, [run] * len(seeds), seeds, chunksize=4))
    answered, calls = sum(r[0] for r in results), sum(r[1] for r in results)
    failures = [message for *_, message in results if message]
    print(
        f"{what}: {len(seeds) * _EACH} requests to {len(seeds)} gateways, "
        f"{answered} answered, {calls} arrivals, {len(failures)} failures, "
        f"in {time.monotonic() - began:.0f} s"
    )
    print(*failures[:10], sep="\n", end="\n" if failures else "")
    return len(failures)


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.soak.authority")
    options.add_argument("--requests", type=int, default=100_000)
    options.add_argument("--headers", type=int, default=50_000)
    options.add_argument("--seed", type=int, default=1_000)
    options.add_argument("--processes", type=int, default=2)
    chosen = options.parse_args(argv)
    rest = chosen.seed, chosen.processes
    failures = _report("authority", world.run, chosen.requests, *rest)
    failures += _report("forwarding", forwarding.run, chosen.headers, *rest)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
