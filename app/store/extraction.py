"""Secrets in configs: found, and moved into virtual keys."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.access import VirtualKey
from ..providers import PROVIDERS

Document = dict[str, Any]


def secrets_in(config: Mapping[str, Any]) -> list[str]:
    """Where secrets stand in *config*: `targets.0.api_key`."""
    return [*_found(config, "")]


def _found(config: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (path + name for name in _secret_names(config) if config.get(name))
    for i, target in enumerate(config.get("targets") or ()):
        yield from _found(target, f"{path}targets.{i}.")


def _secret_names(config: Mapping[str, Any]) -> list[str]:
    """What would be a secret at this level, whichever provider it is for."""
    settings = (s for provider in PROVIDERS.values() for s in provider.settings)
    secret = {name for s in settings if s.secret for name in (s.name, s.alias) if name}
    return ["api_key", *sorted(secret)]


def extracted(config: Document, id: str) -> tuple[Document, list[VirtualKey]]:
    """*config* without its secrets, and virtual keys that hold them.

    They are named after the config: `id-1`, `id-2`.
    """
    moved: list[VirtualKey] = []
    return _moved(config, id, moved), moved


def _moved(config: Document, id: str, moved: list[VirtualKey]) -> Document:
    below = {"targets": [_moved(t, id, moved) for t in config.get("targets") or ()]}
    level = config | below if "targets" in config else config
    if not any(map(level.get, _secret_names(level))):
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
