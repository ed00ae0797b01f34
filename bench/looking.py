"""Looks at a server while it is busy: how long it takes to say that it is well, and
what it holds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import requests

from .process import memory, tree


@dataclass
class Seen:
    """*slowest* is the longest answer in seconds, *memory* the most bytes at a time."""

    slowest: float = 0.0
    memory: int = 0


@contextmanager
def looked_at(url: str, pid: int, every: float = 0.5) -> Iterator[Seen]:
    """What is seen of the page at *url*, and of the process and all below it, within.

    From a process of its own: one that is busy would see its own delays.
    """
    context = get_context("spawn")
    over, told = context.Event(), context.Queue()
    process = context.Process(target=_look, args=(url, pid, every, over, told))
    process.start()
    seen = Seen()
    try:
        yield seen
    finally:
        over.set()
        seen.slowest, seen.memory = told.get(timeout=60)
        process.join()


def _look(url: str, pid: int, every: float, over: Any, told: Any) -> None:
    slowest, most = 0.0, 0
    while not over.wait(every):
        slowest = max(slowest, _took(url))
        most = max(most, sum(map(memory, tree(pid))))
    told.put((slowest, most))


def _took(url: str) -> float:
    """The seconds of an answer on a connection of its own; 30 if there is none."""
    began = time.monotonic()
    try:
        requests.get(url, headers={"Connection": "close"}, timeout=30)
    except requests.RequestException:
        return 30.0
    return time.monotonic() - began
