"""Conditions with the most work that is allowed, while /healthz has to answer.

    python -m tests.soak.patterns --seconds 60 --worker gevent

A real gunicorn with one worker gets several such requests at a time: patterns of all
families for which RE2 leaves its automaton, each with the longest text that still
passes, and those that are refused. Another process requests /healthz meanwhile.
Prints p50, p99 and the maximum of its latency, and the slowest of those requests. Ends
with 1 if the promise is broken, or if an answer has an unexpected status.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import requests

from app.api.routing import patterns
from tests.e2e.server import Server
from tests.soak.health import health, quantile
from tests.upstream import Upstream, completion, whole

# The promised latency of /healthz, in seconds.
PROMISED = 0.1
_AT_A_TIME = 6

# Sizes of the repetition in a family.
_SIZES = (10, 30, 60, 100, 200, 300, 450, 900)

FAMILIES: dict[str, Callable[[int], str]] = {
    "a[ab]{n}c": lambda n: f"a[ab]{{{n}}}c",
    "ignoring case": lambda n: f"(?i)a[ab]{{{n}}}c",
    "choices": lambda n: f"(a|b)*a(a|b){{{n}}}c",
    "choices of several": lambda n: f"(a|ab|ba){{{n}}}c",
    "words": lambda n: f"a\\w{{{n}}}c",
    "any character": lambda n: f"a.{{{n}}}c",
    "any, beyond ASCII": lambda n: f"(?s)a.{{{n}}}\\x{{1f600}}",
    "optional": lambda n: f"(a?){{{n}}}a{{{n}}}c",
    "optional choices": lambda n: f"(a?b?){{{n}}}c",
    "loops": lambda n: f"(?:a[ab]*){{{n}}}c",
    "at the end": lambda n: f"(a|aa){{{n}}}$c",
    "three at once": lambda n: "|".join(f"{c}[a-e]{{{n}}}z" for c in "abc"),
    "letters": lambda n: f"a\\p{{Greek}}?[ab]{{{n}}}c",
}

_CHANCE = random.Random(1)
TEXTS = {
    "a and b": "".join(_CHANCE.choices("ab", k=2**18)),
    "a": "a" * 2**18,
    "a to e": "".join(_CHANCE.choices("abcde", k=2**18)),
    "mostly a": ("a" * 50 + "b") * (2**18 // 51),
    "beyond ASCII": "".join(_CHANCE.choices("ab\u00e9\u4e2d", k=2**16)),
}


@dataclass(frozen=True)
class Bomb:
    """A request, and the statuses with which it may be answered."""

    name: str
    regexes: Sequence[str]
    prompt: str | list[str]
    statuses: tuple[int, ...] = (200, 400)


def bombs() -> list[Bomb]:
    """Requests with the most work; of each family the largest accepted size."""
    cases = [*_of_families()]
    loops = "(?:a[ab]*){900}c"
    cases += [
        Bomb("an array of texts", ["a[ab]{100}c"], [TEXTS["a and b"][:3000]] * 300),
        Bomb("an array of short texts", ["a[ab]{9}c"] * 4, ["ab"] * 10_000),
        Bomb("a long text", ["abc"], "a" * 300_000, (400,)),
        Bomb("a product", [loops], "a" * 200_000, (400,)),
        Bomb("a large program", [".{1000}"], "a", (400,)),
        Bomb("a long pattern", ["a" * 501], "a", (400,)),
        Bomb("many patterns", ["a"] * 33, "a", (400,)),
        Bomb("an issue's example", ["a[ab]{300}cN"] * 5, "ab" * 500_000, (400,)),
        Bomb("many classes", [r"\pL" * 17], "a", (400,)),
        Bomb("much to compile", [rf"(?i)\pL{{9}}{i}" for i in range(32)], "a", (400,)),
    ]
    return cases


def _of_families() -> Iterator[Bomb]:
    for name, family in FAMILIES.items():
        for size in _SIZES:
            regex = family(size)
            try:
                program = patterns.compile_pattern(regex)
            except ValueError:
                continue
            steps = patterns.MOST_STEPS // patterns.program_size(program)
            longest = min(steps, patterns.LONGEST_TEXT)
            for kind, text in TEXTS.items():
                cut = text.encode()[:longest].decode("utf-8", "ignore")
                yield Bomb(f"{name} {size}, {kind}", [regex] * 5, cut)


def config(regexes: Sequence[str], upstream: str) -> str:
    query = {"$or": [{"params.prompt": {"$regex": each}} for each in regexes]}
    target = {"provider": "openai", "api_key": "k", "custom_host": upstream}
    strategy = {
        "mode": "conditional",
        "conditions": [{"query": query, "then": "a"}],
        "default": "a",
    }
    return json.dumps({"strategy": strategy, "targets": [target | {"name": "a"}]})


@dataclass(frozen=True)
class Answered:
    """The outcome of a request."""

    bomb: Bomb
    status: int
    seconds: float
    code: str | None = None


def attack(
    server: Server, upstream: str, chosen: Sequence[Bomb], seconds: float
) -> list[Answered]:
    """Send each bomb once, several in parallel, and repeat for so many seconds."""
    until = time.monotonic() + seconds
    waiting = iter(_again(chosen, until))
    lock, answered = threading.Lock(), list[Answered]()

    def work() -> None:
        while True:
            with lock:
                bomb = next(waiting, None)
            if bomb is None:
                return
            answered.append(_sent(server, upstream, bomb))

    threads = [threading.Thread(target=work) for _ in range(_AT_A_TIME)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered


def _again(chosen: Sequence[Bomb], until: float) -> Iterator[Bomb]:
    yield from chosen
    while time.monotonic() < until:
        yield from (bomb for bomb in chosen if time.monotonic() < until)


def _sent(server: Server, upstream: str, bomb: Bomb) -> Answered:
    began = time.monotonic()
    response = requests.post(
        server.url + "/v1/completions",
        json={"model": "m", "prompt": bomb.prompt},
        headers={
            "x-portkey-config": config(bomb.regexes, upstream),
            "Connection": "close",
        },
        timeout=120,
    )
    error = response.json().get("error") or {}
    took = time.monotonic() - began
    return Answered(bomb, response.status_code, took, error.get("code"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--worker", default="gevent")
    args = parser.parse_args()
    upstream = Upstream([whole(completion())])
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {args.worker} --threads 16",
        WEB_CONCURRENCY="1",
        GATEWAY_TRUSTED_CUSTOM_HOSTS="127.0.0.1",
    )
    try:
        with health(server.url) as idle:
            time.sleep(2)
        with health(server.url) as busy:
            answered = attack(server, upstream.url, bombs(), args.seconds)
    finally:
        server.stop()
        upstream.stop()
    print(f"{'/healthz':>10} {'p50':>10} {'p99':>10} {'max':>10} {'answers':>8}")
    for name, seconds in (("idle", idle), ("busy", busy)):
        row = [quantile(seconds, share) for share in (0.5, 0.99, 1)]
        columns = " ".join(f"{1000 * each:>7.1f} ms" for each in row)
        print(f"{name:>10} {columns} {len(seconds):>8}")
    slowest = sorted(answered, key=lambda each: -each.seconds)[:5]
    for each in slowest:
        print(f"{each.seconds:>8.2f} s  {each.status}  {each.bomb.name}")
    print(Counter((each.status, each.code) for each in answered))
    wrong = [each for each in answered if each.status not in each.bomb.statuses]
    for each in wrong:
        print(f"{each.bomb.name}: {each.status}, not {each.bomb.statuses}")
    return 0 if quantile(busy, 1) <= PROMISED and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
