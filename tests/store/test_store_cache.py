"""What requests see of the store: how old, how often asked, and without a database."""

from collections.abc import Callable
from typing import Any

import pytest

from app.core.permissions import GatewayKey, VirtualKey
from app.errors import StoreUnavailable
from app.store.repository import EMPTY, Snapshot, hashed
from app.store.store_cache import StoreCache

PEPPER = b"pepper"


class Shelf:
    """A repository that counts who asks, and may be out of reach."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = self.read = self.opened = 0
        self.gone = False
        self.number = 1
        self.config: Any = {"provider": "openai"}
        self.engine: Any = None

    def revision(self) -> int:
        self.asked += 1
        if self.gone:
            raise StoreUnavailable
        return self.number

    def contents(self) -> Snapshot:
        self.read += 1
        key = GatewayKey("k")
        return Snapshot(
            self.number,
            {"main": self.config},
            {"v": VirtualKey("v", "openai")},
            {"v": b"sealed"},
            {hashed("lw-x", PEPPER): key},
            {},
            PEPPER,
        )

    def settings(self, sealed: bytes) -> dict[str, Any]:
        self.opened += 1
        return {"api_key": sealed.decode()}


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def directory(shelf: Shelf) -> StoreCache:
    made: Callable[[], Any] = lambda: shelf
    return StoreCache(made, ttl=5, grace=300, clock=lambda: shelf.now)


def test_it_is_asked_once_in_a_while_and_read_when_something_changed(
    directory: StoreCache, shelf: Shelf
) -> None:
    for _ in range(3):
        assert directory.config("main") == {"provider": "openai"}
    assert (shelf.asked, shelf.read) == (1, 1)

    shelf.now = 5.1
    directory.config("main")
    assert (shelf.asked, shelf.read) == (2, 1)

    shelf.number, shelf.config, shelf.now = 2, {"provider": "groq"}, 10.3
    assert directory.config("main") == {"provider": "groq"}
    assert (shelf.asked, shelf.read) == (3, 2)


def test_a_key_is_known_by_its_hash(directory: StoreCache) -> None:
    assert directory.key("lw-x") == GatewayKey("k")
    assert directory.key("lw-y") is None and directory.key("") is None


def test_a_sealed_key_is_opened_once(directory: StoreCache, shelf: Shelf) -> None:
    for _ in range(3):
        found = directory.virtual_key("v")
        assert found and found.settings == {"api_key": "sealed"}

    assert shelf.opened == 1 and directory.virtual_key("w") is None
    assert "sealed" not in repr(found)


def test_what_is_known_goes_on_without_the_database_for_a_while(
    directory: StoreCache, shelf: Shelf
) -> None:
    directory.config("main")
    shelf.gone = True
    for shelf.now in (6.0, 100.0, 299.0):  # noqa: B007 - time passes
        assert directory.config("main") and directory.key("lw-x")

    for shelf.now in (306.0, 306.1):  # noqa: B007
        with pytest.raises(StoreUnavailable):
            directory.key("lw-x")
    assert shelf.asked == 5  # At most once in 5 seconds, also when it fails.

    shelf.gone, shelf.now = False, 320.0
    assert directory.key("lw-x")


def test_a_gateway_that_starts_without_the_database_knows_nothing(
    directory: StoreCache, shelf: Shelf
) -> None:
    shelf.gone = True

    with pytest.raises(StoreUnavailable):
        directory.config("main")


def test_without_a_file_nothing_is_stored_and_nothing_is_made(tmp_path: Any) -> None:
    def never() -> Any:
        raise AssertionError

    file = tmp_path / "gateway.db"
    empty = StoreCache(never, ttl=5, grace=300, file=file)

    assert empty.config("main") is None and not empty.protects
    assert list(tmp_path.iterdir()) == [] and EMPTY.keys == {}
