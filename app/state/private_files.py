"""Files and folders that only their owner can access, whatever the umask.

They hold cached answers, counters, and the key that seals credentials. SQLite gives its
`-wal` and `-shm` files the mode of the database, which is therefore created here before
SQLite would: at no moment can others open it.
"""

import logging
import stat
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger("lastword")

FILE, FOLDER = 0o600, 0o700


def make_folder(path: Path) -> None:
    """Create the folder if there is none; its new parents are open to others."""
    # One by one, outermost first: `mkdir(parents=True)` ignores `mode` for the parents.
    for parent in reversed(path.parents):
        with suppress(FileExistsError):
            parent.mkdir(mode=0o755)
    path.mkdir(exist_ok=True, mode=FOLDER)


def make_file(path: Path) -> None:
    """Create the file, empty, if there is none.

    An existing one is not opened: closing it would release the POSIX locks that SQLite
    holds on it in this process.
    Source: https://www.sqlite.org/howtocorrupt.html (section 2.2)
    """
    with suppress(FileExistsError):
        path.touch(mode=FILE, exist_ok=False)


def tighten(folder: Path) -> None:
    """Remove the rights of others on *folder* and the files in it; log each change.

    A folder that all may write to, such as /tmp, is shared and stays as it is. So do
    symbolic links.
    """
    try:
        # The sticky bit, as on /tmp: only owners may delete what is theirs.
        shared = folder.stat().st_mode & stat.S_ISVTX
        paths = sorted(folder.iterdir())
    except OSError:
        return
    if shared:
        return
    for path in [folder, *paths]:
        # SQLite deletes files when the last connection closes.
        with suppress(FileNotFoundError):
            if path == folder:
                _tighten(path, FOLDER)
            elif stat.S_ISREG(path.lstat().st_mode):
                _tighten(path, FILE)


def _tighten(path: Path, mask: int) -> None:
    before = stat.S_IMODE(path.stat().st_mode)
    after = before & mask
    if before == after:
        return
    try:
        path.chmod(after)
    except PermissionError as e:
        logger.warning("%s: mode %04o stays: %s", path, before, e.strerror)
    else:
        logger.warning("%s: mode was %04o, and is %04o now", path, before, after)
