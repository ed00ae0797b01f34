"""Requests that would crash or stall the embedded engine, beside another stream.

    python -m tests.soak.grammars --seconds 120

Prints a row for each request: its status, its seconds, and the longest pause of the
stream meanwhile. Ends with 1 if the engine's process has changed, if the stream has
ended or paused for too long, or if a request that must be refused was accepted.
"""

import argparse
import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from app.providers import gbnf
from tests.e2e.server import Server, children, command_line

# Seconds that a neighbour's stream may pause. An ambiguous grammar is bounded by
# llguidance alone, which stops at 50,000 items for each token.
_PAUSE = 3.0

Body = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One hostile request and its answer. *is_refused*: it has to be refused."""

    name: str
    is_refused: bool
    status: int
    seconds: float
    pause: float = 0.0


def chain(length: int) -> str:
    rules = "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(length))
    return f'root ::= r0\n{rules}r{length} ::= "x"\n'


def nested(levels: int, **changes: Any) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, **changes}
    return schema


def either(levels: int) -> Any:
    if levels == 0:
        return {"type": "integer"}
    below = {"type": "array", "items": either(levels - 1)}
    return {"anyOf": [below, below | {"minItems": 1}]}


# Requests that are refused before the engine gets them. The first one crashed it with
# a stack overflow; most others stalled it for minutes.
REFUSED: dict[str, Body] = {
    "grammar: 200,000 groups": {"grammar": "root ::= " + "(" * 200_000},
    "grammar: 1,000 closed groups": {
        "grammar": "root ::= " + "(" * 1000 + '"a"' + ")" * 1000
    },
    "grammar: left recursion": {"grammar": 'root ::= root "x" | "y"'},
    "grammar: repetitions that multiply": {
        "grammar": 'root ::= ((("a"{1,99}){1,99}){1,99})'
    },
    "grammar: not GBNF": {"grammar": '%llguidance {}\nstart: "a"{1000000}'},
    "grammar: long": {"grammar": "root ::= " + '"a" ' * 100_000},
    "schema: 200 levels": {"json_schema": nested(200)},
    "schema: a million items": {"json_schema": nested(1, minItems=10**6)},
    "schema: 100,000 values": {"json_schema": {"enum": [*range(100_000)]}},
    "schema: elsewhere": {"json_schema": {"$ref": "https://127.0.0.1:1/x"}},
    "logit_bias: 100,000 tokens": {"logit_bias": {str(i): 1 for i in range(10**5)}},
    "dry: a window of 2**31": {"dry_penalty_last_n": 2**31 - 1, "dry_multiplier": 1},
    "repeat: a window of 2**31": {"repeat_last_n": 2**31 - 1},
    "samplers: infill": {"samplers": ["infill"]},
    "prompt: 5 MB": {"prompt": "a" * 5_000_000},
    "prompt: a million tokens": {"prompt": [5] * 1_000_000},
    "prompt: 250,000 characters": {"prompt": "a" * 250_000},
    "prompt: 30 of them": {"prompt": ["a" * 250_000] * 30},
    "prompt: unknown tokens": {"prompt": [49_152, 2**31, 2**62]},
    "suffix: 5 MB": {"suffix": "a" * 5_000_000},
    "stop: 1,000 sequences": {"stop": [f"{i}" for i in range(1000)]},
}

# Requests that are within all bounds with as much work as possible, or dropped.
PASSED: dict[str, Body] = {
    "grammar: 2**100 ways to one rule": {"grammar": chain(100)},
    "grammar: ambiguous": {"grammar": 'root ::= "a" root "b" | "a" root "c" | "d"'},
    "grammar: Catalan": {
        "grammar": 'root ::= "a" root root root | "a" root root | "a" root | "a"'
    },
    "grammar: 200 loops": {"grammar": "root ::= " + "[^z]* " * 200 + '"q"'},
    "grammar: loops in a loop": {"grammar": "root ::= (" + "[^z]* " * 20 + ")*"},
    "grammar: 500 optional": {"grammar": "root ::= " + '"a"? [a-z]? ' * 500},
    "grammar: ambiguous counts": {
        "grammar": "root ::= " + '(("a" | "aa" | "aaa"){0,30}){0,30} ' * 20
    },
    "grammar: without an end": {"grammar": 'root ::= "a" root'},
    "schema: arrays in arrays": {"json_schema": nested(15, minItems=30, maxItems=1000)},
    "schema: 7 levels of choices": {"json_schema": either(7)},
    "schema: a pattern": {
        "json_schema": {"pattern": "^(.*a.{30}b|.*b.{31}a|.*c.{29}d|.*e.{28}f)$"}
        | {"type": "string"}
    },
    "schema: itself": {"json_schema": {"$ref": "#"}},
    "schema: 150 properties": {
        "json_schema": {"properties": {f"p{i}": nested(1) for i in range(150)}}
        | {"type": "object"}
    },
    "parameters that are dropped": {
        "n_probs": 2**31 - 1,
        "grammar_triggers": [{"type": 2, "value": "(a*)*b"}],
        "dry_sequence_breakers": [f"{i}" for i in range(3000)],
        "id_slot": 3,
        "foo": nested(80),
    },
    "samplers at their bounds": {
        "dry_multiplier": 100,
        "dry_penalty_last_n": 8192,
        "logit_bias": {str(i): 100 for i in range(1024)},
        "repeat_last_n": 8192,
        "repeat_penalty": 100,
        "samplers": ["dry", "penalties", "xtc", "typ_p", "top_k", "min_p"],
    },
    "prompt: zero bytes": {"prompt": "\0" * 1000},
    "prompt: 100 special tokens": {"prompt": "<|im_start|>" * 100},
}

_WORK: Body = {"max_tokens": 300, "ignore_eos": True}


def requests_in_order() -> list[tuple[str, bool, Body]]:
    """Every request with its name, and whether it has to be refused."""
    named = [(name, True, body) for name, body in REFUSED.items()]
    return named + [(name, False, _WORK | body) for name, body in PASSED.items()]


def random_requests(seed: int) -> Iterator[tuple[str, bool, Body]]:
    """An endless series of random grammars, most of them malformed."""
    chance = random.Random(seed)
    pieces = [*'"[](){}|*+?.^-\\', "root", "a", "{1,9}", '"x"', "[a-z]", " ", "\n"]
    for number in itertools.count():
        text = "".join(chance.choices(pieces, k=chance.randrange(1, 80)))
        grammar = f'root ::= {text}\na ::= "b"'
        try:
            gbnf.to_lark(grammar)
        except ValueError:
            is_refused = True
        else:
            is_refused = False
        yield f"random {number}", is_refused, _WORK | {"grammar": grammar}


def complete(server: Server, body: Body, patience: float) -> tuple[int, float]:
    """The status of the answer, and how many seconds it took.

    The answer is a stream, from which the caller hangs up after *patience* seconds.
    """
    began = time.monotonic()
    with requests.post(
        server.url + "/v1/completions",
        json={"model": "m", "prompt": "Hi", "stream": True} | body,
        stream=True,
        timeout=60,
    ) as response:
        for _ in response.iter_lines(1):
            if time.monotonic() - began > patience:
                break
        return response.status_code, time.monotonic() - began


class Neighbour:
    """Streams one completion after the other, and records the pauses within them."""

    def __init__(self, server: Server) -> None:
        self.pause = 0.0
        self.broken = 0
        self.pieces = 0
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def longest_pause(self) -> float:
        """The longest pause since the last call, in seconds."""
        pause, self.pause = self.pause, 0.0
        return pause

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            self._stream()

    def _stream(self) -> None:
        body = {"model": "m", "prompt": "Once", "stream": True} | _WORK
        url = self._server.url + "/v1/completions"
        with requests.post(url, json=body, stream=True, timeout=60) as response:
            last, line = time.monotonic(), b""
            for piece in response.iter_lines(1):
                line = piece or line
                now = time.monotonic()
                self.pause, last = max(self.pause, now - last), now
                self.pieces += bool(piece)
            self.broken += line != b"data: [DONE]"


def engine_of(server: Server) -> int:
    """The engine's process."""
    (pid,) = [
        p
        for p in children(server.pid)
        if "app.server.engine_process" in command_line(p)
    ]
    return pid


