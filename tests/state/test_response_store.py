"""Answers that are kept, and identical requests in flight: with a real file, a real
Valkey, and real processes."""

import logging
import sqlite3
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.cache_key import key
from app.core.caching import CacheEntry, CachePolicy, CacheScope
from app.core.request import CompletionRequest
from app.core.routing import Target
from app.errors import UpstreamTimeout
from app.state.redis_store import RedisCache, RedisClient
from app.state.response_store import (
    LARGEST,
    FlightLeader,
    LocalCache,
    ResponseBackend,
    ResponseStore,
    SingleFlight,
    pack,
    unpack,
)

from ..e2e.server import ROOT, eventually
from ..valkey import Valkey
from .conftest import FakeTime

# Unix seconds at which most of these tests happen.
NOW = 1_800_000_000.0
ENTRY = CacheEntry(
    b'{"choices":[{"text":"\\u2013"}]}',
    created_at=NOW,
    max_age=60,
    headers={"openai-model": "m-1"},
    warnings=("a warning",),
)


def entry(
    body: bytes = b"{}", created_at: float = NOW, max_age: float = 1e6
) -> CacheEntry:
    return CacheEntry(body, created_at, max_age)


def incompressible(size: int, start: int = 0) -> bytes:
    """So many bytes; equal for equal numbers, and alike for no others."""
    block = bytearray()
    number = start + 1
    while len(block) < size:
        number = (number * 6364136223846793005 + 1442695040888963407) % 2**64
        block += (number >> 24).to_bytes(5, "big")
    return bytes(block[:size])


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalCache]:
    with closing(LocalCache(tmp_path / "cache.db", 2**20)) as cache:
        yield cache


@pytest.fixture
def remote(valkey: Valkey) -> Iterator[RedisCache]:
    valkey.clear()
    with closing(RedisCache(RedisClient(valkey.url))) as cache:
        yield cache


@pytest.fixture(params=["local", "remote"])
def cache(request: Any) -> ResponseBackend:
    found: ResponseBackend = request.getfixturevalue(request.param)
    return found


# What both do


def test_an_entry_comes_back_as_it_was(cache: ResponseBackend) -> None:
    cache.put("k", ENTRY, NOW)

    assert cache.get("k", NOW) == ENTRY
    assert cache.get("l", NOW) is None


def test_an_entry_is_gone_when_it_is_too_old(cache: ResponseBackend) -> None:
    cache.put("k", ENTRY, NOW)

    assert cache.get("k", NOW + 59.9)
    assert cache.get("k", NOW + 60) is None


def test_the_last_entry_of_a_key_counts(cache: ResponseBackend) -> None:
    cache.put("k", entry(b"1"), NOW)
    cache.put("k", entry(b"2"), NOW)

    assert cache.get("k", NOW) == entry(b"2")


def test_what_is_too_old_or_too_long_is_not_kept(cache: ResponseBackend) -> None:
    cache.put("old", entry(created_at=NOW - 10, max_age=10), NOW)
    cache.put("long", entry(b" " * (LARGEST + 1)), NOW)

    assert cache.get("old", NOW) is None
    assert cache.get("long", NOW) is None


def test_a_cache_goes_on_after_it_was_closed(cache: ResponseBackend) -> None:
    cache.put("k", ENTRY, NOW)
    cache.close()

    assert cache.get("k", NOW) == ENTRY


@given(st.binary(max_size=3000), st.floats(0, 1e12), st.text(max_size=9))
def test_an_entry_survives_its_packing(
    body: bytes, created_at: float, text: str
) -> None:
    packed = CacheEntry(body, created_at, 1.5, {text: text}, (text,))

    assert unpack(pack(packed)) == packed


def test_only_what_gets_shorter_is_compressed() -> None:
    text, noise = b"word " * 1000, incompressible(5000)

    assert len(pack(entry(text))) < 500
    assert len(pack(entry(noise))) < 5100
    assert pack(entry(b"short")).endswith(b"short")


@pytest.mark.parametrize(
    "value", [b"", b"j", b"zjunk", b"j[1]\n{}", b"j1\n", b"?", b"j[1,2,3,4,5]\n{}"]
)
def test_what_somebody_else_has_written_is_nothing(value: bytes) -> None:
    assert unpack(value) is None


