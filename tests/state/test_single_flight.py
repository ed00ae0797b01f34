"""Identical requests in flight: threads, greenlets, and a real file."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.caching import CacheEntry
from app.errors import UpstreamTimeout
from app.state.local_cache import LocalCache
from app.state.response_store import ResponseStore
from app.state.single_flight import FlightLeader, SingleFlight

from ..e2e.server import ROOT, eventually
from .test_response_cache import ENTRY, NOW, PREAMBLE, entry


class Crowd:
    """Threads that request the same entry while a call for it is in flight."""

    def __init__(self, fetch: Callable[[], Any], size: int = 5) -> None:
        self.results: list[Any] = []
        self._threads = [
            threading.Thread(target=self._run, args=(fetch,)) for _ in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, fetch: Callable[[], Any]) -> None:
        try:
            self.results.append(fetch())
        except UpstreamTimeout as e:
            self.results.append(e)

    def wait_until_waiting(self) -> None:
        """Return when all of them wait for a leader."""
        eventually(lambda: all(map(_is_waiting, self._threads)))

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.results


def _is_waiting(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return (
        frame is not None
        and frame.f_code.co_name == "wait"
        and (frame.f_code.co_filename.endswith("single_flight.py"))
    )


class Upstream:
    """Counts its calls. Those whose number is among *failures* have no answer."""

    def __init__(self, answers: ResponseStore, failures: tuple[int, ...] = ()) -> None:
        self._answers, self._failures = answers, failures
        self._lock = threading.Lock()
        self.calls = 0

    def fetch(self) -> bytes | None:
        """The body of a cached or new answer; None if the call failed."""
        result = self._answers.find("k", 60)
        return result.body if isinstance(result, CacheEntry) else self.call(result)

    def call(self, leader: FlightLeader) -> bytes | None:
        with self._lock:
            self.calls += 1
            number = self.calls
        if number in self._failures:
            leader.finish()
            return None
        answer = entry(f"{number}".encode())
        self._answers.keep("k", answer, leader)
        return answer.body


@pytest.fixture
def answers(local: LocalCache) -> ResponseStore:
    return ResponseStore(local, now=lambda: NOW)


def leader_of(answers: ResponseStore) -> FlightLeader:
    leader = answers.find("k", 60)
    assert isinstance(leader, FlightLeader)
    return leader


def test_identical_requests_share_one_call(answers: ResponseStore) -> None:
    upstream = Upstream(answers)
    leader = leader_of(answers)
    crowd = Crowd(upstream.fetch)
    crowd.wait_until_waiting()
    upstream.call(leader)

    assert crowd.join() == [b"1"] * 5
    assert upstream.calls == 1


def test_next_request_leads_after_failure(answers: ResponseStore) -> None:
    upstream = Upstream(answers, failures=(1,))
    leader = leader_of(answers)
    crowd = Crowd(upstream.fetch)
    crowd.wait_until_waiting()
    upstream.call(leader)

    assert crowd.join() == [b"2"] * 5
    assert upstream.calls == 2


def test_waiting_ends_after_two_failures() -> None:
    flights = SingleFlight()
    first = flights.join("k")
    assert isinstance(first, FlightLeader)
    crowd = Crowd(lambda: flights.join("k"))
    crowd.wait_until_waiting()
    first.finish()
    eventually(lambda: len(crowd.results) == 1)
    (second,) = crowd.results
    second.finish()

    assert all(isinstance(each, FlightLeader) for each in crowd.join())


def test_simultaneous_requests_share_one_call(answers: ResponseStore) -> None:
    upstream = Upstream(answers)

    assert Crowd(upstream.fetch, 20).join() == [b"1"] * 20
    assert upstream.calls == 1


def test_waiting_request_times_out() -> None:
    flights = SingleFlight()
    leader = flights.join("k")
    assert isinstance(leader, FlightLeader)
    with pytest.raises(UpstreamTimeout, match="under way") as caught:
        flights.join("k", wait=0.01)
    with pytest.raises(UpstreamTimeout):
        flights.join("k", wait=-1)

    assert caught.value.status == 408
    crowd = Crowd(lambda: flights.join("k", wait=20))
    crowd.wait_until_waiting()
    leader.finish(ENTRY)
    assert crowd.join() == [ENTRY] * 5


def test_patience_limits_waiting() -> None:
    """The first caller may be slow to read its stream."""
    flights = SingleFlight(patience=0.05)
    first = flights.join("k")
    alone = [flights.join("k"), flights.join("k", wait=20)]

    assert isinstance(first, FlightLeader) and all(
        isinstance(each, FlightLeader) for each in alone
    )
    with pytest.raises(UpstreamTimeout):
        flights.join("k", wait=0.01)
    first.finish(ENTRY)
    assert isinstance(flights.join("k"), FlightLeader)


def test_dead_leader_blocks_nobody(answers: ResponseStore) -> None:
    upstream = Upstream(answers)
    thread = threading.Thread(target=leader_of, args=(answers,))
    thread.start()
    thread.join()

    assert upstream.fetch() == b"1"


def test_collected_leader_releases_others(answers: ResponseStore) -> None:
    upstream = Upstream(answers)
    leaders = [leader_of(answers)]
    crowd = Crowd(upstream.fetch)
    crowd.wait_until_waiting()
    leaders.clear()

    assert crowd.join() == [b"1"] * 5


def test_failing_block_releases_others(answers: ResponseStore) -> None:
    leader = leader_of(answers)
    with pytest.raises(ZeroDivisionError), leader:
        1 / 0  # noqa: B018

    assert leader_of(answers) is not leader


def test_leader_may_finish_after_its_block() -> None:
    flights = SingleFlight()
    leader = flights.join("k")
    assert isinstance(leader, FlightLeader)
    with leader:
        pass
    crowd = Crowd(lambda: flights.join("k"))
    crowd.wait_until_waiting()
    leader.finish(ENTRY)
    leader.finish()

    assert crowd.join() == [ENTRY] * 5


def test_different_requests_do_not_wait() -> None:
    flights = SingleFlight()
    leaders = [flights.join(name) for name in "abc"]

    assert all(isinstance(each, FlightLeader) for each in leaders)


def test_cached_response_is_returned_at_once(answers: ResponseStore) -> None:
    answers.keep("k", ENTRY)

    assert answers.find("k", 60) == ENTRY
    assert answers.find("k", 60) == ENTRY


def test_max_age_of_request_is_respected(local: LocalCache) -> None:
    answers = ResponseStore(local, now=lambda: NOW + 30)
    answers.keep("k", ENTRY)

    assert answers.find("k", 31) == ENTRY
    assert isinstance(answers.find("k", 30), FlightLeader)


def test_requests_with_different_max_age_are_separate(
    answers: ResponseStore,
) -> None:
    leader = answers.find("k", 60)

    assert isinstance(leader, FlightLeader)
    assert isinstance(answers.find("k", 10), FlightLeader)


def test_waiting_greenlets_block_no_worker(tmp_path: Path) -> None:
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, time
answers = ResponseStore(cache, SingleFlight(), lambda: now)
calls, ticks = [], []
def ask(name):
    result = answers.find(name, 60)
    if isinstance(result, CacheEntry):
        return result.body
    calls.append(name)
    gevent.sleep(0.05)
    if len(calls) == 1:
        result.finish()
        return b"nothing"
    answers.keep(name, entry(name), result)
    return b"paid"
def tick():
    while len(ticks) < 1000:
        ticks.append(1)
        gevent.sleep(0)
jobs = [gevent.spawn(ask, "k") for _ in range(200)]
ticking = gevent.spawn(tick)
gevent.joinall(jobs + [ticking], timeout=30, raise_error=True)
results = [job.value for job in jobs]
print(len(calls), len(ticks), *(results.count(b) for b in (b"nothing", b"paid", b"k")))
"""
    # A worker patches these modules before anything else.
    code = "from gevent import monkey; monkey.patch_all()\n" + PREAMBLE + code
    command = [sys.executable, "-c", code, str(tmp_path / "cache.db")]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert output.stdout.strip() == "2 1000 1 1 198", output.stderr