def attack(
    server: Server, seconds: float, patience: float
) -> tuple[list[Row], list[int]]:
    """The rows of every request, then of random ones for so many *seconds*.

    Also the process ids of the engine.
    """
    rows, pids = [], [engine_of(server)]
    neighbour = Neighbour(server)
    try:
        for name, is_refused, body in requests_in_order():
            status, took = complete(server, body, patience)
            row = Row(name, is_refused, status, took, neighbour.longest_pause())
            rows.append(row)
            pids.append(engine_of(server))
        until = time.monotonic() + seconds
        for name, is_refused, body in random_requests(seed=1):
            if time.monotonic() > until:
                break
            status, took = complete(server, body | {"max_tokens": 20}, patience)
            pause = neighbour.longest_pause()
            rows.append(Row(name, is_refused, status, took, pause))
        pids.append(engine_of(server))
    finally:
        neighbour.stop()
    assert neighbour.broken == 0, "a neighbour's stream has broken off"
    assert neighbour.pieces > 0
    return rows, pids


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120)
    args = parser.parse_args()
    server = Server(GATEWAY_ENGINE="1", WEB_CONCURRENCY="1")
    try:
        server.wait_until_ready()
        rows, pids = attack(server, args.seconds, patience=10)
    finally:
        server.stop()
    print(f"{'':<36} {'status':>6} {'took':>8} {'pause of a neighbour':>22}")
    for row in (row for row in rows if not row.name.startswith("random")):
        print(
            f"{row.name:<36} {row.status:>6} {row.seconds:>6.2f} s {row.pause:>20.2f} s"
        )
    guessed = [row for row in rows if row.name.startswith("random")]
    worst = max(row.pause for row in rows)
    wrong = [row for row in rows if (row.status == 400) != row.is_refused]
    summary = {
        "random grammars": len(guessed),
        "of them refused": sum(row.is_refused for row in guessed),
        "longest pause": round(worst, 2),
        "engines": len(set(pids)),
        "wrong answers": [(row.name, row.status) for row in wrong],
    }
    print(json.dumps(summary, indent=2))
    return 0 if len(set(pids)) == 1 and worst <= _PAUSE and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