def test_neither_key_nor_entry_holds_a_secret(
    local: LocalCache, tmp_path: Path
) -> None:
    secret = "sk-a-secret-of-the-caller"
    request = CompletionRequest("m", "a prompt of the caller")
    target = Target("p", secret, "https://e.example", {"a": secret}, request=request)
    name = key(target, CachePolicy(), CacheScope("a-caller"))
    local.put(name, ENTRY, NOW)

    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert name.encode() in held
    for word in (secret, "a prompt of the caller", "a-caller", "e.example"):
        assert word.encode() not in held


# In a file


def held(path: Path) -> dict[str, int]:
    """The size of each entry in a file, by its key."""
    with closing(sqlite3.connect(path)) as connection:
        ((total,),) = connection.execute("SELECT bytes FROM total")
        found = dict(connection.execute("SELECT key, size FROM entries").fetchall())
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert total == sum(found.values())
    return found


def test_who_was_not_used_for_longest_leaves_first(tmp_path: Path) -> None:
    with closing(LocalCache(tmp_path / "cache.db", 3000)) as cache:
        for i, name in enumerate("abc"):
            cache.put(name, entry(incompressible(600, i)), NOW + i)
        assert cache.get("a", NOW + 10)
        cache.put("d", entry(incompressible(600)), NOW + 20)

        found = [name for name in "abcd" if cache.get(name, NOW + 30)]
        assert found == ["a", "c", "d"]


def test_what_would_fill_the_cache_alone_is_not_kept(tmp_path: Path) -> None:
    with closing(LocalCache(tmp_path / "cache.db", 3000)) as cache:
        cache.put("a", ENTRY, NOW)
        cache.put("b", entry(incompressible(3000)), NOW)

        assert cache.get("a", NOW) and not cache.get("b", NOW)


MOST = 4000
STEPS = st.tuples(st.sampled_from("abcdef"), st.integers(0, 2500))


@settings(max_examples=50)
@given(st.lists(STEPS, max_size=25))
def test_a_cache_holds_what_a_short_model_of_it_holds(
    steps: list[tuple[str, int]],
) -> None:
    """A step of size 0 reads; the others write so many bytes."""
    model: OrderedDict[str, int] = OrderedDict()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cache.db"
        with closing(LocalCache(path, MOST)) as cache:
            cache.get("-", NOW)
            for i, (name, size) in enumerate(steps):
                now = NOW + 10 * i
                if size == 0:
                    found = cache.get(name, now)
                    assert (found is not None) == (name in model)
                    if found:
                        model.move_to_end(name)
                    continue
                kept = entry(incompressible(size, i))
                cache.put(name, kept, now)
                model.pop(name, None)
                model[name] = len(pack(kept)) + 256
                while sum(model.values()) > MOST:
                    model.popitem(last=False)
            assert held(path) == model


def test_those_that_are_too_old_leave_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with closing(LocalCache(path, 2**20)) as cache:
        for i in range(30):
            cache.put(f"old {i}", entry(max_age=10), NOW)
        cache.put("new 1", entry(), NOW + 10)
        cache.put("new 2", entry(), NOW + 10)

        assert sorted(held(path)) == ["new 1", "new 2"]


def test_the_file_is_not_much_longer_than_it_may_be(tmp_path: Path) -> None:
    most = 2**20
    with closing(LocalCache(tmp_path / "cache.db", most)) as cache:
        for i in range(3000):
            cache.put(f"{i:064}", entry(incompressible(1500, i)), NOW + i)

    assert (tmp_path / "cache.db").stat().st_size < 1.5 * most
    assert 0.9 * most < sum(held(tmp_path / "cache.db").values()) <= most


def test_the_file_is_for_its_owner_alone(local: LocalCache, tmp_path: Path) -> None:
    local.put("k", ENTRY, NOW)

    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"this is no database" * 1000)
    with closing(LocalCache(path, 2**20)) as cache:
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_a_file_that_breaks_meanwhile_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with closing(LocalCache(path, 2**20)) as writer:
        for i in range(200):
            writer.put(f"{i}", entry(incompressible(5000, i)), NOW)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"?" * (len(data) - 4096))
    with closing(LocalCache(path, 2**20)) as cache:
        cache.put("k", ENTRY, NOW)
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_a_file_of_another_version_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE entries (a); PRAGMA user_version = 99")
    with closing(LocalCache(path, 2**20)) as cache:
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_a_file_that_cannot_be_opened_holds_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeTime()
    (tmp_path / "cache.db").mkdir()
    cache = LocalCache(tmp_path / "cache.db", 2**20, clock)
    with caplog.at_level(logging.WARNING, "lastword"):
        for _ in range(3):
            cache.put("k", ENTRY, NOW)
            assert cache.get("k", NOW) is None
        clock.now = 61
        assert cache.get("k", NOW) is None

    assert caplog.messages == ["the cache's file fails"] * 2


