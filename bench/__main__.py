"""Measures contestants side by side, round by round.

python -m bench --rounds 5 --peers --json bench.json --svg docs/performance.svg
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import certifi
import trustme

from . import report, upstream
from .cases import CASES, WARM, Bout, Case, cold
from .contestants import OTHERS, OWN, Contestant, Places, Running
from .many import Many
from .process import OURS, pin, raise_limit, until


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each whole case")
    parser.add_argument("--peers", action="store_true", help="Portkey and LiteLLM, too")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--streams", type=int, default=2000, help="at once, or 0")
    parser.add_argument("--without", default="", help="contestants to leave out: a,b")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    contestants = [
        each
        for each in (*OWN, *(OTHERS if given.peers else ()))
        if each.name not in given.without.split(",")
    ]
    cases = [case for case in CASES if given.only in case.name]
    pin(OURS)
    raise_limit()
    found = report.added(measured(contestants, cases, given))
    names = [each.name for each in contestants]
    print(report.table(found, names), report.kept(found), sep="\n\n")
    if given.json:
        report.write_json(found, given.json)
    if given.svg:
        report.plot(found, names, given.svg)
    return 0


def measured(
    contestants: Sequence[Contestant],
    cases: Sequence[Case],
    given: argparse.Namespace,
) -> report.Found:
    """All cases of all contestants, so many rounds; interleaved."""
    found: report.Found = {}
    with called() as places:
        for turn in range(given.rounds):
            with ready(contestants, places) as running:
                bouts = [
                    Bout(each, running[each.name], places, given.seconds)
                    for each in contestants
                ]
                _round(found, cases, bouts)
            if not given.only or given.only in "cold start":
                _start(found, contestants, places)
            print(f"round {turn + 1} of {given.rounds}", file=sys.stderr, flush=True)
        _many(found, Many(given.streams), contestants, given.only, places)
    return found


def _round(found: report.Found, cases: Sequence[Case], bouts: Sequence[Bout]) -> None:
    """Each case of each contestant; the memory first, since nothing is warm then."""
    for case in [case for case in cases if case.name == "memory"]:
        _all(found, case, bouts)
    for case in WARM:
        _all({}, case, bouts)
    for case in [case for case in cases if case.name != "memory"]:
        _all(found, case, bouts)


def _all(found: report.Found, case: Case, bouts: Sequence[Bout]) -> None:
    for bout in bouts:
        if not case.needs or case.needs in bout.contestant.able:
            _note(found, case, bout)


def _note(found: report.Found, case: Case, bout: Bout) -> None:
    name = bout.contestant.name
    try:
        figures = case.measure(bout)
    except (RuntimeError, TimeoutError) as e:
        print(f"{case.name}, {name}: {e}", file=sys.stderr, flush=True)
        return
    for figure, value in figures.items():
        found.setdefault((case.name, figure, name), []).append(value)


def _many(
    found: report.Found,
    many: Many,
    contestants: Sequence[Contestant],
    only: str,
    places: Places,
) -> None:
    """Once: it takes longer than all else, and is a question of yes or no."""
    for contestant in contestants:
        if many.streams and only in many.name and "many" in contestant.able:
            for figure, value in many.measure(contestant, places).items():
                found[many.name, figure, contestant.name] = [value]


def _start(
    found: report.Found, contestants: Sequence[Contestant], places: Places
) -> None:
    for contestant in contestants:
        if "process" in contestant.able:
            seconds = cold(contestant, places)
            key = ("cold start", "start", contestant.name)
            found.setdefault(key, []).append(seconds)


@contextlib.contextmanager
def called() -> Iterator[Places]:
    """What the contestants call."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        files = [str(Path(folder, name)) for name in ("ca.pem", "cert.pem", "key.pem")]
        authority = trustme.CA()
        given = authority.issue_cert("127.0.0.1")
        # Among as many others as there are in life.
        Path(files[0]).write_bytes(Path(certifi.where()).read_bytes())
        authority.cert_pem.write_to_path(files[0], append=True)
        given.cert_chain_pems[0].write_to_path(files[1])
        given.private_key_pem.write_to_path(files[2])
        whole = stack.enter_context(upstream.whole())
        stream = stack.enter_context(upstream.streamer(upstream.Pace()))
        tls = stack.enter_context(upstream.whole((files[1], files[2])))
        closing = upstream.whole((files[1], files[2]), keeps=False)
        tls_closing = stack.enter_context(closing)
        yield Places(whole, stream, tls, tls_closing, files[0])


@contextlib.contextmanager
def ready(
    contestants: Sequence[Contestant], places: Places
) -> Iterator[dict[str, Running]]:
    """All of them, started anew and ready to answer, but not warm."""
    with contextlib.ExitStack() as stack:
        running = {}
        for each in contestants:
            running[each.name] = stack.enter_context(each.start(places, 1))
            bout = Bout(each, running[each.name], places, 0)
            until(bout.is_ready, each.patience)
        yield running


if __name__ == "__main__":
    sys.exit(main())
