"""What is stored, as requests see it: in memory, and at most a few seconds old.

Whether anything has changed is asked at most once in *ttl* seconds. When the database
is out of reach, what was known goes on for *grace* seconds.
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
from .repository import EMPTY, Repository, Snapshot, hashed

logger = logging.getLogger("lastword")


class StoreCache:
    """Configs, keys and aliases by their names. One for each process.

    *file* is the database's, where it is one: as long as there is none, nothing is
    stored.
    """

    def __init__(
        self,
        repository: Callable[[], Repository],
        *,
        ttl: float,
        grace: float,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._made = repository, threading.Lock()
        self._repository: Repository | None = None
        self._ttl, self._grace, self._file, self._clock = ttl, grace, file, clock
        self._reading = threading.Lock()
        self._contents: Snapshot = EMPTY
        # Of virtual keys, opened; by what they were sealed as.
        self._opened: dict[bytes, Mapping[str, Any]] = {}
        self._asked = self._known = float("-inf")
        self._lost = False

    def key(self, text: str) -> GatewayKey | None:
        """The gateway key that *text* is; None if it is none."""
        contents = self._current()
        told = hashed(text, contents.pepper)
        # Found by its hash, which nobody can choose, and compared in constant time.
        found = told if told in contents.keys else ""
        return contents.keys[found] if hmac.compare_digest(found, told) else None

    def config(self, id: str) -> Mapping[str, Any] | None:
        return self._current().configs.get(id)

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """All of them, by their ids. Raises StoreUnavailable."""
        return self._current().configs

    @property
    def keys(self) -> Collection[GatewayKey]:
        """All gateway keys. Raises StoreUnavailable."""
        return self._current().keys.values()

    def virtual_key(self, id: str) -> VirtualKey | None:
        """The virtual key with its settings. Raises StoreUnavailable if sealed."""
        contents = self._current()
        if id not in contents.virtual_keys:
            return None
        sealed = contents.sealed[id]
        settings = self._opened.get(sealed) or self._store().settings(sealed)
        self._opened[sealed] = settings
        return replace(contents.virtual_keys[id], settings=settings)

    def alias(self, model: str) -> Alias | None:
        return self._current().aliases.get(model)

    @property
    def protects(self) -> bool:
        """Whether there is anything that not everybody may use."""
        contents = self._current()
        return bool(contents.keys or contents.virtual_keys)

    def close(self) -> None:
        """Let go of the database."""
        if self._repository:
            self._repository.engine.dispose()

    def _current(self) -> Snapshot:
        if self._is_old:
            with self._reading:
                if self._is_old:
                    self._ask()
        if self._lost:
            raise StoreUnavailable
        return self._contents

    @property
    def _is_old(self) -> bool:
        return self._clock() - self._asked > self._ttl

    def _ask(self) -> None:
        """Read what has changed; if it cannot be read, go on with what is known."""
        try:
            self._read()
            self._known, self._lost = self._clock(), False
        except StoreUnavailable:
            logger.warning("the store is out of reach", exc_info=True)
            self._lost = self._clock() - self._known > self._grace
        self._asked = self._clock()

    def _read(self) -> None:
        if self._file and not self._file.exists():
            self._contents = EMPTY
            return
        store = self._store()
        if store.revision() != self._contents.revision:
            self._contents, self._opened = store.contents(), {}

    def _store(self) -> Repository:
        with self._made:
            self._repository = self._repository or self._make()
            return self._repository
