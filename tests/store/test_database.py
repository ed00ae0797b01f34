"""A new store that many open at once, as the workers of a server do."""

import multiprocessing
from dataclasses import replace
from typing import Any

from app.settings import Settings
from app.store import opening

MANY = 4
ROUNDS = 15


def open_it(settings: Settings, ready: Any) -> None:
    ready.wait(10)
    opening.database(settings).dispose()


def test_a_new_file_may_be_opened_by_many_at_once(settings: Settings) -> None:
    fork = multiprocessing.get_context("fork")
    for turn in range(ROUNDS):
        new = replace(settings, instance=f"{settings.instance}-{turn}")
        ready = fork.Barrier(MANY)
        processes = [
            fork.Process(target=open_it, args=(new, ready)) for _ in range(MANY)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(20)
        assert [process.exitcode for process in processes] == [0] * MANY
