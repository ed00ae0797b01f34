"""Measures all contestants in alternation, round by round.

python -m bench --rounds 5 --peers --json bench.json --svg docs/performance.svg
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import certifi
import trustme

from . import report, upstream
from .cases import CASES, WARM, Case, Trial, cold_start
from .contestants import OWN, PEERS, Contestant, Server, Upstreams, earlier
from .many_streams import ManyStreams
from .process import OURS, pin, raise_limit, wait_until


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each whole case")
    parser.add_argument("--peers", action="store_true", help="Portkey and LiteLLM, too")
    parser.add_argument("--against", type=Path, help="a checkout of an earlier state")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--streams", type=int, default=2000, help="at once, or 0")
    parser.add_argument("--without", default="", help="contestants to leave out: a,b")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    contestants = [
        each
        for each in (
            *OWN,
            *([earlier(options.against)] if options.against else ()),
            *(PEERS if options.peers else ()),
        )
        if each.name not in options.without.split(",")
    ]
    cases = [case for case in CASES if options.only in case.name]
    pin(OURS)
    raise_limit()
    results = report.with_added_latency(measure_all(contestants, cases, options))
    names = [each.name for each in contestants]
    print(report.table(results, names), report.promise_lines(results), sep="\n\n")
    if options.json:
        report.write_json(results, options.json)
    if options.svg:
        report.plot(results, names, options.svg)
    return 0


def measure_all(
    contestants: Sequence[Contestant],
    cases: Sequence[Case],
    options: argparse.Namespace,
) -> report.Results:
    """All cases of all contestants in each round, interleaved.

    A machine's speed drifts over minutes, by temperature and neighbours. So contestants
    are started anew in each round and take turns case by case: what is compared was
    measured within seconds.
    """
    results: report.Results = {}
    # Memory comes first: after the other cases it would include their caches and pools.
    memory = [case for case in cases if case.name == "memory"]
    others = [case for case in cases if case.name != "memory"]
    with start_upstreams() as upstreams:
        for number in range(options.rounds):
            with start_all(contestants, upstreams) as servers:
                trials = [
                    Trial(each, servers[each.name], upstreams, options.seconds)
                    for each in contestants
                ]
                run_cases(memory, trials, results)
                run_cases(WARM, trials, {})
                run_cases(others, trials, results)
            # After the others have ended, so that the start has the processor alone.
            for each in contestants if options.only in "cold start" else ():
                if "process" in each.features:
                    key = ("cold start", "start", each.name)
                    results.setdefault(key, []).append(cold_start(each, upstreams))
            print(
                f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True
            )
        # Not in each round, as it takes longer than all other cases together.
        many = ManyStreams(options.streams)
        for each in contestants if many.streams and options.only in many.name else ():
            if "many" in each.features:
                for metric, value in many.measure(each, upstreams).items():
                    results[many.name, metric, each.name] = [value]
    return results


def run_cases(
    cases: Sequence[Case], trials: Sequence[Trial], results: report.Results
) -> None:
    """Add the measurements of each case to *results*. A failure is only reported."""
    for case, trial in itertools.product(cases, trials):
        name = trial.contestant.name
        if case.needs and case.needs not in trial.contestant.features:
            continue
        try:
            measurements = case.measure(trial)
        except (RuntimeError, TimeoutError) as e:
            print(f"{case.name}, {name}: {e}", file=sys.stderr, flush=True)
            continue
        for metric, value in measurements.items():
            results.setdefault((case.name, metric, name), []).append(value)


@contextlib.contextmanager
def start_upstreams() -> Iterator[Upstreams]:
    """The upstreams that the contestants call."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        files = [str(Path(folder, name)) for name in ("ca.pem", "cert.pem", "key.pem")]
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        # With as many other authorities as a real bundle: OpenSSL parses all of them
        # for each new context.
        Path(files[0]).write_bytes(Path(certifi.where()).read_bytes())
        authority.cert_pem.write_to_path(files[0], append=True)
        certificate.cert_chain_pems[0].write_to_path(files[1])
        certificate.private_key_pem.write_to_path(files[2])
        whole = stack.enter_context(upstream.whole())
        stream = stack.enter_context(upstream.streamer(upstream.EventRate()))
        tls = stack.enter_context(upstream.whole((files[1], files[2])))
        closing = upstream.whole((files[1], files[2]), keeps=False)
        tls_closing = stack.enter_context(closing)
        yield Upstreams(whole, stream, tls, tls_closing, files[0])


@contextlib.contextmanager
def start_all(
    contestants: Sequence[Contestant], upstreams: Upstreams
) -> Iterator[dict[str, Server]]:
    """All contestants, started anew and ready to answer, but not warmed up."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for each in contestants:
            servers[each.name] = stack.enter_context(each.start(upstreams, 1))
            trial = Trial(each, servers[each.name], upstreams, 0)
            wait_until(trial.is_ready, each.patience)
        yield servers


if __name__ == "__main__":
    sys.exit(main())
