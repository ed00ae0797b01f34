"""The cached store: its age, its queries, and its grace without a database."""

from collections.abc import Callable
from typing import Any

import pytest

from app.core.permissions import GatewayKey, VirtualKey
from app.errors import StoreUnavailable
from app.store.repository import EMPTY, Snapshot, key_hash
from app.store.store_cache import StoreCache

PEPPER = b"pepper"


class FakeRepository:
    """A repository that counts its calls, and may be unavailable."""

    def __init__(self) -> None:
        self.now = 0.0
        self.revisions_read = self.snapshots_read = self.decrypted = 0
        self.unavailable = False
        self.number = 1
        self.config: Any = {"provider": "openai"}
        self.engine: Any = None

    def revision(self) -> int:
        self.revisions_read += 1
        if self.unavailable:
            raise StoreUnavailable
        return self.number

    def contents(self) -> Snapshot:
        self.snapshots_read += 1
        key = GatewayKey("k")
        return Snapshot(
            self.number,
            {"main": self.config},
            {"v": VirtualKey("v", "openai")},
            {"v": b"sealed"},
            {key_hash("lw-x", PEPPER): key},
            {},
            PEPPER,
        )

    def settings(self, sealed: bytes) -> dict[str, Any]:
        self.decrypted += 1
        return {"api_key": sealed.decode()}


@pytest.fixture
def repository() -> FakeRepository:
    return FakeRepository()


@pytest.fixture
def store_cache(repository: FakeRepository) -> StoreCache:
    open_repository: Callable[[], Any] = lambda: repository
    return StoreCache(open_repository, ttl=5, grace=300, clock=lambda: repository.now)


def test_snapshot_is_read_after_change(
    store_cache: StoreCache, repository: FakeRepository
) -> None:
    for _ in range(3):
        assert store_cache.config("main") == {"provider": "openai"}
    assert (repository.revisions_read, repository.snapshots_read) == (1, 1)

    repository.now = 5.1
    store_cache.config("main")
    assert (repository.revisions_read, repository.snapshots_read) == (2, 1)

    repository.number, repository.config, repository.now = 2, {"provider": "groq"}, 10.3
    assert store_cache.config("main") == {"provider": "groq"}
    assert (repository.revisions_read, repository.snapshots_read) == (3, 2)


def test_key_is_looked_up_by_hash(store_cache: StoreCache) -> None:
    assert store_cache.key("lw-x") == GatewayKey("k")
    assert store_cache.key("lw-y") is None and store_cache.key("") is None


def test_settings_are_decrypted_once(
    store_cache: StoreCache, repository: FakeRepository
) -> None:
    for _ in range(3):
        key = store_cache.virtual_key("v")
        assert key and key.settings == {"api_key": "sealed"}

    assert repository.decrypted == 1 and store_cache.virtual_key("w") is None
    assert "sealed" not in repr(key)


def test_snapshot_outlives_database_for_grace(
    store_cache: StoreCache, repository: FakeRepository
) -> None:
    store_cache.config("main")
    repository.unavailable = True
    for repository.now in (6.0, 100.0, 299.0):  # noqa: B007 - time passes
        assert store_cache.config("main") and store_cache.key("lw-x")

    for repository.now in (306.0, 306.1):  # noqa: B007
        with pytest.raises(StoreUnavailable):
            store_cache.key("lw-x")
    assert (
        repository.revisions_read == 5
    )  # At most one attempt in 5 seconds, also after a failure.

    repository.unavailable, repository.now = False, 320.0
    assert store_cache.key("lw-x")


def test_start_without_database_is_unavailable(
    store_cache: StoreCache, repository: FakeRepository
) -> None:
    repository.unavailable = True

    with pytest.raises(StoreUnavailable):
        store_cache.config("main")


def test_missing_file_is_not_created(tmp_path: Any) -> None:
    def never() -> Any:
        raise AssertionError

    file = tmp_path / "gateway.db"
    empty = StoreCache(never, ttl=5, grace=300, file=file)

    assert empty.config("main") is None and not empty.protects
    assert list(tmp_path.iterdir()) == [] and EMPTY.keys == {}
