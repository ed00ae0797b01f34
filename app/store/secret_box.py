"""Secrets at rest: sealed by Fernet, under keys that the database does not hold.

Source: https://cryptography.io/en/latest/fernet/ (MultiFernet for rotation)
"""

import base64
import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable
from ..state import private_files

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

logger = logging.getLogger("lastword")

FILE = "secret.key"


class SecretBox:
    """Seals with the first of *keys*, opens with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    @cached_property
    def _fernet(self) -> "MultiFernet":
        # 6 MB in each worker, which is spared where nothing is sealed.
        from cryptography.fernet import Fernet, MultiFernet

        return MultiFernet([Fernet(_derived(key)) for key in self._keys])

    def seal(self, secret: bytes) -> bytes:
        return self._fernet.encrypt(secret)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises StoreUnavailable if that was under another key."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as e:
            raise StoreUnavailable(
                "A stored credential cannot be opened: it was sealed under another "
                "GATEWAY_SECRET_KEY."
            ) from e


def _derived(key: str) -> bytes:
    """A key of Fernet's, from any text that is long enough."""
    return base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest())


def keys(setting: str, instance: Path) -> list[str]:
    """The keys of the setting, newest first, or those of the file in *instance*.

    The file is made on first use.
    """
    given = [key.strip() for key in setting.split(",") if key.strip()]
    return given or _of_file(instance / FILE)


def _of_file(path: Path) -> list[str]:
    if not path.exists():
        private_files.make_folder(path.parent)
        _make(path)
    return path.read_text().split()


def _make(path: Path) -> None:
    """Write a new key, unless another process was faster."""
    new = path.with_suffix(f".{secrets.token_hex(8)}")
    _write(new, [secrets.token_urlsafe(32)])
    try:
        os.link(new, path)
    except FileExistsError:
        return
    finally:
        new.unlink()
    logger.warning(
        "made %s: keep it, and keep it secret; without it no stored credential can be "
        "opened again",
        path,
    )


def rewrite(path: Path, written: Sequence[str]) -> None:
    """Replace the file's keys by *written*, in one step."""
    new = path.with_suffix(".new")
    _write(new, written)
    new.replace(path)


def _write(path: Path, written: Sequence[str]) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, private_files.FILE)
    with os.fdopen(file, "w") as stream:
        # One that was left behind may have another mode.
        os.fchmod(file, private_files.FILE)
        stream.write("".join(f"{key}\n" for key in written))
