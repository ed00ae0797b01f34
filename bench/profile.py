"""Where a gateway under load spends its processor time: `make bench-profile`.

Samples of whoever holds the interpreter's lock; system calls are outside of it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

from .__main__ import called, ready
from .cases import CASES, WARM, Bout
from .contestants import OWN
from .process import OURS, ROOT, pin

_LASTWORD = next(each for each in OWN if each.name == "lastword")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.profile", description=__doc__)
    parser.add_argument("--case", default="whole, 32 connections")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--svg", type=Path, help="a flame graph, in place of a table")
    given = parser.parse_args()
    case = next(case for case in CASES if case.name == given.case)
    pin(OURS)
    with called() as places, ready([_LASTWORD], places) as running:
        bout = Bout(_LASTWORD, running["lastword"], places, given.seconds + 2)
        for warm in WARM:
            warm.measure(bout)
        load = Thread(target=case.measure, args=(bout,))
        load.start()
        try:
            _profile(bout.running.worker, given)
        finally:
            load.join()
    return 0


def _profile(pid: int, given: argparse.Namespace) -> None:
    if given.svg:
        _record(pid, given.seconds, "flamegraph", given.svg)
        return
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder, "stacks")
        _record(pid, given.seconds, "raw", stacks)
        print(_table(stacks.read_text(), given.rows))


def _record(pid: int, seconds: float, kind: str, out: Path) -> None:
    spy = Path(sys.executable).parent / "py-spy"
    command = [str(spy), "record", "--gil", "--nonblocking", "--rate", "500"]
    named = ["--format", kind, "--output", str(out), "--pid", str(pid)]
    subprocess.run(
        [*command, *named, "--duration", f"{seconds:.0f}"],
        check=True,
        capture_output=True,
    )


def _table(stacks: str, rows: int) -> str:
    """Functions by the share of samples that end in them, and that go through them."""
    own, through = Counter[str](), Counter[str]()
    for frames, count in _stacks(stacks):
        own[frames[-1]] += count
        through.update(dict.fromkeys(frames, count))
    whole = own.total() or 1
    first = [f"{100 * n / whole:5.1f}% {name}" for name, n in own.most_common(rows)]
    second = [f"{100 * n / whole:5.1f}% {n_}" for n_, n in through.most_common(rows)]
    width = max(map(len, first), default=0)
    head = f"{'its own':<{width}}  in all"
    pairs = zip(first, second, strict=False)
    return "\n".join([head, *(f"{a:<{width}}  {b}" for a, b in pairs)])


def _stacks(text: str) -> Iterator[tuple[list[str], int]]:
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        yield [_short(frame) for frame in stack.split(";")], int(count)


def _short(frame: str) -> str:
    """A frame without its line, and with a path that fits."""
    name, _, place = frame.rpartition(" (")
    path = place.rpartition(":")[0].replace(f"{ROOT}/", "")
    return f"{name} ({'/'.join(path.split('/')[-2:])})"


if __name__ == "__main__":
    sys.exit(main())
