"""Files and folders that only their owner can read."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.state import private_files


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_new_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    private_files.make_folder(folder)
    private_files.make_folder(folder)
    private_files.make_file(folder / "c")
    (folder / "c").write_text("kept")
    private_files.make_file(folder / "c")

    assert (mode(folder), mode(folder / "c")) == ("0700", "0600")
    assert mode(tmp_path / "a") in ("0755", "0700")
    assert (folder / "c").read_text() == "kept"


def test_existing_files_are_tightened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "instance"
    folder.mkdir()
    folder.chmod(0o755)
    names = ["gateway.db", "gateway.db-shm", "gateway.db-wal", "limits.db"]
    for name in [*names, "secret.key"]:
        (folder / name).touch()
        (folder / name).chmod(0o644)
    (folder / "secret.key").chmod(0o400)
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    (folder / "link").symlink_to(outside)
    with caplog.at_level(logging.WARNING):
        private_files.tighten(folder)
        private_files.tighten(folder)

    assert mode(folder) == "0700"
    assert {mode(folder / name) for name in names} == {"0600"}
    assert mode(folder / "secret.key") == "0400"
    assert mode(outside) == "0644"
    changed = [f"{folder / name}: mode was 0644, and is 0600 now" for name in names]
    assert caplog.messages == [f"{folder}: mode was 0755, and is 0700 now", *changed]


def test_shared_folder_stays_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / "file").touch()
    (folder / "file").chmod(0o644)
    private_files.tighten(folder)
    private_files.tighten(tmp_path / "absent")

    assert (mode(folder), mode(folder / "file")) == ("1777", "0644")