def test_who_reads_does_not_wait_for_who_writes(
    local: LocalCache, tmp_path: Path
) -> None:
    local.put("k", ENTRY, NOW)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as writer:
        writer.isolation_level = None
        writer.execute("BEGIN IMMEDIATE")
        local.put("l", ENTRY, NOW)
        found = local.get("k", NOW + 30)
        writer.execute("ROLLBACK")

    assert found == ENTRY
    assert local.get("l", NOW) is None
    local.put("l", ENTRY, NOW)
    assert local.get("l", NOW) == ENTRY


def test_threads_may_share_a_cache(local: LocalCache) -> None:
    def work(name: str) -> None:
        for i in range(50):
            local.put(f"{name}{i}", entry(f"{name}{i}".encode()), NOW)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = [local.get(f"{name}{i}", NOW) for name in "abcd" for i in range(50)]
    assert sum(each is not None for each in found) == 200


# Runs in a process of its own, with a cache at the path that is its first argument.
_BEGIN = f"""
import os, sys
from pathlib import Path
from app.core.caching import CacheEntry
from app.state.response_store import ResponseStore, SingleFlight, LocalCache
path, *words = sys.argv[1:]
cache = LocalCache(Path(path), 2**20)
now = {NOW}
def entry(text):
    return CacheEntry(text.encode(), now, 60)
"""


