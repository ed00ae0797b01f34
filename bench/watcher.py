"""Watches a busy server: how long its health check takes, and its memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import requests

from .process import memory, tree


@dataclass
class ServerStats:
    """*slowest* is the slowest response in seconds, *memory* the most bytes in use."""

    slowest: float = 0.0
    memory: int = 0


@contextmanager
def watch(url: str, pid: int, every: float = 0.5) -> Iterator[ServerStats]:
    """Watch the page at *url*, and process *pid* with its children, during the block.

    From a process of its own: the load generator is busy and would add its own delays.
    """
    context = get_context("spawn")
    stop, results = context.Event(), context.Queue()
    process = context.Process(target=_poll, args=(url, pid, every, stop, results))
    process.start()
    stats = ServerStats()
    try:
        yield stats
    finally:
        stop.set()
        stats.slowest, stats.memory = results.get(timeout=60)
        process.join()


def _poll(url: str, pid: int, every: float, stop: Any, results: Any) -> None:
    slowest, most = 0.0, 0
    while not stop.wait(every):
        start = time.monotonic()
        try:
            # A new connection each time, as a load balancer's health checks have.
            requests.get(url, headers={"Connection": "close"}, timeout=30)
            slowest = max(slowest, time.monotonic() - start)
        except requests.RequestException:
            slowest = max(slowest, 30.0)
        most = max(most, sum(map(memory, tree(pid))))
    results.put((slowest, most))
