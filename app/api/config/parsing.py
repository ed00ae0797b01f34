"""Parses the JSON of x-portkey-config, and reports every fault with its path.

A config goes through four checks, each of which relies on the one before: depth, size
(sizes.py), schema (schema.py), rules (rules.py). Anybody may send one, so each check
has to be cheap for a config that passed those before it.

The messages are Portkey's where it has some. Unlike there, a config that could not work
is refused at once: unknown keys of strategy, retry and cache, empty targets, weights
whose sum is 0, conditions without a target, and features that this gateway lacks.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ... import safe_json
from ...core.permissions import split_model
from ...errors import InvalidRoute
from . import rules, schema, sizes
from .schema import Config, kind_of
from .sizes import STORED, Bounds

# Levels of targets below each other. Functions on configs are recursive.
DEEPEST = 16
_MAX_KEY_LENGTH = 64

# Characters of a path, and complaints, that are shown: a config can have many of both.
_MAX_PATH_LENGTH, _MAX_COMPLAINTS = 200, 32

# Portkey accepts keys in camelCase. Under these, keys are data, such as the names of
# parameters and models, and stay as they are.
_VERBATIM = {"override_params", "default_params", "conditions", "drop_params"}
_VERBATIM |= {"vertex_service_account_json", "model_aliases"}


def parse_json(text: str) -> Any:
    """The JSON in *text*, of any type but null. Raises InvalidRoute."""
    try:
        document = safe_json.load(text)
        if document is None:
            raise ValueError("null is no config")
    except ValueError as e:
        raise InvalidRoute(
            f"Invalid x-portkey-config: it is not JSON ({e}).",
            legacy="Invalid config passed. You need to pass a valid json",
            code="invalid_config",
        ) from e
    return document


def names_provider(document: Any) -> bool:
    """Whether a config itself names a provider, or targets that do.

    The model that it sets may name a virtual key, as in `@key/model`.
    """
    if not isinstance(document, dict):
        return False
    if any(key in document for key in ("provider", "virtual_key", "targets")):
        return True
    names = ("override_params", "overrideParams", "default_params", "defaultParams")
    params = map(document.get, names)
    return any(isinstance(p, dict) and split_model(p.get("model")) for p in params)


def validate_config(
    document: Any, trusted: tuple[str, ...], bounds: Bounds = STORED
) -> Config:
    """The config in *document*, its keys in snake_case. Raises InvalidRoute.

    *trusted* are custom hosts that may be internal, *bounds* limit its size.
    """
    complaints = [*_complaints(document, trusted, bounds)]
    # The first one is the message that a caller sees in most clients; the list follows.
    if complaints:
        raise invalid(complaints)
    config: Config = _snake_keys(document)
    # Portkey's first format of configs, before `targets`.
    if config.get("options"):
        raise InvalidRoute(
            "This form of config, with 'options', is no longer supported.",
            legacy="This version of config is not supported in this route. Please "
            "migrate to the latest version",
            code="invalid_config",
        )
    return config


def invalid(complaints: Sequence[tuple[str, object]]) -> InvalidRoute:
    """The error with all *complaints* in Portkey's format, the first in the message."""
    path, message = complaints[0]
    where = f" at {path.replace(',', '.')[:_MAX_PATH_LENGTH]}" if path else ""
    return InvalidRoute(
        f"Invalid x-portkey-config{where}: {message}",
        legacy="Invalid config passed",
        code="invalid_config",
        errors=[
            f"path: {path[:_MAX_PATH_LENGTH]}, message: {message}"
            for path, message in complaints[:_MAX_COMPLAINTS]
        ],
    )


def _complaints(
    document: Any, trusted: tuple[str, ...], bounds: Bounds
) -> Iterator[tuple[str, Any]]:
    """Path and message of each fault that the first failing check finds."""
    if not isinstance(document, dict):
        yield "", f"Expected object, received {kind_of(document)}"
        return
    # Level by level and not recursively: a document may be nested a thousand times.
    level = [document]
    for _ in range(DEEPEST + 1):
        level = [target for config in level for target in sizes.targets_of(config)]
    if level:
        yield "", f"Targets may be nested {DEEPEST} levels deep"
        return
    config = _snake_keys(document)
    # The rules run only where the first two found nothing, and may assume the types.
    faults = [*sizes.complaints(config, bounds)] or schema.complaints(config)
    yield from faults or rules.complaints(config, (), trusted)


def _snake_keys(value: Any) -> Any:
    """*value* with the keys of its objects in snake_case."""
    if isinstance(value, list):
        return [_snake_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    items = ((_snake_case(key), item) for key, item in value.items())
    return {k: item if k in _VERBATIM else _snake_keys(item) for k, item in items}


def _snake_case(key: str) -> str:
    """*key* in snake_case; unchanged if it is longer than any key of a config."""
    if len(key) > _MAX_KEY_LENGTH or key == key.lower():
        return key
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower()