def process(path: Path, code: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _BEGIN + code, str(path), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(running: subprocess.Popen[str]) -> str:
    """What it has printed, when it has ended well."""
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    return output.strip()


def test_processes_share_the_file(local: LocalCache, tmp_path: Path) -> None:
    local.put("k", entry(b"of one"), NOW)
    code = """
print(cache.get("k", now).body.decode())
cache.put("l", entry("of another"), now)
"""
    assert said(process(tmp_path / "cache.db", code)) == "of one"
    assert local.get("l", NOW) == CacheEntry(b"of another", NOW, 60)


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    code = """
import random
kept = 0
for i in range(300):
    name = words[0] + str(i)
    cache.put(name, CacheEntry(random.randbytes(400), now, 60), now)
    kept += cache.get(name, now) is not None
print(kept)
"""
    running = [process(path, code, name) for name in "abcd"]
    kept = [int(said(each)) for each in running]

    # Who would wait for the others too long keeps nothing, which is allowed.
    assert all(each > 250 for each in kept)
    assert len(held(path)) == sum(kept)


def test_a_fork_opens_the_file_for_itself(tmp_path: Path) -> None:
    code = """
cache.put("k", entry("of the parent"), now)
child = os.fork()
if child == 0:
    found = cache.get("k", now)
    cache.put("l", entry("of the child"), now)
    cache.close()
    os._exit(0 if found else 1)
_, status = os.waitpid(child, 0)
print(status, cache.get("k", now).body.decode(), cache.get("l", now).body.decode())
"""
    output = said(process(tmp_path / "cache.db", code))

    assert output == "0 of the parent of the child"


# In Redis


def test_redis_forgets_an_entry_when_it_is_too_old(
    remote: RedisCache, valkey: Valkey
) -> None:
    remote.put("k", entry(max_age=60), NOW + 10)
    with valkey.client() as client:
        (name,) = client.keys()
        left = client.pttl(name)

    assert name == b"lastword:cache:k"
    assert 40_000 < left <= 50_000


def test_two_caches_share_a_redis(remote: RedisCache, valkey: Valkey) -> None:
    remote.put("k", ENTRY, NOW)
    with closing(RedisCache(RedisClient(valkey.url))) as other:
        assert other.get("k", NOW) == ENTRY


def test_what_redis_refuses_is_a_miss_and_leaves_it_in_use(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.clear()
    link = RedisClient(valkey.url)
    with closing(RedisCache(link)) as cache:
        cache.put("l", ENTRY, NOW)
        with valkey.client() as client:
            client.lpush("lastword:cache:k", "a list")
        with caplog.at_level(logging.WARNING, "lastword"):
            found = [cache.get("k", NOW) for _ in range(3)]

        assert found == [None] * 3 and not link.is_away
        assert caplog.messages == ["Redis refuses to keep answers"]
        assert cache.get("l", NOW) == ENTRY


def test_a_redis_that_dies_is_missed_and_found_again(
    mortal: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeTime()
    with closing(RedisCache(RedisClient(mortal.url, clock))) as cache:
        cache.put("k", ENTRY, NOW)
        assert cache.get("k", NOW) == ENTRY
        mortal.kill()
        with caplog.at_level(logging.WARNING, "lastword"):
            for _ in range(50):
                assert cache.get("k", NOW) is None
                cache.put("k", ENTRY, NOW)
                clock.now += 0.5
        mortal.restart()
        clock.now += 1
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY
    assert caplog.messages == [
        "Redis is away: this machine keeps its own limits",
        "Redis is back",
    ]


def test_a_cache_does_not_miss_a_redis_that_was_restarted_between_two_calls(
    mortal: Valkey,
) -> None:
    with closing(RedisCache(RedisClient(mortal.url))) as cache:
        cache.put("k", ENTRY, NOW)
        mortal.kill()
        mortal.restart()
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_a_redis_that_wakes_up_is_found_again(mortal: Valkey) -> None:
    clock = FakeTime()
    with closing(RedisCache(RedisClient(mortal.url, clock))) as cache:
        cache.put("k", ENTRY, NOW)
        mortal.hold()
        asleep = cache.get("k", NOW)
        mortal.go_on()
        clock.now = 1

        assert asleep is None and cache.get("k", NOW) == ENTRY


# Identical requests in flight


class Crowd:
    """Threads that ask for the same, while a call for it is under way."""

    def __init__(self, ask: Callable[[], Any], size: int = 5) -> None:
        self.results: list[Any] = []
        self._threads = [
            threading.Thread(target=self._run, args=(ask,)) for _ in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, ask: Callable[[], Any]) -> None:
        try:
            self.results.append(ask())
        except UpstreamTimeout as e:
            self.results.append(e)

    def wait_until_waiting(self) -> None:
        """Return when all of them know whom they wait for."""
        eventually(lambda: all(map(_is_waiting, self._threads)))

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.results


def _is_waiting(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "has_landed"


class Upstream:
    """Counts its calls. Those whose number is among *failures* bring nothing."""

    def __init__(self, answers: ResponseStore, failures: tuple[int, ...] = ()) -> None:
        self._answers, self._failures = answers, failures
        self._lock = threading.Lock()
        self.calls = 0

    def ask(self) -> bytes | None:
        """The body of an answer, from wherever it comes; None if it failed."""
        found = self._answers.find("k", 60)
        return found.body if isinstance(found, CacheEntry) else self.call(found)

    def call(self, lead: FlightLeader) -> bytes | None:
        with self._lock:
            self.calls += 1
            number = self.calls
        if number in self._failures:
            lead.land()
            return None
        made = entry(f"{number}".encode())
        self._answers.keep("k", made, lead)
        return made.body


@pytest.fixture
def answers(local: LocalCache) -> ResponseStore:
    return ResponseStore(local, now=lambda: NOW)


def lead_of(answers: ResponseStore) -> FlightLeader:
    found = answers.find("k", 60)
    assert isinstance(found, FlightLeader)
    return found


def test_who_asks_the_same_waits_and_nobody_pays_twice(answers: ResponseStore) -> None:
    upstream = Upstream(answers)
    lead = lead_of(answers)
    crowd = Crowd(upstream.ask)
    crowd.wait_until_waiting()
    upstream.call(lead)

    assert crowd.join() == [b"1"] * 5
    assert upstream.calls == 1


def test_when_the_first_fails_one_of_the_others_goes(answers: ResponseStore) -> None:
    upstream = Upstream(answers, failures=(1,))
    lead = lead_of(answers)
    crowd = Crowd(upstream.ask)
    crowd.wait_until_waiting()
    upstream.call(lead)

    assert crowd.join() == [b"2"] * 5
    assert upstream.calls == 2


def test_nobody_waits_for_one_failure_after_the_other() -> None:
    flights = SingleFlight()
    first = flights.board("k")
    assert isinstance(first, FlightLeader)
    crowd = Crowd(lambda: flights.board("k"))
    crowd.wait_until_waiting()
    first.land()
    eventually(lambda: len(crowd.results) == 1)
    (second,) = crowd.results
    second.land()

    assert all(isinstance(found, FlightLeader) for found in crowd.join())


def test_a_crowd_without_a_first_pays_once(answers: ResponseStore) -> None:
    upstream = Upstream(answers)

    assert Crowd(upstream.ask, 20).join() == [b"1"] * 20
    assert upstream.calls == 1


def test_who_has_no_more_time_goes_without() -> None:
    flights = SingleFlight()
    lead = flights.board("k")
    assert isinstance(lead, FlightLeader)
    with pytest.raises(UpstreamTimeout, match="under way") as caught:
        flights.board("k", wait=0.01)
    with pytest.raises(UpstreamTimeout):
        flights.board("k", wait=-1)

    assert caught.value.status == 408
    crowd = Crowd(lambda: flights.board("k", wait=20))
    crowd.wait_until_waiting()
    lead.land(ENTRY)
    assert crowd.join() == [ENTRY] * 5


def test_who_has_time_waits_only_so_long_for_somebody_else() -> None:
    """The caller of the first one may be slow to take what it streams."""
    flights = SingleFlight(patience=0.05)
    first = flights.board("k")
    alone = [flights.board("k"), flights.board("k", wait=20)]

    assert isinstance(first, FlightLeader) and all(
        isinstance(each, FlightLeader) for each in alone
    )
    with pytest.raises(UpstreamTimeout):
        flights.board("k", wait=0.01)
    first.land(ENTRY)
    assert isinstance(flights.board("k"), FlightLeader)


def test_a_first_that_dies_is_waited_for_by_nobody(answers: ResponseStore) -> None:
    upstream = Upstream(answers)
    thread = threading.Thread(target=lead_of, args=(answers,))
    thread.start()
    thread.join()

    assert upstream.ask() == b"1"


def test_others_go_on_when_the_first_is_forgotten(answers: ResponseStore) -> None:
    upstream = Upstream(answers)
    leads = [lead_of(answers)]
    crowd = Crowd(upstream.ask)
    crowd.wait_until_waiting()
    leads.clear()

    assert crowd.join() == [b"1"] * 5


def test_a_block_that_fails_lets_the_others_go_on(answers: ResponseStore) -> None:
    lead = lead_of(answers)
    with pytest.raises(ZeroDivisionError), lead:
        1 / 0  # noqa: B018

    assert lead_of(answers) is not lead


def test_a_block_that_ends_well_may_still_bring_something() -> None:
    flights = SingleFlight()
    lead = flights.board("k")
    assert isinstance(lead, FlightLeader)
    with lead:
        pass
    crowd = Crowd(lambda: flights.board("k"))
    crowd.wait_until_waiting()
    lead.land(ENTRY)
    lead.land()

    assert crowd.join() == [ENTRY] * 5


def test_other_requests_do_not_wait() -> None:
    flights = SingleFlight()
    leads = [flights.board(name) for name in "abc"]

    assert all(isinstance(each, FlightLeader) for each in leads)


def test_what_is_kept_is_given_at_once(answers: ResponseStore) -> None:
    answers.keep("k", ENTRY)

    assert answers.find("k", 60) == ENTRY
    assert answers.find("k", 60) == ENTRY


def test_who_takes_nothing_old_gets_nothing_old(local: LocalCache) -> None:
    answers = ResponseStore(local, now=lambda: NOW + 30)
    answers.keep("k", ENTRY)

    assert answers.find("k", 31) == ENTRY
    assert isinstance(answers.find("k", 30), FlightLeader)


def test_one_who_takes_only_what_is_new_does_not_wait_for_one_who_takes_all(
    answers: ResponseStore,
) -> None:
    lead = answers.find("k", 60)

    assert isinstance(lead, FlightLeader)
    assert isinstance(answers.find("k", 10), FlightLeader)


def test_greenlets_wait_without_holding_up_their_worker(tmp_path: Path) -> None:
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, time
answers = ResponseStore(cache, SingleFlight(), lambda: now)
calls, ticks = [], []
def ask(name):
    found = answers.find(name, 60)
    if isinstance(found, CacheEntry):
        return found.body
    calls.append(name)
    gevent.sleep(0.05)
    if len(calls) == 1:
        found.land()
        return b"nothing"
    answers.keep(name, entry(name), found)
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
    # The first thing that a worker does is to patch what these modules import.
    code = "from gevent import monkey; monkey.patch_all()\n" + _BEGIN + code
    command = [sys.executable, "-c", code, str(tmp_path / "cache.db")]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert output.stdout.strip() == "2 1000 1 1 198", output.stderr
