"""Threads of concurrency tests."""

from collections.abc import Sequence
from threading import Thread


def run_threads(threads: Sequence[Thread]) -> None:
    """Start all threads, and wait until they have ended."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
