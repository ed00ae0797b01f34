"""The cases: each sends requests to a contestant and measures what they cost.

Measurements are in seconds, bytes or bare numbers; lower is better in all.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from tests.ports import free_port

from .contestants import Contestant, Server, Upstreams
from .load import load_streams, load_whole
from .process import cpu, memory, wait_until

Measurements = Mapping[str, float]

_SMALL = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hi", "max_tokens": 16}


@dataclass(frozen=True)
class Trial:
    """One contestant, running and ready, in one case."""

    contestant: Contestant
    running: Server
    upstreams: Upstreams
    seconds: float

    def url(self, kind: str = "whole") -> str:
        """The URL for a whole response, or for a stream."""
        url = self.running.url
        if self.contestant.name == "direct" and kind == "stream":
            return f"http://127.0.0.1:{self.upstreams.stream}/v1/completions"
        return url.replace("/whole/", f"/{kind}/")

    def body(self, kind: str, **more: Any) -> dict[str, Any]:
        # LiteLLM chooses the upstream by the model's name.
        model = {} if self.contestant.is_routed else {"model": kind}
        return {**_SMALL, **model, **more}

    def is_ready(self) -> bool:
        """Whether it answers."""
        headers = self.contestant.headers(self.upstreams.whole)
        try:
            body = self.body("whole")
            return requests.post(self.url(), json=body, headers=headers, timeout=10).ok
        except requests.RequestException:
            return False

    def cpu(self) -> float:
        return cpu(self.running.pid) if self.running.pid else 0.0


Measure = Callable[[Trial], Measurements]


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
    config: Callable[[Upstreams], Any] | None = None,
    tls: Callable[[Upstreams], int] | None = None,
) -> Measure:
    def measure(trial: Trial) -> Measurements:
        upstreams = trial.upstreams
        document = config(upstreams) if config else None
        port = tls(upstreams) if tls else upstreams.whole
        headers = trial.contestant.headers(port, document, tls is not None)
        body = trial.body("whole", prompt=prompt)
        # Processor time rather than requests per second: it does not depend on how much
        # the load generator can send.
        before = trial.cpu()
        stats = load_whole(trial.url(), headers, body, connections, trial.seconds)
        seconds = trial.cpu() - before
        if stats.failed or not stats.count:
            raise RuntimeError(f"{stats.failed} of {stats.count} failed")
        return {"cpu": seconds / stats.count, "p50": stats.p50, "p99": stats.p99}

    return measure


def _target(port: int, **more: Any) -> dict[str, Any]:
    host = f"http://127.0.0.1:{port}/v1"
    return {"provider": "openai", "api_key": "sk-1", "custom_host": host, **more}


# A port that was free a moment ago: a connection is refused at once.
_DEAD = free_port()


def _dead_first(upstreams: Upstreams) -> Any:
    targets = [_target(_DEAD), _target(upstreams.whole)]
    return {"strategy": {"mode": "fallback"}, "targets": targets}


# Streams


def _stream(
    connections: int,
    config: Callable[[Upstreams], Any] | None = None,
    ramp: float = 0.5,
) -> Measure:
    def measure(trial: Trial) -> Measurements:
        upstreams = trial.upstreams
        document = config(upstreams) if config else None
        headers = trial.contestant.headers(upstreams.stream, document)
        body = trial.body("stream", stream=True)
        # By event, as a stream costs most while it runs and little to open.
        before = trial.cpu()
        stats = load_streams(trial.url("stream"), headers, body, connections, ramp)
        seconds = trial.cpu() - before
        if stats.cut or not stats.events:
            raise RuntimeError(f"{stats.cut} of {connections} streams were cut")
        return {
            "cpu": seconds / stats.events,
            "first": statistics.median(stats.firsts),
            "gap p99": statistics.quantiles(stats.gaps, n=100)[98],
        }

    return measure


def _first(trial: Trial) -> Measurements:
    """The time to the first event of streams that come one by one."""
    # 40 within 2 seconds: each has its first event before the next one begins.
    headers = trial.contestant.headers(trial.upstreams.stream)
    body = trial.body("stream", stream=True)
    stats = load_streams(trial.url("stream"), headers, body, 40, 2.0)
    return {"first": statistics.median(stats.firsts)}


def _memory_per_stream(trial: Trial) -> Measurements:
    """Memory: at rest before anything else, and for each of 500 streams."""
    import threading

    # Sampled meanwhile, as a worker may return memory as soon as streams end.
    at_rest, most = _memory(trial), 0
    stop = threading.Event()

    def sample() -> None:
        nonlocal most
        while not stop.wait(0.3):
            most = max(most, _memory(trial))

    watcher = threading.Thread(target=sample)
    watcher.start()
    headers = trial.contestant.headers(trial.upstreams.stream)
    body = trial.body("stream", stream=True)
    try:
        load_streams(trial.url("stream"), headers, body, 500, 2.0)
    finally:
        stop.set()
        watcher.join()
    return {"rest": at_rest, "stream": (most - at_rest) / 500}


def _memory(trial: Trial) -> int:
    assert trial.running.pid is not None
    return memory(trial.running.worker)


# Requests before the measurements: Node compiles functions that run often, and pools
# open their connections.
WARM = (
    Case("", _whole(32)),
    Case("", _stream(50)),
)

CASES = (
    Case("memory", _memory_per_stream, needs="process"),
    Case("whole, 1 connection", _whole(1)),
    Case("whole, 32 connections", _whole(32)),
    Case("whole, 128 connections", _whole(128)),
    Case("whole, prompt of 100 kB", _whole(4, "word " * 20_000)),
    Case("whole, prompt of 1 MB", _whole(4, "word " * 200_000)),
    Case("stream, 1 after the other", _first),
    Case("stream, 100 connections", _stream(100)),
    Case("stream, 500 connections", _stream(500, ramp=2.0)),
    Case(
        "bridged, 32 connections",
        _whole(32, config=lambda to: _target(to.whole, via="chat")),
        "bridge",
    ),
    Case(
        "bridged stream, 100",
        _stream(100, lambda to: _target(to.stream, via="chat")),
        "bridge",
    ),
    Case("fallback from a dead target", _whole(32, config=_dead_first), "fallback"),
    Case(
        "cache hit, 32 connections",
        _whole(32, config=lambda to: _target(to.whole, cache={"mode": "simple"})),
        "cache",
    ),
    Case("TLS upstream, 32 connections", _whole(32, tls=lambda to: to.tls), "tls"),
    Case("TLS upstream that closes", _whole(8, tls=lambda to: to.tls_closing), "tls"),
)


def cold_start(contestant: Contestant, upstreams: Upstreams) -> float:
    """Seconds from the start of a process to its first completion."""
    # `wait_until` tries every 5 ms, which bounds the error.
    began = time.monotonic()
    with contestant.start(upstreams, 1) as started:
        wait_until(
            Trial(contestant, started, upstreams, 0).is_ready, contestant.patience
        )
        return time.monotonic() - began
