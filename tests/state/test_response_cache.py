"""The response cache, in a real file and in a real Valkey."""

import logging
import sqlite3
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
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
from app.state.cache_codec import MAX_BODY_BYTES, pack, unpack
from app.state.local_cache import LocalCache
from app.state.redis_store import RedisCache, RedisClient
from app.state.response_store import ResponseBackend
from tests.threads import run_threads

from ..e2e.server import ROOT
from ..valkey import Valkey
from .conftest import FakeTime

# The time of most of these tests, in Unix seconds.
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
    """*size* incompressible bytes, determined by *number*."""
    block = bytearray()
    number = start + 1
    while len(block) < size:
        number = (number * 6364136223846793005 + 1442695040888963407) % 2**64
        block += (number >> 24).to_bytes(5, "big")
    return bytes(block[:size])


@pytest.fixture
def remote(valkey: Valkey) -> Iterator[RedisCache]:
    valkey.clear()
    with closing(RedisCache(RedisClient(valkey.url))) as cache:
        yield cache


@pytest.fixture(params=["local", "remote"])
def cache(request: Any) -> ResponseBackend:
    backend: ResponseBackend = request.getfixturevalue(request.param)
    return backend


# Both stores


def test_entry_is_returned_unchanged(cache: ResponseBackend) -> None:
    cache.put("k", ENTRY, NOW)

    assert cache.get("k", NOW) == ENTRY
    assert cache.get("l", NOW) is None


def test_entry_expires_at_max_age(cache: ResponseBackend) -> None:
    cache.put("k", ENTRY, NOW)

    assert cache.get("k", NOW + 59.9)
    assert cache.get("k", NOW + 60) is None


def test_put_replaces_entry(cache: ResponseBackend) -> None:
    cache.put("k", entry(b"1"), NOW)
    cache.put("k", entry(b"2"), NOW)

    assert cache.get("k", NOW) == entry(b"2")


def test_expired_or_large_entry_is_not_stored(cache: ResponseBackend) -> None:
    cache.put("old", entry(created_at=NOW - 10, max_age=10), NOW)
    cache.put("long", entry(b" " * (MAX_BODY_BYTES + 1)), NOW)

    assert cache.get("old", NOW) is None
    assert cache.get("long", NOW) is None


def test_closed_cache_can_be_used_again(cache: ResponseBackend) -> None:
    cache.put("k", ENTRY, NOW)
    cache.close()

    assert cache.get("k", NOW) == ENTRY


@given(st.binary(max_size=3000), st.floats(0, 1e12), st.text(max_size=9))
def test_packing_is_reversible(body: bytes, created_at: float, text: str) -> None:
    packed = CacheEntry(body, created_at, 1.5, {text: text}, (text,))

    assert unpack(pack(packed)) == packed


def test_only_compressible_entries_are_compressed() -> None:
    text, noise = b"word " * 1000, incompressible(5000)

    assert len(pack(entry(text))) < 500
    assert len(pack(entry(noise))) < 5100
    assert pack(entry(b"short")).endswith(b"short")


@pytest.mark.parametrize(
    "value", [b"", b"j", b"zjunk", b"j[1]\n{}", b"j1\n", b"?", b"j[1,2,3,4,5]\n{}"]
)
def test_foreign_bytes_are_no_entry(value: bytes) -> None:
    assert unpack(value) is None


def test_cache_file_holds_no_secret(local: LocalCache, tmp_path: Path) -> None:
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
        sizes = dict(connection.execute("SELECT key, size FROM entries").fetchall())
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert total == sum(sizes.values())
    return sizes


def test_least_recently_used_entry_is_evicted(tmp_path: Path) -> None:
    with closing(LocalCache(tmp_path / "cache.db", 3000)) as cache:
        for i, name in enumerate("abc"):
            cache.put(name, entry(incompressible(600, i)), NOW + i)
        assert cache.get("a", NOW + 10)
        cache.put("d", entry(incompressible(600)), NOW + 20)

        names = [name for name in "abcd" if cache.get(name, NOW + 30)]
        assert names == ["a", "c", "d"]


