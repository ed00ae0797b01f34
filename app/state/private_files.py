"""Files and folders for their owner alone, whatever the umask.

They hold what callers said, counters, and under a key beside them credentials. SQLite
gives its `-wal` and `-shm` the mode of the database, so that is made before SQLite
would: there is no moment at which others can open it.
"""

import logging
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("lastword")

FILE, FOLDER = 0o600, 0o700


def make_folder(path: Path) -> None:
    """Make the folder, if there is none; others may pass through those above it."""
    for parent in reversed(path.parents):
        with suppress(FileExistsError):
            parent.mkdir(mode=0o755)
    path.mkdir(exist_ok=True, mode=FOLDER)


def make_file(path: Path) -> None:
    """Make the file, empty, if there is none.

    One that is there is not opened: to close it would take back the locks that this
    process has on it by SQLite.
    """
    with suppress(FileExistsError):
        path.touch(mode=FILE, exist_ok=False)


def tighten(folder: Path) -> None:
    """Take from others what they may with *folder* and the files in it; log each one.

    A folder that all may write to, such as /tmp, is shared, and stays as it is.
    """
    for path in _within(folder):
        # SQLite takes files away when the last connection ends.
        with suppress(FileNotFoundError):
            _tighten(path, FOLDER if path == folder else FILE)


def _tighten(path: Path, most: int) -> None:
    before = stat.S_IMODE(path.stat().st_mode)
    after = before & most
    if before == after:
        return
    try:
        path.chmod(after)
    except PermissionError as e:
        logger.warning("%s: mode %04o stays: %s", path, before, e.strerror)
    else:
        logger.warning("%s: mode was %04o, and is %04o now", path, before, after)


def _within(folder: Path) -> Iterator[Path]:
    """*folder* and the files in it, but for links; nothing of a shared one."""
    try:
        state = folder.stat()
        paths = [folder, *sorted(folder.iterdir())]
    except OSError:
        return
    if state.st_mode & stat.S_ISVTX:
        return
    for path in paths:
        with suppress(FileNotFoundError):
            if path == folder or stat.S_ISREG(path.lstat().st_mode):
                yield path
