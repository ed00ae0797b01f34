"""Keys that encrypt credentials: configured, or created once in a file."""

import logging
import stat
import threading
from pathlib import Path

import pytest

from app.errors import StoreUnavailable
from app.store import secret_box
from app.store.secret_box import SecretBox
from tests.threads import run_threads


def test_secret_opens_with_any_key() -> None:
    old, both = SecretBox(["old"]), SecretBox(["new", "old"])
    sealed = old.seal(b"secret")

    assert both.open(sealed) == b"secret" and b"secret" not in sealed
    with pytest.raises(StoreUnavailable):
        old.open(both.seal(b"secret"))


def test_key_file_is_created_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (first,) = secret_box.keys("", tmp_path)
        (second,) = secret_box.keys("", tmp_path)

    path = tmp_path / "secret.key"
    assert first == second and len(first) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [record.message.count("keep it") for record in caplog.records] == [2]
    assert first not in caplog.text


def test_concurrent_workers_share_key_file(tmp_path: Path) -> None:
    keys: list[str] = []
    threads = [
        threading.Thread(target=lambda: keys.extend(secret_box.keys("", tmp_path)))
        for _ in range(8)
    ]
    run_threads(threads)

    assert len(set(keys)) == 1 and len(keys) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_configured_keys_come_before_file(tmp_path: Path) -> None:
    assert secret_box.keys(" new , old ", tmp_path) == ["new", "old"]
    assert list(tmp_path.iterdir()) == []