def test_entry_larger_than_cache_is_not_stored(tmp_path: Path) -> None:
    with closing(LocalCache(tmp_path / "cache.db", 3000)) as cache:
        cache.put("a", ENTRY, NOW)
        cache.put("b", entry(incompressible(3000)), NOW)

        assert cache.get("a", NOW) and not cache.get("b", NOW)


MOST = 4000
STEPS = st.tuples(st.sampled_from("abcdef"), st.integers(0, 2500))


@settings(max_examples=50)
@given(st.lists(STEPS, max_size=25))
def test_eviction_matches_lru_model(
    steps: list[tuple[str, int]],
) -> None:
    """A step of size 0 reads; others write so many bytes."""
    model: OrderedDict[str, int] = OrderedDict()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cache.db"
        with closing(LocalCache(path, MOST)) as cache:
            cache.get("-", NOW)
            for i, (name, size) in enumerate(steps):
                now = NOW + 10 * i
                if size == 0:
                    cached = cache.get(name, now)
                    assert (cached is not None) == (name in model)
                    if cached:
                        model.move_to_end(name)
                    continue
                kept = entry(incompressible(size, i))
                cache.put(name, kept, now)
                model.pop(name, None)
                model[name] = len(pack(kept)) + 256
                while sum(model.values()) > MOST:
                    model.popitem(last=False)
            assert held(path) == model


def test_expired_entries_are_deleted(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with closing(LocalCache(path, 2**20)) as cache:
        for i in range(30):
            cache.put(f"old {i}", entry(max_age=10), NOW)
        cache.put("new 1", entry(), NOW + 10)
        cache.put("new 2", entry(), NOW + 10)

        assert sorted(held(path)) == ["new 1", "new 2"]


def test_cache_file_size_is_bounded(tmp_path: Path) -> None:
    most = 2**20
    with closing(LocalCache(tmp_path / "cache.db", most)) as cache:
        for i in range(3000):
            cache.put(f"{i:064}", entry(incompressible(1500, i)), NOW + i)

    assert (tmp_path / "cache.db").stat().st_size < 1.5 * most
    assert 0.9 * most < sum(held(tmp_path / "cache.db").values()) <= most


def test_cache_file_is_private(local: LocalCache, tmp_path: Path) -> None:
    local.put("k", ENTRY, NOW)

    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_corrupt_cache_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"this is no database" * 1000)
    with closing(LocalCache(path, 2**20)) as cache:
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_cache_file_corrupted_later_is_replaced(tmp_path: Path) -> None:
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


