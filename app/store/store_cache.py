"""The store as requests see it: in memory, and at most a few seconds old.

Whether anything has changed is checked at most once in *ttl* seconds. When the database
is unavailable, the last snapshot stays in use for *grace* seconds.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.permissions import Alias, GatewayKey, VirtualKey
from ..errors import StoreUnavailable
from .repository import EMPTY, Repository, Snapshot, key_hash

logger = logging.getLogger("lastword")


# Every request looks up its key, so it must not wait for the database. Within the TTL
# lookups read the snapshot, without a lock: it is never changed, only replaced as a
# whole. After the TTL one thread asks for the revision, the others wait for it. If the
# database is down, old keys stay valid for the grace time, and no longer: a key that
# was revoked meanwhile would be accepted until then.


class StoreCache:
    """Configs, keys and aliases by their names. One for each process.

    *file* is the database's, if it is SQLite: as long as the file does not exist,
    nothing is stored. All lookups raise StoreUnavailable.
    """

    def __init__(
        self,
        open_repository: Callable[[], Repository],
        *,
        ttl: float,
        grace: float,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_repository, self._open_lock = open_repository, threading.Lock()
        self._repository: Repository | None = None
        self._ttl, self._grace, self._file, self._clock = ttl, grace, file, clock
        self._refresh_lock = threading.Lock()
        self._snapshot: Snapshot = EMPTY
        # The decrypted settings of virtual keys, by their sealed form.
        self._settings: dict[bytes, Mapping[str, Any]] = {}
        self._last_check = self._last_success = float("-inf")
        self._expired = False

    def key(self, text: str) -> GatewayKey | None:
        """The gateway key whose text this is."""
        snapshot = self._current()
        digest = key_hash(text, snapshot.pepper)
        # The time of a dict lookup depends on the hash, but callers cannot choose that
        # without the pepper. What is compared then is compared in constant time.
        match = digest if digest in snapshot.keys else ""
        return snapshot.keys[match] if hmac.compare_digest(match, digest) else None

    def config(self, id: str) -> Mapping[str, Any] | None:
        return self._current().configs.get(id)

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """All configs by their ids."""
        return self._current().configs

    @property
    def keys(self) -> Collection[GatewayKey]:
        return self._current().keys.values()

    def virtual_key(self, id: str) -> VirtualKey | None:
        """The virtual key with its settings.

        Raises StoreUnavailable also if they cannot be decrypted.
        """
        snapshot = self._current()
        if id not in snapshot.virtual_keys:
            return None
        sealed = snapshot.sealed[id]
        # Decrypted with the first use: a worker may never see most of the keys.
        settings = self._settings.get(sealed) or self._store().settings(sealed)
        self._settings[sealed] = settings
        return replace(snapshot.virtual_keys[id], settings=settings)

    def alias(self, model: str) -> Alias | None:
        return self._current().aliases.get(model)

    @property
    def protects(self) -> bool:
        """Whether there are any keys, so that not everybody may call."""
        snapshot = self._current()
        return bool(snapshot.keys or snapshot.virtual_keys)

    def close(self) -> None:
        """Close the database."""
        if self._repository:
            self._repository.engine.dispose()

    def _current(self) -> Snapshot:
        if self._is_stale:
            with self._refresh_lock:
                # Another thread may have refreshed it meanwhile.
                if self._is_stale:
                    self._refresh()
        if self._expired:
            raise StoreUnavailable
        return self._snapshot

    @property
    def _is_stale(self) -> bool:
        return self._clock() - self._last_check > self._ttl

    def _refresh(self) -> None:
        """Read the store if it has changed; or keep the snapshot within the grace."""
        try:
            # Opening SQLite's file would create it: a gateway in which nothing was ever
            # stored leaves no file behind.
            if self._file and not self._file.exists():
                self._snapshot = EMPTY
            else:
                store = self._store()
                # Not `<`: the database may have been replaced by a backup.
                if store.revision() != self._snapshot.revision:
                    self._snapshot, self._settings = store.contents(), {}
            self._last_success, self._expired = self._clock(), False
        except StoreUnavailable:
            logger.warning("the store is out of reach", exc_info=True)
            self._expired = self._clock() - self._last_success > self._grace
        # Also after a failure: a database that is down is tried once in *ttl* seconds.
        self._last_check = self._clock()

    def _store(self) -> Repository:
        with self._open_lock:
            self._repository = self._repository or self._open_repository()
            return self._repository
