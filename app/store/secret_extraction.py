"""Secrets in configs: found, and moved into virtual keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.permissions import VirtualKey
from ..providers import PROVIDERS

Document = dict[str, Any]


# What holds a credential in a config, whichever provider it is for.
SECRET_SETTINGS = ("api_key",) + tuple(
    sorted(
        {
            name
            for provider in PROVIDERS.values()
            for setting in provider.settings
            for name in (setting.name, setting.alias)
            if setting.secret and name
        }
    )
)


def secrets_in(config: Mapping[str, Any]) -> list[str]:
    """Where secrets stand in *config*: `targets.0.api_key`."""
    return [*_found(config, "")]


def _found(config: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (path + name for name in SECRET_SETTINGS if config.get(name))
    for i, target in enumerate(config.get("targets") or ()):
        yield from _found(target, f"{path}targets.{i}.")


def extracted(config: Document, id: str) -> tuple[Document, list[VirtualKey]]:
    """*config* without its secrets, and virtual keys that hold them.

    They are named after the config: `id-1`, `id-2`.
    """
    moved: list[VirtualKey] = []
    return _moved(config, id, moved), moved


def _moved(config: Document, id: str, moved: list[VirtualKey]) -> Document:
    below = {"targets": [_moved(t, id, moved) for t in config.get("targets") or ()]}
    level = config | below if "targets" in config else config
    if not any(map(level.get, SECRET_SETTINGS)):
        return level
    provider = PROVIDERS[level["provider"]]
    names = {"api_key": "api_key"}
    names |= {s.alias or s.name: s.name for s in provider.settings}
    names |= {s.name: s.name for s in provider.settings}
    held = {own: level[name] for name, own in names.items() if level.get(name)}
    key = VirtualKey(
        f"{id}-{len(moved) + 1}", provider.name, held, level.get("custom_host")
    )
    moved.append(key)
    gone = {*names, "provider", "custom_host"}
    kept = {name: value for name, value in level.items() if name not in gone}
    return kept | {"virtual_key": key.id}
