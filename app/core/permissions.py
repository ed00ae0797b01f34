"""Who may what: gateway keys, and the credentials that they may use.

A name that a key may use is listed, or fits a pattern with `*`; a list that is absent
allows all, an empty one nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .limits import Limits

# What a gateway key may be limited to, by the names of its lists.
RESOURCES = ("configs", "virtual_keys", "providers", "models")


@dataclass(frozen=True, slots=True)
class Alias:
    """Another model that answers in place of one.

    *virtual_key* or *provider* say where it is, if not where the other one was.
    *shutdown_date* is the day, `2026-09-28`, from which it does so; None is always.
    """

    model: str
    virtual_key: str | None = None
    provider: str | None = None
    shutdown_date: str | None = None

    def is_due(self, today: str) -> bool:
        """Whether it answers *today*; a date written as the shutdown date is."""
        return self.shutdown_date is None or self.shutdown_date <= today


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """A provider's credentials under a name that callers may know.

    *settings* are its key and what else the provider has to be told, by the names that
    a config would use; they are never shown. *model* answers when none is asked for,
    *params* fill up what a request lacks. *problem* says why what is stored of it
    cannot be read; then it is disabled.
    """

    id: str
    provider: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    custom_host: str | None = None
    model: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    disabled: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """What a caller holds, without the key itself; *hint* is how that ends.

    *config* is its route when a request names none, *allowed* the lists of what it may
    use, *expires* the Unix second from which it is none. *problem* says why what is
    stored of it cannot be read; then it is disabled.
    """

    name: str
    hint: str = ""
    config: str | None = None
    allowed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    limits: Limits = Limits()
    expires: int | None = None
    disabled: bool = False
    problem: str = ""

    def may_use(self, resource: str, name: str) -> bool:
        """Whether it may use the *resource* of this *name*."""
        listed = self.allowed.get(resource)
        return listed is None or any(fnmatchcase(name, each) for each in listed)

    def is_valid(self, now: float) -> bool:
        return not self.disabled and (self.expires is None or now < self.expires)


def _no_alias(model: str) -> Alias | None:
    return None


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one caller may reach in one request.

    *key* is the gateway key, None without one. *is_known* says whether they may use
    what belongs to the gateway, *byok* whether they may bring credentials of providers.
    *config_virtual_keys* are the ids of all that the stored config of this request
    names, *config_secrets* the credentials in it (only GATEWAY_DEFAULT_CONFIG can have
    any), *stored_alias* looks up an alias of the key's or of everybody's.
    """

    key: GatewayKey | None = None
    is_known: bool = True
    byok: bool = True
    config_virtual_keys: frozenset[str] = frozenset()
    config_secrets: frozenset[str] = field(default=frozenset(), repr=False)
    stored_alias: Callable[[str], Alias | None] = _no_alias
