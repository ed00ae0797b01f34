"""The request headers that say where a request goes: provider, config, custom host.

The checks are Portkey's, in its order, and every failure is a 400 with a body in both
error shapes, OpenAI's and Portkey's.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from flask import Request

from ... import safe_json
from ...core.credentials import PLACEHOLDER_KEY, strip_bearer
from ...core.forwarding import forwarded_headers
from ...core.hosts import custom_host
from ...core.permissions import is_id
from ...core.text_cache import cached_by_text
from ...errors import InvalidRoute
from ...providers.catalog.known_names import KNOWN_NAMES
from ..config import parsing
from ..config.nodes import ConfigNode, empty_node, stored_node
from ..config.sizes import SENT
from ..request.headers import RequestHeaders
from .authentication import Caller

# Characters of a config: gunicorn's own limit for one header.
_MAX_CONFIG_LENGTH = 65_536


@dataclass(frozen=True, slots=True)
class RoutingHeaders:
    """What the headers of a request say about its route.

    *provider* is None if only the config or the *virtual_key* names one, or if nothing
    does, as *names_route* says; *stored_id* is the id of the config if that is a stored
    one, the operator's own, as *is_stored* says. *forward* are the names of headers to
    send upstream, in lower case; None leaves that to the config. *request_timeout* is
    in seconds.
    """

    headers: RequestHeaders
    caller: Caller
    provider: str | None
    virtual_key: str | None
    custom_host: str | None
    request_timeout: float | None
    forward: tuple[str, ...] | None
    config_node: ConfigNode
    stored_id: str | None = None
    is_stored: bool = field(init=False)
    names_route: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_stored", self.stored_id is not None)
        names_route = self.provider or self.virtual_key or self.config_node.own
        object.__setattr__(self, "names_route", bool(names_route))

    @property
    def metadata(self) -> dict[str, Any]:
        """The caller's metadata; as in Portkey, invalid JSON counts as none."""
        try:
            value = safe_json.load(self.headers.get("x-portkey-metadata", "{}"))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def forwarded(
        self, names: Iterable[str], reserved: Collection[str] | None = None
    ) -> dict[str, str]:
        """The caller's headers with these *names* that may go upstream.

        core/forwarding.py has the rules.
        """
        lower = [name.strip().lower() for name in names]
        values = {name: self.headers.get(name) for name in lower}
        # The placeholder that SDKs send instead of a missing key must not travel.
        values = {
            name: value
            for name, value in values.items()
            if value and strip_bearer(value) != PLACEHOLDER_KEY
        }
        return forwarded_headers(lower, values, reserved)


def parse_routing_headers(headers: RequestHeaders, caller: Caller) -> RoutingHeaders:
    """The routing headers of *caller*, checked in Portkey's order.

    Raises InvalidRoute; for a stored config also Unauthorized and Forbidden.
    """
    provider, virtual_key = _provider(headers)
    host = headers.get("x-portkey-custom-host")
    if host:
        try:
            host = custom_host(host, caller.trusted.sent)
        except ValueError as e:
            raise InvalidRoute(
                f"Invalid x-portkey-custom-host: {e}.",
                legacy="Invalid custom host",
                code="invalid_custom_host",
            ) from e
    node, stored_id = _config(headers, provider or virtual_key, caller)
    # Milliseconds on the wire. As in Portkey, a value that is no number, or not above
    # 0, sets no limit.
    try:
        timeout = float(headers.get("x-portkey-request-timeout") or 0) / 1000
    except ValueError:
        timeout = 0.0
    forward = headers.get("x-portkey-forward-headers")
    return RoutingHeaders(
        headers,
        caller,
        provider,
        virtual_key,
        host or None,
        timeout if 0 < timeout < 1e9 else None,
        _forward_names(forward) if forward else None,
        node,
        stored_id,
    )


def check_content_type(request: Request, headers: RequestHeaders) -> None:
    """Raise InvalidRoute unless the content type is JSON, or absent."""
    content_type = headers.get("content-type")
    # Nearly all requests end here, before Werkzeug parses the value.
    if not content_type or content_type == "application/json":
        return
    if request.mimetype != "application/json":
        raise InvalidRoute(
            "Invalid content type: expected application/json, but got "
            f"{request.mimetype[:80]!r}.",
            legacy="Invalid content type passed",
            code="invalid_content_type",
        )


def is_strict(headers: RequestHeaders) -> bool:
    """Whether provider-specific values, such as finish reasons, are normalised."""
    return headers.get("x-portkey-strict-open-ai-compliance") != "false"


def _provider(headers: RequestHeaders) -> tuple[str | None, str | None]:
    """The provider and the virtual key, which may also be written as provider `@id`."""
    name = headers.get("x-portkey-provider") or ""
    virtual_key = headers.get("x-portkey-virtual-key") or None
    # As in Portkey's newer clients, which name a stored integration this way.
    if name.startswith("@"):
        return None, virtual_key or name[1:]
    if name and name not in KNOWN_NAMES:
        raise InvalidRoute(
            f"Invalid provider: x-portkey-provider must be one of "
            f"{', '.join(KNOWN_NAMES)}, or @ and the id of a virtual key, not "
            f"{name[:80]!r}.",
            legacy="Invalid provider passed",
        )
    return name or None, virtual_key


def _config(
    headers: RequestHeaders, provider: str | None, caller: Caller
) -> tuple[ConfigNode, str | None]:
    """The config in the headers or a stored one, and the id of the latter."""
    text, strict = headers.get("x-portkey-config"), is_strict(headers)
    if not text:
        return empty_node(strict), None
    # JSON begins with a brace, an id with a letter: neither can be taken for the other.
    id = text.strip()
    if is_id(id):
        return stored_node(caller.config(id), strict), id
    return _parse_config(text, bool(provider), caller.trusted.sent, strict), None


@cached_by_text
def _parse_config(
    text: str, has_provider: bool, trusted: tuple[str, ...], strict: bool
) -> ConfigNode:
    """The config in *text*, which must name a provider if the headers do not.

    The cache holds what the caller's config holds, credentials as well.
    """
    if len(text) > _MAX_CONFIG_LENGTH:
        raise InvalidRoute(
            f"Invalid x-portkey-config: it has {len(text)} characters, and at most "
            f"{_MAX_CONFIG_LENGTH} are allowed.",
            legacy="Invalid config passed",
            code="invalid_config",
        )
    document = parsing.parse_json(text)
    if has_provider or parsing.names_provider(document):
        config = parsing.validate_config(document, trusted, SENT)
        return ConfigNode.of(config, strict=strict)
    message = (
        "Either x-portkey-provider needs to be passed. Or the x-portkey-config header "
        "should have a valid config with provider details in it."
    )
    raise InvalidRoute(message, legacy=message)


@cached_by_text
def _forward_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(","))
    if "x-portkey-forward-headers" in names:
        message = (
            "forward_headers must not contain the 'x-portkey-forward-headers' header"
        )
        raise InvalidRoute(message, legacy=message)
    return names
