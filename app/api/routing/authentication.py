"""Authentication: who calls, and which stored configs and keys they may use.

A gateway key is accepted in every header in which a client can send a key. Beside it,
or without one, a caller may send a provider's key of their own, unless GATEWAY_BYOK is
off. GATEWAY_AUTH sets whether stored resources and the embedded engine need a gateway
key; by default they do as soon as something is stored, or clients on other machines can
connect.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ...core.credentials import split_credentials
from ...core.hosts import LOCALHOST, is_loopback
from ...core.permissions import (
    Alias,
    GatewayKey,
    Permissions,
    VirtualKey,
    split_model,
)
from ...errors import Forbidden, InvalidRoute, StoreUnavailable, WrongKey
from ...gateway.authorization import gateway_key_required
from ...settings import Settings
from ...store.store_cache import StoreCache
from ..config.nodes import ConfigNode
from ..request.client_address import is_direct
from ..request.headers import RequestHeaders

# Portkey's message for an invalid config, and one in the same style for a virtual key.
_LEGACY = {
    "config": "Invalid config passed. You need to pass a valid json",
    "virtual key": "Invalid virtual key passed",
}


@dataclass(frozen=True, slots=True)
class TrustedHosts:
    """Hosts that may be internal: in what the operator has *stored*, and in what the
    caller has *sent*. The former are a subset of the latter.
    """

    stored: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: with a gateway key, a provider's key, or neither.

    *is_open* means that no gateway key is needed here, *byok* that callers may send
    credentials of providers.
    """

    directory: StoreCache
    key: GatewayKey | None = None
    provider_key: str | None = None
    is_open: bool = True
    byok: bool = True
    trusted: TrustedHosts = TrustedHosts()

    @property
    def is_known(self) -> bool:
        """Whether they may use resources of the gateway."""
        return self.is_open or self.key is not None

    def config(self, id: str) -> Mapping[str, Any]:
        """The stored config *id*. Raises Unauthorized, Forbidden, or InvalidRoute."""
        config = self.directory.config(id) if self._may_use("configs", id) else None
        if config is None:
            self._refuse("config", id)
        return config

    def virtual_key(self, id: str, *, trusted: bool = False) -> VirtualKey:
        """The virtual key *id*. One that a stored config names is *trusted*."""
        may_use = self.is_known if trusted else self._may_use("virtual_keys", id)
        key = self.directory.virtual_key(id) if may_use else None
        if key is None or key.disabled:
            self._refuse("virtual key", id)
        return key

    def key_in_model(
        self, model: Any, *, trusted: bool = False
    ) -> tuple[str, str] | None:
        """The virtual key and the model in `@key/model`, if there is such a key; None
        if all of it is the model's name.

        It is to be called only where nothing else names the provider. One in a stored
        config or alias is *trusted*. A key that the caller may not use counts as none,
        so that names cannot be probed; whoever may use none at all is refused, as for
        any virtual key.
        """
        parts = split_model(model)
        if parts is None:
            return None
        may_use = self.is_known if trusted else self._may_use("virtual_keys", parts[0])
        return parts if may_use and self.directory.virtual_key(parts[0]) else None

    def _may_use(self, resource: str, name: str) -> bool:
        if not self.is_known:
            raise gateway_key_required()
        return self.key is None or self.key.may_use(resource, name)

    def _refuse(self, kind: str, id: str) -> NoReturn:
        """Raise the error for a resource that is missing or not allowed.

        To the holder of a key both are the same error, so that names cannot be probed.
        """
        message = f"This key may not use the {kind} {id[:80]!r}, or there is none."
        if self.key:
            raise Forbidden(message)
        raise InvalidRoute(
            f"There is no {kind} {id[:80]!r}.",
            legacy=_LEGACY[kind],
            code=f"unknown_{kind.replace(' ', '_')}",
        )

    def stored_alias(self, model: str) -> Alias | None:
        """The alias of *model* that is stored for this key, or for everybody."""
        # An alias for everybody leads to what the gateway pays for, so a caller without
        # any standing here does not get it.
        own = self.key.aliases.get(model) if self.key else None
        if own or not self.is_known:
            return own
        return self.directory.alias(model)

    def permissions(self, config: ConfigNode | None) -> Permissions:
        """The permissions of a request that uses the stored *config*."""
        return Permissions(
            self.key,
            self.is_known,
            self.byok,
            config.virtual_keys if config else frozenset(),
            config.secrets if config else frozenset(),
            self.stored_alias,
        )


def authenticate(
    headers: RequestHeaders,
    directory: StoreCache,
    settings: Settings,
    environ: Mapping[str, Any],
) -> Caller:
    """The caller who sends *headers*. Raises Unauthorized, or StoreUnavailable."""
    # Portkey's SDKs send Portkey's key in x-portkey-api-key and the provider's key in
    # Authorization. Therefore Authorization comes first when the header
    # x-portkey-package-version shows that the client is one of those SDKs.
    names = ["x-portkey-api-key", "authorization", "x-api-key", "api-key"]
    if headers.get("x-portkey-package-version"):
        names[:2] = reversed(names[:2])
    values = [headers[name] for name in names if headers.get(name)]
    gateway_key, provider_key = split_credentials(values)
    unprotected = is_unprotected(directory, settings)
    trusted = trusted_hosts(unprotected, settings, environ)
    byok = settings.byok
    if gateway_key is not None:
        key = directory.key(gateway_key)
        # One error for all three: a guess learns nothing of the key that it hit.
        if key is None or not key.is_valid(time.time()):
            raise WrongKey(
                "Incorrect API key provided: this gateway key is unknown, disabled or "
                "expired.",
                code="invalid_api_key",
            )
        return Caller(
            directory, key, provider_key, is_open=False, byok=byok, trusted=trusted
        )
    if unprotected:
        return Caller(directory, None, provider_key, byok=byok, trusted=trusted)
    # Without GATEWAY_BYOK a provider's key in a header opens nothing.
    if provider_key is None or not byok:
        raise StoreUnavailable if unprotected is None else gateway_key_required()
    return Caller(directory, None, provider_key, is_open=False, trusted=trusted)


def is_unprotected(directory: StoreCache, settings: Settings) -> bool | None:
    """Whether no gateway key is needed: unless a setting says so, if nothing is stored
    and no other machine can connect.

    None while the store is out of reach: whoever has a provider's key can go on with
    that.
    """
    if settings.auth:
        return settings.auth == "open"
    if settings.trusted_proxies or not is_loopback(settings.bind):
        return False
    try:
        return not directory.protects
    except StoreUnavailable:
        return None


def trusted_hosts(
    unprotected: bool | None, settings: Settings, environ: Mapping[str, Any] | None
) -> TrustedHosts:
    """The trusted hosts of a request with *environ*; None is a request of this machine.

    They are those of the setting. Without it, this machine is trusted by requests that
    come from it directly, as long as the gateway is *unprotected*.
    """
    hosts = settings.trusted_custom_hosts
    if hosts is not None:
        return TrustedHosts(hosts, hosts)
    # An internal address reaches what no outsider should, such as a cloud's metadata,
    # so each doubt ends in trusting none.
    if not unprotected or settings.trusted_proxies:
        return TrustedHosts()
    is_local = environ is None or is_direct(environ, settings)
    return TrustedHosts((), LOCALHOST) if is_local else TrustedHosts()
