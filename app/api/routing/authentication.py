"""Who calls, and what of the stored things they may use.

A gateway key is accepted wherever a client can put a key. Beside it, or without one, a
caller may bring a key of the provider's own, unless GATEWAY_BYOK is off. Whether a
gateway key is needed for what is stored, and for the embedded engine, GATEWAY_AUTH
says; by default it is, as soon as there is something stored, or others than this
machine can call.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ...core.gateway_keys import gateway_key_in, holds_gateway_key
from ...core.hosts import LOCALHOST, is_loopback
from ...core.permissions import Alias, GatewayKey, Permissions, VirtualKey
from ...errors import Forbidden, InvalidRoute, StoreUnavailable, WrongKey
from ...gateway.authorization import gateway_key_required
from ...settings import Settings
from ...store.store_cache import StoreCache
from ..config.nodes import ConfigNode
from ..request.client_address import is_direct
from ..request.headers import RequestHeaders

# What portkey-ai sends when it was given no key of a provider.
PLACEHOLDER_KEY = "OPENAI_API_KEY"


# What Portkey says of a config that is none, and would say of such a key.
_LEGACY = {
    "config": "Invalid config passed. You need to pass a valid json",
    "virtual key": "Invalid virtual key passed",
}


@dataclass(frozen=True, slots=True)
class TrustedHosts:
    """Hosts that may be internal: where the operator has stored them, and where the
    caller names them. The former are among the latter.
    """

    stored: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: with a gateway key, with a key of the provider's own, or neither.

    *is_open* says that nobody needs a gateway key here, *byok* that credentials of
    providers may be the caller's own.
    """

    directory: StoreCache
    key: GatewayKey | None = None
    provider_key: str | None = None
    is_open: bool = True
    byok: bool = True
    trusted: TrustedHosts = TrustedHosts()

    @property
    def is_known(self) -> bool:
        """Whether they may use what belongs to the gateway."""
        return self.is_open or self.key is not None

    def config(self, id: str) -> Mapping[str, Any]:
        """The stored config *id*. Raises Unauthorized, Forbidden, or InvalidRoute."""
        found = self.directory.config(id) if self._may_use("configs", id) else None
        if found is None:
            self._nothing("config", id)
        return found

    def virtual_key(self, id: str, *, trusted: bool = False) -> VirtualKey:
        """The virtual key *id*. One that a stored config names is *trusted*."""
        may = self.is_known if trusted else self._may_use("virtual_keys", id)
        found = self.directory.virtual_key(id) if may else None
        if found is None or found.disabled:
            self._nothing("virtual key", id)
        return found

    def _may_use(self, resource: str, name: str) -> bool:
        if not self.is_known:
            raise gateway_key_required()
        return self.key is None or self.key.may_use(resource, name)

    def _nothing(self, kind: str, id: str) -> NoReturn:
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
        own = self.key.aliases.get(model) if self.key else None
        if own or not self.is_known:
            return own
        return self.directory.alias(model)

    def permissions(self, config: ConfigNode | None) -> Permissions:
        """What they may reach in a request that goes by the stored *config*."""
        return Permissions(
            self.key,
            self.is_known,
            self.byok,
            config.virtual_keys if config else frozenset(),
            config.secrets if config else frozenset(),
            self.stored_alias,
        )


def caller(
    headers: RequestHeaders,
    directory: StoreCache,
    settings: Settings,
    environ: Mapping[str, Any],
) -> Caller:
    """Who sends these *headers*. Raises Unauthorized, or StoreUnavailable."""
    presented = _credentials(headers)
    trusted = trusted_hosts(directory, settings, environ)
    ours = filter(None, map(gateway_key_in, presented))
    theirs = (bare(each) for each in presented if not holds_gateway_key(each))
    gateway_key, own = next(ours, None), next(theirs, None)
    byok = settings.byok
    if gateway_key is not None:
        key = _valid(directory.key(gateway_key))
        return Caller(directory, key, own, is_open=False, byok=byok, trusted=trusted)
    if _is_open(own if byok else None, directory, settings):
        return Caller(directory, None, own, byok=byok, trusted=trusted)
    if own is None or not byok:
        raise gateway_key_required()
    return Caller(directory, None, own, is_open=False, trusted=trusted)


def trusted_hosts(
    directory: StoreCache, settings: Settings, environ: Mapping[str, Any] | None
) -> TrustedHosts:
    """Whom to trust in a request with *environ*; None is one of this very machine.

    Those whom the operator names. If they say nothing of it, this machine, as long as
    nobody else can call, and nothing is kept from anybody.
    """
    named = settings.trusted_custom_hosts
    if named is not None:
        return TrustedHosts(named, named)
    if settings.auth == "keys" or settings.trusted_proxies:
        return TrustedHosts()
    if not (environ is None or is_direct(environ, settings)):
        return TrustedHosts()
    try:
        is_development = settings.auth == "open" or not directory.protects
    except StoreUnavailable:
        is_development = False
    return TrustedHosts((), LOCALHOST) if is_development else TrustedHosts()


def _valid(key: GatewayKey | None) -> GatewayKey:
    if key is None or not key.is_valid(time.time()):
        raise WrongKey(
            "Incorrect API key provided: this gateway key is unknown, disabled or "
            "expired.",
            code="invalid_api_key",
        )
    return key


def _is_open(own: str | None, directory: StoreCache, settings: Settings) -> bool:
    """Whether nobody needs a gateway key. Not so, if that cannot be known."""
    if settings.auth:
        return settings.auth == "open"
    try:
        alone = is_loopback(settings.bind) and not settings.trusted_proxies
        return alone and not directory.protects
    except StoreUnavailable:
        if own is None:
            raise
        return False


def _credentials(headers: RequestHeaders) -> list[str]:
    """All that *headers* present as a key, in the order in which they count.

    Portkey's SDKs mean a key of Portkey by x-portkey-api-key, and put the provider's
    into Authorization, which therefore comes first when x-portkey-package-version shows
    that such an SDK is calling.
    """
    names = ["x-portkey-api-key", "Authorization", "x-api-key", "api-key"]
    if headers.get("x-portkey-package-version"):
        names[:2] = reversed(names[:2])
    values = [value for value in map(headers.get, names) if value]
    return [value for value in values if bare(value) not in ("", PLACEHOLDER_KEY)]


def bare(value: str) -> str:
    """A key without its scheme."""
    scheme, *rest = value.split(maxsplit=1) or [""]
    return rest[0].strip() if scheme.lower() == "bearer" and rest else value.strip()
