"""Permissions: gateway keys, virtual keys, aliases, and what a caller may use.

A key may use a name that is in its list, or matches a pattern with `*` there; a list
that is absent allows all, an empty one nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from .limits import Limits

# What a gateway key can be restricted in: the names of its lists.
RESOURCES = ("configs", "virtual_keys", "providers", "models")

# Ids of configs and virtual keys. Portkey's own begin with `pc-`.
_ID = re.compile(r"(?!null$|true$|false$)[A-Za-z][A-Za-z0-9_.-]{0,79}")


def is_id(text: str) -> bool:
    """Whether *text* can be the id of a config, or of a virtual key."""
    return bool(_ID.fullmatch(text))


def split_model(model: Any) -> tuple[str, str] | None:
    """The id and the model in `@id/model`; None for a name of any other form.

    Models of some providers have such names themselves (`@cf/meta/llama-3-8b` of
    Workers AI, `@preset/name` of OpenRouter), so the id is that of a virtual key only
    if there is one, and nothing else names the provider: `Caller.key_in_model`.
    """
    if not isinstance(model, str) or not model.startswith("@"):
        return None
    id, slash, name = model[1:].partition("/")
    return (id, name) if slash and is_id(id) else None


@dataclass(frozen=True, slots=True)
class Alias:
    """The model that replaces another.

    *virtual_key* or *provider* are set if it is somewhere else than the original.
    *shutdown_date* is the day, as `2026-09-28`, from which it applies; None is always.
    """

    model: str
    virtual_key: str | None = None
    provider: str | None = None
    shutdown_date: str | None = None

    def is_due(self, today: str) -> bool:
        """Whether it applies *today*, a date in the format of *shutdown_date*."""
        return self.shutdown_date is None or self.shutdown_date <= today

    @property
    def names_provider(self) -> bool:
        """Whether it says where its model is, in a field of its own."""
        return bool(self.virtual_key or self.provider)

    def leads_to(self, virtual_key: str, model: str) -> bool:
        """Whether it leads to *model* of *virtual_key*."""
        own = (self.virtual_key, self.model)
        return (own if self.names_provider else split_model(self.model)) == (
            virtual_key,
            model,
        )


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """A provider's credentials under a name that callers may know.

    *settings* are its key and further settings, by the names that a config would use;
    they are never shown. *model* and *params* are defaults for requests without them.
    *problem* says why the stored record cannot be read; then it is disabled.
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
    """A caller's key, without the secret itself; *hint* is how that ends.

    *config* is the route for requests that name none, *allowed* has the lists of what
    it may use, *expires* is the Unix second from which it is invalid. *problem* says
    why the stored record cannot be read; then it is disabled.
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
        patterns = self.allowed.get(resource)
        return patterns is None or any(fnmatchcase(name, p) for p in patterns)

    def is_valid(self, now: float) -> bool:
        return not self.disabled and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class Permissions:
    """What one caller may use in one request.

    *key* is the gateway key, None without one. *is_known* says whether the caller may
    use what belongs to the gateway, *byok* whether they may bring credentials of
    providers. *config_virtual_keys* are the ids that the stored config of this request
    names, *config_secrets* the credentials in it (only GATEWAY_DEFAULT_CONFIG can have
    any). *stored_alias* looks up an alias of the key, or one for all keys.
    """

    key: GatewayKey | None = None
    is_known: bool = True
    byok: bool = True
    config_virtual_keys: frozenset[str] = frozenset()
    config_secrets: frozenset[str] = field(default=frozenset(), repr=False)
    stored_alias: Callable[[str], Alias | None] = lambda model: None
