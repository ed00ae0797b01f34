"""The default route of a request whose headers name none.

The first of these that names a route is taken:

1. the config of the header, as JSON or by its id
2. the provider of the header, or its virtual key; or the one in a model's name,
   `@virtual-key/model`, if there is that key: else it is all the model's name
3. the default config of the gateway key
4. an alias of the model, if it names a virtual key or a provider
5. GATEWAY_DEFAULT_CONFIG
6. the embedded engine, if it is on, and the model's name is not of that form
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from ...core.permissions import is_id, split_model
from ...errors import Forbidden, InvalidRoute
from ...settings import Settings
from ..config import parsing
from ..config.nodes import stored_node
from ..config.schema import Config
from .routing_headers import RoutingHeaders, is_strict


def with_default_route(
    routing: RoutingHeaders, body: Mapping[str, Any], settings: Settings
) -> RoutingHeaders:
    """*routing*, which names no route, with the default one.

    Raises InvalidRoute if there is no default either, Forbidden if it is missing.
    """
    caller, model = routing.caller, body.get("model")
    strict = is_strict(routing.headers)

    # The route builder takes the key out of the name.
    if caller.key_in_model(model):
        return routing

    if caller.key and caller.key.config is not None:
        id = caller.key.config
        config = caller.directory.config(id)
        if config is None:
            raise Forbidden("The config of this key is not there any more.")
        return replace(routing, config_node=stored_node(config, strict), stored_id=id)

    alias = caller.stored_alias(str(model))
    if alias and alias.virtual_key and alias.is_due(today()):
        # The virtual key itself is set when the route builder applies the alias, and
        # only for the alias's model: here it would be granted for any model.
        key = caller.virtual_key(alias.virtual_key, trusted=True)
        return replace(routing, provider=key.provider)
    if alias and alias.names_provider:
        return replace(routing, virtual_key=alias.virtual_key, provider=alias.provider)
    if alias and caller.key_in_model(alias.model, trusted=True):
        return routing

    default = settings.default_config.strip()
    if default and caller.is_known:
        config = (
            caller.directory.config(default)
            if is_id(default)
            else _parse_default_config(default, caller.trusted.stored)
        )
        if config is None:
            raise Forbidden("GATEWAY_DEFAULT_CONFIG names a config that is not there.")
        node = stored_node(config, strict)
        return replace(routing, config_node=node, stored_id=default[:80])

    # A mistake in the id must not be answered by the engine, which knows every name.
    parts = split_model(model)
    if parts:
        caller.virtual_key(parts[0])
    # A custom host without a provider is a mistake, and not meant for the engine.
    has_custom_host = bool(routing.headers.get("x-portkey-custom-host"))
    if settings.engine and caller.is_known and not has_custom_host:
        return replace(routing, provider="local")
    message = "Either x-portkey-config or x-portkey-provider header is required"
    raise InvalidRoute(message, legacy=message)


def today() -> str:
    """The day, in UTC, in the format of an alias's shutdown date."""
    return time.strftime("%Y-%m-%d", time.gmtime())


@lru_cache(8)
def _parse_default_config(text: str, trusted: tuple[str, ...]) -> Config:
    return parsing.validate_config(parsing.parse_json(text), trusted)