def test_cache_file_of_other_version_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE entries (a); PRAGMA user_version = 99")
    with closing(LocalCache(path, 2**20)) as cache:
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_unusable_cache_file_is_empty(
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


def test_reader_does_not_wait_for_writer(local: LocalCache, tmp_path: Path) -> None:
    local.put("k", ENTRY, NOW)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as writer:
        writer.isolation_level = None
        writer.execute("BEGIN IMMEDIATE")
        local.put("l", ENTRY, NOW)
        cached = local.get("k", NOW + 30)
        writer.execute("ROLLBACK")

    assert cached == ENTRY
    assert local.get("l", NOW) is None
    local.put("l", ENTRY, NOW)
    assert local.get("l", NOW) == ENTRY


def test_threads_lose_no_entry_to_each_other(tmp_path: Path) -> None:
    """So many write so much that the last waits longer than SQLite would."""
    large = entry(incompressible(100_000))
    with closing(LocalCache(tmp_path / "cache.db", 2**26)) as cache:

        def work(name: int) -> None:
            for i in range(10):
                cache.put(f"{name} {i}", large, NOW)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
        run_threads(threads)

        assert len(held(tmp_path / "cache.db")) == 320


# Runs in a separate process; its first argument is the path of the cache.
PREAMBLE = f"""
import os, sys
from pathlib import Path
from app.core.caching import CacheEntry
from app.state.local_cache import LocalCache
from app.state.response_store import ResponseStore
from app.state.single_flight import SingleFlight
path, *arguments = sys.argv[1:]
cache = LocalCache(Path(path), 2**20)
now = {NOW}
def entry(text):
    return CacheEntry(text.encode(), now, 60)
"""


def process(path: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREAMBLE + code, str(path), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def output_of(running: subprocess.Popen[str]) -> str:
    """The output of a process that has to succeed."""
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 0
    return output.strip()


def test_processes_share_cache_file(local: LocalCache, tmp_path: Path) -> None:
    local.put("k", entry(b"of one"), NOW)
    code = """
print(cache.get("k", now).body.decode())
cache.put("l", entry("of another"), now)
"""
    assert output_of(process(tmp_path / "cache.db", code)) == "of one"
    assert local.get("l", NOW) == CacheEntry(b"of another", NOW, 60)


def test_processes_write_concurrently(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    code = """
import random
kept = 0
for i in range(300):
    name = arguments[0] + str(i)
    cache.put(name, CacheEntry(random.randbytes(400), now, 60), now)
    kept += cache.get(name, now) is not None
print(kept)
"""
    running = [process(path, code, name) for name in "abcd"]
    kept = [int(output_of(each)) for each in running]

    # A writer that would wait too long stores nothing, which is allowed.
    assert all(each > 250 for each in kept)
    assert len(held(path)) == sum(kept)


def test_forked_process_reopens_cache_file(tmp_path: Path) -> None:
    code = """
cache.put("k", entry("of the parent"), now)
child = os.fork()
if child == 0:
    entry_of_parent = cache.get("k", now)
    cache.put("l", entry("of the child"), now)
    cache.close()
    os._exit(0 if entry_of_parent else 1)
_, status = os.waitpid(child, 0)
print(status, cache.get("k", now).body.decode(), cache.get("l", now).body.decode())
"""
    output = output_of(process(tmp_path / "cache.db", code))

    assert output == "0 of the parent of the child"


# In Redis


def test_redis_entry_has_ttl(remote: RedisCache, valkey: Valkey) -> None:
    remote.put("k", entry(max_age=60), NOW + 10)
    with valkey.client() as client:
        (name,) = client.keys()
        left = client.pttl(name)

    assert name == b"lastword:cache:k"
    assert 40_000 < left <= 50_000


def test_two_caches_share_redis(remote: RedisCache, valkey: Valkey) -> None:
    remote.put("k", ENTRY, NOW)
    with closing(RedisCache(RedisClient(valkey.url))) as other:
        assert other.get("k", NOW) == ENTRY


def test_refused_command_is_a_miss(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.clear()
    client = RedisClient(valkey.url)
    with closing(RedisCache(client)) as cache:
        cache.put("l", ENTRY, NOW)
        with valkey.client() as other:
            other.lpush("lastword:cache:k", "a list")
        with caplog.at_level(logging.WARNING, "lastword"):
            cached = [cache.get("k", NOW) for _ in range(3)]

        assert cached == [None] * 3 and not client.is_unavailable
        assert caplog.messages == ["Redis refuses to keep answers"]
        assert cache.get("l", NOW) == ENTRY


def test_killed_redis_is_used_again_later(
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


def test_cache_reconnects_after_restart(
    mortal: Valkey,
) -> None:
    with closing(RedisCache(RedisClient(mortal.url))) as cache:
        cache.put("k", ENTRY, NOW)
        mortal.kill()
        mortal.restart()
        cache.put("k", ENTRY, NOW)

        assert cache.get("k", NOW) == ENTRY


def test_hanging_redis_is_used_again_later(mortal: Valkey) -> None:
    clock = FakeTime()
    with closing(RedisCache(RedisClient(mortal.url, clock))) as cache:
        cache.put("k", ENTRY, NOW)
        mortal.hold()
        asleep = cache.get("k", NOW)
        mortal.go_on()
        clock.now = 1

        assert asleep is None and cache.get("k", NOW) == ENTRY
