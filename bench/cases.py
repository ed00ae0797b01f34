"""What is measured: each case asks a contestant for something and says what it cost.

A figure is in seconds, bytes or a bare number; lower is better in all.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from .contestants import Contestant, Places, Running
from .load import streams, wholes
from .process import cpu, free_port, memory, until

Figures = Mapping[str, float]

_SMALL = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hi", "max_tokens": 16}


@dataclass(frozen=True)
class Bout:
    """One contestant, ready, for one case."""

    contestant: Contestant
    running: Running
    places: Places
    seconds: float

    def url(self, kind: str = "whole") -> str:
        """Where to ask for a whole answer, or for a stream."""
        url = self.running.url
        if self.contestant.name == "direct" and kind == "stream":
            return f"http://127.0.0.1:{self.places.stream}/v1/completions"
        return url.replace("/whole/", f"/{kind}/")

    def body(self, kind: str, **more: Any) -> dict[str, Any]:
        # LiteLLM is told whom to call by the model.
        model = {} if self.contestant.is_routed else {"model": kind}
        return {**_SMALL, **model, **more}

    def is_ready(self) -> bool:
        """Whether it answers."""
        headers = self.contestant.headers(self.places.whole)
        try:
            body = self.body("whole")
            return requests.post(self.url(), json=body, headers=headers, timeout=10).ok
        except requests.RequestException:
            return False

    def cpu(self) -> float:
        return cpu(self.running.pid) if self.running.pid else 0.0


Measure = Callable[[Bout], Figures]


@dataclass(frozen=True)
class Case:
    """*needs* is what a contestant must be able to do."""

    name: str
    measure: Measure
    needs: str = ""


# Whole answers


def _whole(
    connections: int,
    prompt: str = "Say hi",
    config: Callable[[Places], Any] | None = None,
    tls: Callable[[Places], int] | None = None,
) -> Measure:
    def measure(bout: Bout) -> Figures:
        places = bout.places
        given = config(places) if config else None
        port = tls(places) if tls else places.whole
        headers = bout.contestant.headers(port, given, tls is not None)
        body = bout.body("whole", prompt=prompt)
        before = bout.cpu()
        found = wholes(bout.url(), headers, body, connections, bout.seconds)
        used = bout.cpu() - before
        if found.failed or not found.count:
            raise RuntimeError(f"{found.failed} of {found.count} failed")
        return {"cpu": used / found.count, "p50": found.p50, "p99": found.p99}

    return measure


def _host(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def _target(port: int, **more: Any) -> dict[str, Any]:
    return {
        "provider": "openai",
        "api_key": "sk-1",
        "custom_host": _host(port),
        **more,
    }


def _bridged(places: Places) -> Any:
    return _target(places.whole, via="chat")


def _bridged_stream(places: Places) -> Any:
    return _target(places.stream, via="chat")


def _dead_first(places: Places) -> Any:
    targets = [_target(_DEAD), _target(places.whole)]
    return {"strategy": {"mode": "fallback"}, "targets": targets}


# Nobody listens there.
_DEAD = free_port()


def _cached(places: Places) -> Any:
    return _target(places.whole, cache={"mode": "simple"})


# Streams


def _stream(
    connections: int, config: Callable[[Places], Any] | None = None, ramp: float = 0.5
) -> Measure:
    def measure(bout: Bout) -> Figures:
        places = bout.places
        given = config(places) if config else None
        headers = bout.contestant.headers(places.stream, given)
        body = bout.body("stream", stream=True)
        before = bout.cpu()
        found = streams(bout.url("stream"), headers, body, connections, ramp)
        used = bout.cpu() - before
        if found.cut or not found.events:
            raise RuntimeError(f"{found.cut} of {connections} streams were cut")
        return {
            "cpu": used / found.events,
            "first": statistics.median(found.firsts),
            "gap p99": statistics.quantiles(found.gaps, n=100)[98],
        }

    return measure


def _first(bout: Bout) -> Figures:
    """The time to the first event of streams that come one by one."""
    headers = bout.contestant.headers(bout.places.stream)
    body = bout.body("stream", stream=True)
    found = streams(bout.url("stream"), headers, body, 40, 2.0)
    return {"first": statistics.median(found.firsts)}


def _held(bout: Bout) -> Figures:
    """Memory: at rest before anything else, and for each of 500 streams."""
    import threading

    rest, most = _memory(bout), 0
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.3):
            most = max(most, _memory(bout))

    watcher = threading.Thread(target=look)
    watcher.start()
    headers = bout.contestant.headers(bout.places.stream)
    body = bout.body("stream", stream=True)
    try:
        streams(bout.url("stream"), headers, body, 500, 2.0)
    finally:
        over.set()
        watcher.join()
    return {"rest": rest, "stream": (most - rest) / 500}


def _memory(bout: Bout) -> int:
    assert bout.running.pid is not None
    return memory(bout.running.worker)


# What each is asked before it is measured: Node compiles what it runs often.
WARM = (
    Case("", _whole(32)),
    Case("", _stream(50)),
)

CASES = (
    Case("memory", _held, needs="process"),
    Case("whole, 1 connection", _whole(1)),
    Case("whole, 32 connections", _whole(32)),
    Case("whole, 128 connections", _whole(128)),
    Case("whole, prompt of 100 kB", _whole(4, "word " * 20_000)),
    Case("whole, prompt of 1 MB", _whole(4, "word " * 200_000)),
    Case("stream, 1 after the other", _first),
    Case("stream, 100 connections", _stream(100)),
    Case("stream, 500 connections", _stream(500, ramp=2.0)),
    Case("bridged, 32 connections", _whole(32, config=_bridged), "bridge"),
    Case("bridged stream, 100", _stream(100, _bridged_stream), "bridge"),
    Case("fallback from a dead target", _whole(32, config=_dead_first), "fallback"),
    Case("cache hit, 32 connections", _whole(32, config=_cached), "cache"),
    Case("TLS upstream, 32 connections", _whole(32, tls=lambda to: to.tls), "tls"),
    Case("TLS upstream that closes", _whole(8, tls=lambda to: to.tls_closing), "tls"),
)


def cold(contestant: Contestant, places: Places) -> float:
    """Seconds from the start of a process to its first completion."""
    began = time.monotonic()
    with contestant.start(places, 1) as started:
        until(Bout(contestant, started, places, 0).is_ready, contestant.patience)
        return time.monotonic() - began
