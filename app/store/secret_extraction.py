"""Finds secrets in configs, and moves them into virtual keys."""

from collections.abc import Mapping
from typing import Any

from ..core.permissions import VirtualKey
from ..providers import PROVIDERS

Document = dict[str, Any]


# The fields of a config that hold a credential, of whichever provider.
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


def secret_paths(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The paths of secrets in *config*: `targets.0.api_key`."""
    paths = [prefix + name for name in SECRET_SETTINGS if config.get(name)]
    for i, target in enumerate(config.get("targets") or ()):
        paths += secret_paths(target, f"{prefix}targets.{i}.")
    return paths


def extract_secrets(config: Document, id: str) -> tuple[Document, list[VirtualKey]]:
    """*config* without its secrets, and virtual keys that hold them.

    They are named after the config: `id-1`, `id-2`.
    """
    virtual_keys: list[VirtualKey] = []
    return _extract(config, id, virtual_keys), virtual_keys


def _extract(config: Document, id: str, virtual_keys: list[VirtualKey]) -> Document:
    # Depth first, so that the targets of a group are numbered before it.
    if "targets" in config:
        targets = [_extract(t, id, virtual_keys) for t in config["targets"] or ()]
        config = config | {"targets": targets}
    if not any(map(config.get, SECRET_SETTINGS)):
        return config
    # The config was validated before: where there is a secret, there is a provider.
    provider = PROVIDERS[config["provider"]]
    # All names of the provider's settings in configs, and those in virtual keys.
    names = {"api_key": "api_key"}
    names |= {s.alias or s.name: s.name for s in provider.settings}
    names |= {s.name: s.name for s in provider.settings}
    settings = {own: config[name] for name, own in names.items() if config.get(name)}
    key = VirtualKey(
        f"{id}-{len(virtual_keys) + 1}",
        provider.name,
        settings,
        config.get("custom_host"),
    )
    virtual_keys.append(key)
    # A virtual key brings its provider and host: they may not be set beside it.
    moved = {*names, "provider", "custom_host"}
    rest = {name: value for name, value in config.items() if name not in moved}
    return rest | {"virtual_key": key.id}
