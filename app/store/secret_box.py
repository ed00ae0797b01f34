"""Encrypts secrets at rest with Fernet, under keys that the database does not hold.

Fernet is AES-128 in CBC mode with an HMAC, so a changed ciphertext is refused. Rotation
needs no downtime: the new key is put before the old one, all secrets are sealed anew
(`flask secrets rotate`), and the old one is removed. Meanwhile both can be opened.

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
    """Encrypts with the first of *keys*, decrypts with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    @cached_property
    def _fernet(self) -> "MultiFernet":
        # Imported here, as it takes 6 MB of a worker, also where nothing is sealed.
        from cryptography.fernet import Fernet, MultiFernet

        # Fernet takes 32 bytes; an operator's key is any text. A plain hash is enough,
        # without salt or stretching: settings.py refuses keys under 16 characters.
        digests = [hashlib.sha256(key.encode()).digest() for key in self._keys]
        return MultiFernet([Fernet(base64.urlsafe_b64encode(d)) for d in digests])

    def seal(self, secret: bytes) -> bytes:
        return self._fernet.encrypt(secret)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt *sealed*. Raises StoreUnavailable if none of the keys fits."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as e:
            raise StoreUnavailable(
                "A stored credential cannot be opened: it was sealed under another "
                "GATEWAY_SECRET_KEY."
            ) from e


def keys(setting: str, instance: Path) -> list[str]:
    """The keys of the setting, newest first, or those of the file in *instance*.

    The file is created on first use.
    """
    keys = [key.strip() for key in setting.split(",") if key.strip()]
    if keys:
        return keys
    path = instance / FILE
    if not path.exists():
        private_files.make_folder(path.parent)
        _create(path)
    return path.read_text().split()


def _create(path: Path) -> None:
    """Write a new key, unless another process was faster."""
    # All workers may get here at the same first start; each writes a file of its own.
    new = path.with_suffix(f".{secrets.token_hex(8)}")
    _write(new, [secrets.token_urlsafe(32)])
    # A hard link fails if the target exists, unlike a rename, which would replace a key
    # that another process may already seal with. And readers never see half a file.
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


def rewrite(path: Path, keys: Sequence[str]) -> None:
    """Replace the keys in the file, atomically."""
    # In the same folder, as a rename is atomic only within one file system.
    new = path.with_suffix(".new")
    _write(new, keys)
    new.replace(path)


def _write(path: Path, keys: Sequence[str]) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, private_files.FILE)
    with os.fdopen(file, "w") as stream:
        # A file left behind by a crash may have another mode.
        os.fchmod(file, private_files.FILE)
        stream.write("".join(f"{key}\n" for key in keys))
