"""Profiles the gateway under load: `make bench-profile`.

py-spy samples only the thread that holds the GIL: system calls release it, so the time
of the kernel is not in the profile.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from threading import Thread

from .__main__ import start_all, start_upstreams
from .cases import CASES, WARM, Trial
from .contestants import OWN
from .process import OURS, ROOT, pin

_LASTWORD = next(each for each in OWN if each.name == "lastword")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.profile", description=__doc__)
    parser.add_argument("--case", default="whole, 32 connections")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--svg", type=Path, help="a flame graph, in place of a table")
    options = parser.parse_args()
    case = next(case for case in CASES if case.name == options.case)
    pin(OURS)
    with start_upstreams() as upstreams, start_all([_LASTWORD], upstreams) as servers:
        trial = Trial(_LASTWORD, servers["lastword"], upstreams, options.seconds + 2)
        for warm in WARM:
            warm.measure(trial)
        load = Thread(target=case.measure, args=(trial,))
        load.start()
        try:
            pid = trial.running.worker
            if options.svg:
                _record(pid, options.seconds, "flamegraph", options.svg)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    stacks = Path(folder, "stacks")
                    _record(pid, options.seconds, "raw", stacks)
                    print(_table(stacks.read_text(), options.rows))
        finally:
            load.join()
    return 0


def _record(pid: int, seconds: float, kind: str, out: Path) -> None:
    spy = Path(sys.executable).parent / "py-spy"
    # --nonblocking: to pause the process for each sample would distort the times.
    command = [str(spy), "record", "--gil", "--nonblocking", "--rate", "500"]
    arguments = ["--format", kind, "--output", str(out), "--pid", str(pid)]
    subprocess.run(
        [*command, *arguments, "--duration", f"{seconds:.0f}"],
        check=True,
        capture_output=True,
    )


def _table(stacks: str, rows: int) -> str:
    """Functions by the share of samples that end in them, and that go through them."""
    # A line of py-spy's raw format, a stack and its count: "outer;inner;innermost 12".
    self_counts, total_counts = Counter[str](), Counter[str]()
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames, count = [_short(frame) for frame in stack.split(";")], int(samples)
        self_counts[frames[-1]] += count
        # Once for each stack, also for a recursive function.
        total_counts.update(dict.fromkeys(frames, count))
    whole = self_counts.total() or 1
    first = [
        f"{100 * n / whole:5.1f}% {name}" for name, n in self_counts.most_common(rows)
    ]
    second = [
        f"{100 * n / whole:5.1f}% {n_}" for n_, n in total_counts.most_common(rows)
    ]
    width = max(map(len, first), default=0)
    head = f"{'its own':<{width}}  in all"
    pairs = zip(first, second, strict=False)
    return "\n".join([head, *(f"{a:<{width}}  {b}" for a, b in pairs)])


def _short(frame: str) -> str:
    """A frame without its line, and with a path that fits."""
    name, _, location = frame.rpartition(" (")
    path = location.rpartition(":")[0].replace(f"{ROOT}/", "")
    return f"{name} ({'/'.join(path.split('/')[-2:])})"


if __name__ == "__main__":
    sys.exit(main())
