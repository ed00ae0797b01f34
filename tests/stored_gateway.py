"""A gateway with a store, and an upstream behind a virtual key."""

from collections.abc import Callable
from typing import Any

from app.core.permissions import GatewayKey, VirtualKey
from app.settings import Settings
from app.store import factory
from app.store.repository import Repository

from .conftest import Caller
from .upstream import Upstream

SEALED = "sk-sealed-in-the-store"


class StoredGateway:
    """The store of a gateway with *settings*, and callers of that gateway."""

    def __init__(
        self, call: Callable[..., Caller], upstream: Upstream, settings: Settings
    ) -> None:
        self.upstream, self.settings = upstream, settings
        self.store: Repository = factory.repository(settings)
        self._call = call

    def __enter__(self) -> "StoredGateway":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.store.engine.dispose()

    def caller(self, key: str | None = None, **changes: Any) -> Caller:
        """A caller with a key and no other header.

        Each caller has its own gateway on the same store.
        """
        fields = {
            name: getattr(self.settings, name)
            for name in ("instance", "database_url", "secret_key", "store_ttl")
            + ("redis_url", "prices")
        }
        caller = self._call(self.upstream, **fields | changes)
        caller.headers.clear()
        if key:
            caller.headers["Authorization"] = f"Bearer {key}"
        return caller

    def virtual_key(self, id: str = "openai-1", **fields: Any) -> str:
        defaults = {
            "provider": "openai",
            "settings": {"api_key": SEALED},
            "custom_host": self.upstream.url,
        }
        self.store.put_virtual_key(VirtualKey(id, **defaults | fields))
        return id

    def key(self, name: str = "job", **fields: Any) -> str:
        return self.store.create_key(GatewayKey(name, **fields))

    @property
    def sent_key(self) -> str | None:
        return self.upstream.last.headers.get("authorization")
