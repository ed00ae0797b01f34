"""Which route a request takes. The first of these that says one:

1. the config of the header, as JSON or by its id
2. the provider of the header, or its virtual key; or the one in a model's name,
   `@virtual-key/model`
3. the default config of the gateway key
4. an alias of the model, if it names a virtual key or a provider
5. GATEWAY_DEFAULT_CONFIG
6. the embedded engine, if it is on
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...errors import Forbidden, InvalidRoute
from ...settings import Settings
from ..config import nodes, parsing
from ..config.schema import Config
from .routing_headers import RoutingHeaders, is_id, is_strict

# Who sends one of these does not mean the embedded engine.
_OTHER_WAYS = ("x-portkey-custom-host",)


def with_default_route(
    wanted: RoutingHeaders, body: Mapping[str, Any], settings: Settings
) -> RoutingHeaders:
    """*wanted*, with a way for a request that names none. Raises InvalidRoute."""
    if not wanted.names_nothing:
        return wanted
    model = body.get("model")
    ways = (_in_model, _of_key, _of_alias, _of_operator, _engine)
    found = (way(wanted, model, settings) for way in ways)
    way = next((each for each in found if each), None)
    if way is None:
        message = "Either x-portkey-config or x-portkey-provider header is required"
        raise InvalidRoute(message, legacy=message)
    return way


def split(model: Any) -> tuple[str | None, Any]:
    """The virtual key in a model's name, and the model."""
    if isinstance(model, str) and model.startswith("@"):
        key, slash, name = model[1:].partition("/")
        if slash and is_id(key):
            return key, name
    return None, model


def _in_model(
    wanted: RoutingHeaders, model: Any, settings: Settings
) -> RoutingHeaders | None:
    key, _ = split(model)
    return replace(wanted, virtual_key=key) if key else None


def _of_key(
    wanted: RoutingHeaders, model: Any, settings: Settings
) -> RoutingHeaders | None:
    caller = wanted.caller
    if caller.key is None or caller.key.config is None:
        return None
    found = caller.directory.config(caller.key.config)
    if found is None:
        raise Forbidden("The config of this key is not there any more.")
    level = nodes.stored(found, is_strict(wanted.headers))
    return replace(wanted, level=level, stored_id=caller.key.config)


def _of_alias(
    wanted: RoutingHeaders, model: Any, settings: Settings
) -> RoutingHeaders | None:
    alias = wanted.caller.stored_alias(str(model))
    if alias is None or not (alias.virtual_key or alias.provider):
        return None
    if alias.virtual_key and alias.is_due(today()):
        # The alias leads there by itself (route.py), and grants no more than that.
        key = wanted.caller.virtual_key(alias.virtual_key, trusted=True)
        return replace(wanted, provider=key.provider)
    return replace(wanted, virtual_key=alias.virtual_key, provider=alias.provider)


def today() -> str:
    """The day, in UTC, as the shutdown date of an alias is written."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def _of_operator(
    wanted: RoutingHeaders, model: Any, settings: Settings
) -> RoutingHeaders | None:
    given = settings.default_config.strip()
    if not given or not wanted.caller.is_known:
        return None
    document = (
        wanted.caller.directory.config(given)
        if is_id(given)
        else _checked(given, wanted.caller.trusted.stored)
    )
    if document is None:
        raise Forbidden("GATEWAY_DEFAULT_CONFIG names a config that is not there.")
    level = nodes.stored(document, is_strict(wanted.headers))
    return replace(wanted, level=level, stored_id=given[:80])


@lru_cache(8)
def _checked(text: str, trusted: tuple[str, ...]) -> Config:
    return parsing.checked(parsing.read(text), trusted)


def _engine(
    wanted: RoutingHeaders, model: Any, settings: Settings
) -> RoutingHeaders | None:
    meant = not any(wanted.headers.get(name) for name in _OTHER_WAYS)
    fits = settings.engine and wanted.caller.is_known and meant
    return replace(wanted, provider="local") if fits else None
