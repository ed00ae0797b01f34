"""Rules beyond the schema: values of the right type that could not work.

The last of the checks of a config; parsing.py runs them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields

from ...core import conditions
from ...core.hosts import custom_host
from ...core.permissions import Alias, split_model
from ...core.routing import Strategy
from ...providers import PROVIDERS
from ...providers.declaration import Setting
from ..routing import patterns
from .schema import Config, kind_of

Complaint = tuple[tuple[str, ...], str]

# Portkey would run these for a completion, and this gateway has none of them. They are
# refused, since to skip a guardrail silently would be worse.
_UNSUPPORTED = (
    "input_guardrails",
    "output_guardrails",
    "before_request_hooks",
    "after_request_hooks",
    "input_mutators",
    "output_mutators",
)

# A level without targets has to have one of these, or to be empty.
_SUFFICIENT = ("provider", "virtual_key", "cache", "retry", "request_timeout")
_MODEL_SOURCES = ("override_params", "default_params")
_INSUFFICIENT = (
    "Invalid configuration. It must have either 'provider' and 'api_key', or "
    "'strategy' and 'targets', or 'cache', or 'retry', or 'request_timeout'"
)

# The types of each setting, whichever provider has it: a level may leave the choice of
# the provider to the headers, to a virtual key or to an alias.
KINDS: Mapping[str, tuple[type, ...]] = {"api_key": (str,)} | {
    name: (str, dict) if setting.is_object else (str,)
    for provider in PROVIDERS.values()
    for setting in provider.settings
    for name in (setting.name, setting.alias)
    if name
}

# Settings whose value leads to a URL that the gateway calls.
_URLS: Mapping[str, Setting] = {
    name: setting
    for provider in PROVIDERS.values()
    for setting in provider.settings
    if setting.is_base_url or setting.token_url
    for name in (setting.name, setting.alias)
    if name
}

# Settings that are never part of a header or of a URL, and may have several lines.
_MULTILINE = {"oracle_private_key", "vertex_service_account_json"}
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")

_ALIAS_KEYS = {field.name for field in fields(Alias)}


def complaints(
    config: Config, path: tuple[str, ...], trusted: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Path and message of each fault in *config*, a level at *path*, and below it."""
    # Paths in errors have commas, as Portkey's have.
    for keys, message in _level_complaints(config, path, trusted):
        yield ",".join((*path, *keys)), message
    for i, target in enumerate(config.get("targets") or ()):
        yield from complaints(target, (*path, "targets", str(i)), trusted)


def _level_complaints(
    config: Config, path: tuple[str, ...], trusted: tuple[str, ...]
) -> Iterator[Complaint]:
    for key in _UNSUPPORTED:
        if config.get(key):
            yield (key,), f"'{key}' is not supported by this version of the gateway"
    if path and "deadline_ms" in config:
        message = "A deadline is for the whole plan, and stands at the top"
        yield ("deadline_ms",), message
    yield from _settings_complaints(config, trusted)
    yield from _alias_complaints(config.get("model_aliases") or {})
    template = (config.get("bridge") or {}).get("template")
    if template is not None and "{prompt}" not in template:
        yield ("bridge", "template"), "A template must contain '{prompt}'"
    # Portkey's rule. Upstream may be a second gateway, which would obey it.
    if "x-portkey-forward-headers" in map(str.lower, config.get("forward_headers", ())):
        yield ("forward_headers",), (
            "forward_headers must not contain the 'x-portkey-forward-headers' header"
        )
    if "strategy" in config or "targets" in config:
        yield from _group_complaints(config)
    # An empty config is valid: everything is in the headers.
    elif config and not any(key in config for key in _SUFFICIENT):
        # A model may name a virtual key, as in `@key/model`.
        params = [config.get(name) or {} for name in _MODEL_SOURCES]
        if not any(split_model(values.get("model")) for values in params):
            yield (), _INSUFFICIENT


def _settings_complaints(
    config: Config, trusted: tuple[str, ...]
) -> Iterator[Complaint]:
    """Complaints about the custom host and the settings of providers."""
    # Without a lookup in DNS, which is done with each call (upstream/ssrf.py).
    if config.get("custom_host"):
        try:
            custom_host(config["custom_host"], trusted)
        except ValueError as e:
            yield (), f"Invalid custom host: {e}"
    for name, value in config.items():
        if name not in KINDS or value is None:
            continue
        if not isinstance(value, KINDS[name]):
            yield (name,), f"Expected string, received {kind_of(value)}"
        elif name not in _MULTILINE and not _HEADER_VALUE.fullmatch(str(value)):
            yield (name,), (
                "Expected text that can be sent in a header: on one line, in Latin-1"
            )
        elif name in _URLS and value:
            try:
                _URLS[name].check_url(value, trusted)
            except ValueError as e:
                yield (name,), f"Invalid {name}: {e}"


def _alias_complaints(aliases: Config) -> Iterator[Complaint]:
    for model, alias in aliases.items():
        if not isinstance(alias, dict) or not isinstance(alias.get("model"), str):
            yield ("model_aliases", model), "Expected an object with a model"
            continue
        for key, value in sorted(alias.items()):
            at = ("model_aliases", model, key)
            if key not in _ALIAS_KEYS:
                yield at, "Unknown key"
            elif not isinstance(value, str | None):
                yield at, f"Expected string, received {kind_of(value)}"


def _group_complaints(config: Config) -> Iterator[Complaint]:
    strategy, targets = config.get("strategy"), config.get("targets")
    if strategy is None:
        yield ("strategy",), "Required: targets need a strategy"
    elif not targets:
        yield ("targets",), "A strategy needs at least one target"
    elif strategy["mode"] == Strategy.LOADBALANCE:
        # A weight of 0 is valid and takes no requests; at least one must be above it.
        weights = [target.get("weight", 1) for target in targets]
        for i, weight in enumerate(weights):
            if weight < 0:
                message = f"A weight must not be negative, received {weight}"
                yield ("targets", str(i), "weight"), message
        if sum(weights) == 0:
            yield ("targets",), "The weights of the targets sum up to 0"
    elif strategy["mode"] == Strategy.CONDITIONAL:
        yield from _condition_complaints(strategy, targets)


def _condition_complaints(
    strategy: Config, targets: list[Config]
) -> Iterator[Complaint]:
    names = [target.get("name") for target in targets]
    if not strategy.get("conditions"):
        yield ("strategy", "conditions"), "No conditions passed in the query router"
    if strategy.get("default") is None:
        yield ("strategy", "default"), "Required: where to go if no condition holds"
    elif strategy["default"] not in names:
        yield ("strategy", "default"), _unknown_target(strategy["default"])
    for i, condition in enumerate(strategy.get("conditions") or ()):
        path, then = ("strategy", "conditions", str(i)), condition.get("then")
        # None is in *names* where a target has no name.
        if then not in names or not isinstance(then, str):
            yield (*path, "then"), _unknown_target(then)
        try:
            conditions.check(condition.get("query"), patterns.compile_pattern)
        except conditions.BadQuery as e:
            yield (*path, "query", *e.path), str(e)


def _unknown_target(name: object) -> str:
    return f"Invalid target name found in the query router: {str(name)[:60]}"
