"""The JSON of x-portkey-config: its schema, with every complaint named by its path.

Portkey's words where it has some. Unlike there, a config that could not work is refused
at once: unknown keys of strategy, retry and cache, empty targets, weights without sum,
conditions without way out, and what this gateway does not do.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ... import safe_json
from ...errors import InvalidRoute
from . import rules, schema, sizes
from .schema import Config, kind_of
from .sizes import STORED, Bounds

DEEPEST = 16
_LONGEST_KEY = 64

# Characters of a path that are shown, and complaints: both may be as many as a config
# has.
_SHOWN, _LISTED = 200, 32

# Below these keys the names are the caller's own, and stay as they are.
_VERBATIM = {"override_params", "default_params", "conditions", "drop_params"}
_VERBATIM |= {"vertex_service_account_json", "model_aliases"}


def read(text: str) -> Any:
    """The JSON in *text*, whatever it holds. Raises InvalidRoute if there is none."""
    try:
        document = safe_json.load(text)
    except ValueError as e:
        raise _not_json(str(e)) from e
    if document is None:
        raise _not_json("null is no config")
    return document


def _not_json(reason: str) -> InvalidRoute:
    return InvalidRoute(
        f"Invalid x-portkey-config: it is not JSON ({reason}).",
        legacy="Invalid config passed. You need to pass a valid json",
        code="invalid_config",
    )


def names_provider(document: Any) -> bool:
    """Whether a config says itself where to go."""
    keys = ("provider", "virtual_key", "targets")
    return isinstance(document, dict) and any(key in document for key in keys)


def checked(document: Any, trusted: tuple[str, ...], bounds: Bounds = STORED) -> Config:
    """The config in *document*, its keys in snake_case. Raises InvalidRoute.

    *trusted* are custom hosts that may be internal. It has to be within *bounds*.
    """
    complaints = [*_complaints(document, trusted, bounds)]
    if complaints:
        raise invalid(complaints)
    config: Config = _snake(document)
    if config.get("options"):
        raise InvalidRoute(
            "This form of config, with 'options', is no longer supported.",
            legacy="This version of config is not supported in this route. Please "
            "migrate to the latest version",
            code="invalid_config",
        )
    return config


def invalid(complaints: Sequence[tuple[str, object]]) -> InvalidRoute:
    """The complaints, as Portkey writes them, and the first in our message."""
    path, message = complaints[0]
    where = f" at {path.replace(',', '.')[:_SHOWN]}" if path else ""
    return InvalidRoute(
        f"Invalid x-portkey-config{where}: {message}",
        legacy="Invalid config passed",
        code="invalid_config",
        errors=[
            f"path: {path[:_SHOWN]}, message: {message}"
            for path, message in complaints[:_LISTED]
        ],
    )


def _complaints(
    document: Any, trusted: tuple[str, ...], bounds: Bounds
) -> Iterator[tuple[str, Any]]:
    """Path and message of all that is wrong: first the size, then the shape, then the
    sense.
    """
    if not isinstance(document, dict):
        yield "", f"Expected object, received {kind_of(document)}"
    elif _deeper_than(document, DEEPEST):
        yield "", f"Targets may be nested {DEEPEST} levels deep"
    else:
        config = _snake(document)
        wrong = [*sizes.complaints(config, bounds)]
        wrong = wrong or schema.complaints(config)
        yield from wrong or rules.complaints(config, (), trusted)


# camelCase


def _snake(value: Any) -> Any:
    """*value* with the keys of its objects in snake_case."""
    if isinstance(value, list):
        return [_snake(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = ((_snake_name(key), item) for key, item in value.items())
    return {k: item if k in _VERBATIM else _snake(item) for k, item in named}


def _snake_name(key: str) -> str:
    """*key* in snake_case. One that is longer than any that is known stays as it is."""
    if len(key) > _LONGEST_KEY or key == key.lower():
        return key
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower()


def _deeper_than(value: Any, levels: int) -> bool:
    """Whether `targets` are nested deeper. Other keys do not count."""
    layer = [value]
    for _ in range(levels + 1):
        children = [_targets(item) for item in layer]
        layer = [child for several in children for child in several]
    return bool(layer)


def _targets(config: Any) -> list[Any]:
    found = config.get("targets") if isinstance(config, dict) else None
    return found if isinstance(found, list) else []
