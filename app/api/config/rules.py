"""The sense of a config: what has the right shape, and could not work all the same."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ...core import conditions
from ...core.hosts import custom_host
from ...core.permissions import Alias
from ...core.routing import Strategy
from ...providers import PROVIDERS
from ...providers.declaration import Setting
from ..routing import patterns
from .schema import Config, kind_of

# What Portkey would do for a completion, and this gateway does not: to pass over a
# guardrail in silence would be worse than to refuse it.
_UNSUPPORTED = (
    "input_guardrails",
    "output_guardrails",
    "before_request_hooks",
    "after_request_hooks",
    "input_mutators",
    "output_mutators",
)

_NOTHING_TO_DO = (
    "Invalid configuration. It must have either 'provider' and 'api_key', or "
    "'strategy' and 'targets', or 'cache', or 'retry', or 'request_timeout'"
)


def complaints(
    config: Config, path: tuple[str, ...], trusted: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """What has the right shape and cannot work."""

    def at(*keys: str) -> str:
        return ",".join((*path, *keys))

    yield from ((at(key), _refused(key)) for key in _UNSUPPORTED if config.get(key))
    yield from ((at(*keys), message) for keys, message in _own(config, path, trusted))
    for i, target in enumerate(config.get("targets") or ()):
        yield from complaints(target, (*path, "targets", str(i)), trusted)


def _refused(key: str) -> str:
    return f"'{key}' is not supported by this version of the gateway"


_SUFFICIENT = ("provider", "virtual_key", "cache", "retry", "request_timeout")

Complaint = tuple[tuple[str, ...], str]


def _own(
    config: Config, path: tuple[str, ...], trusted: tuple[str, ...]
) -> Iterator[Complaint]:
    """Complaints about one level."""
    if path and "deadline_ms" in config:
        yield (
            "deadline_ms",
        ), "A deadline is for the whole plan, and stands at the top"
    yield from _of_provider(config, trusted)
    yield from _of_aliases(config.get("model_aliases") or {})
    template = (config.get("bridge") or {}).get("template")
    if template is not None and "{prompt}" not in template:
        yield ("bridge", "template"), "A template must contain '{prompt}'"
    if "x-portkey-forward-headers" in map(str.lower, config.get("forward_headers", ())):
        yield ("forward_headers",), (
            "forward_headers must not contain the 'x-portkey-forward-headers' header"
        )
    if "strategy" in config or "targets" in config:
        yield from _of_group(config)
    elif not any(k in config for k in _SUFFICIENT):
        if config:
            yield (), _NOTHING_TO_DO


def _of_provider(config: Config, trusted: tuple[str, ...]) -> Iterator[Complaint]:
    """Complaints about where to go, and what the provider alone has to know."""
    if config.get("custom_host"):
        try:
            custom_host(config["custom_host"], trusted)
        except ValueError as e:
            yield (), f"Invalid custom host: {e}"
    for name, value in config.items():
        if name in KINDS and value is not None:
            messages = [*_of_setting(name, value)] or [*_of_url(name, value, trusted)]
            yield from (((name,), message) for message in messages)


# What each setting may be, of whichever provider: a level may leave it to the headers,
# to a virtual key or to an alias which one that is.
KINDS: Mapping[str, tuple[type, ...]] = {"api_key": (str,)} | {
    name: (str, dict) if setting.is_object else (str,)
    for provider in PROVIDERS.values()
    for setting in provider.settings
    for name in (setting.name, setting.alias)
    if name
}

# Those that are never part of a header, or of an address, and may have lines.
_OF_LINES = {"oracle_private_key", "vertex_service_account_json"}
_ONE_LINE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


def _of_setting(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, KINDS[name]):
        yield f"Expected string, received {kind_of(value)}"
    elif name not in _OF_LINES and not _ONE_LINE.fullmatch(str(value)):
        yield "Expected text that can be sent in a header: on one line, in Latin-1"


# Those because of which a URL is called.
_URLS: Mapping[str, Setting] = {
    name: setting
    for provider in PROVIDERS.values()
    for setting in provider.settings
    if setting.url or setting.token_url
    for name in (setting.name, setting.alias)
    if name
}


def _of_url(name: str, value: Any, trusted: tuple[str, ...]) -> Iterator[str]:
    try:
        if name in _URLS and value:
            _URLS[name].check_url(value, trusted)
    except ValueError as e:
        yield f"Invalid {name}: {e}"


_ALIAS = {field.name for field in fields(Alias)}


def _of_aliases(aliases: Config) -> Iterator[Complaint]:
    for model, alias in aliases.items():
        if not isinstance(alias, dict) or not isinstance(alias.get("model"), str):
            yield ("model_aliases", model), "Expected an object with a model"
        else:
            yield from (
                (("model_aliases", model, key), message)
                for key, message in _of_alias(alias)
            )


def _of_alias(alias: Config) -> Iterator[tuple[str, str]]:
    for key, value in sorted(alias.items()):
        if key not in _ALIAS:
            yield key, "Unknown key"
        elif not isinstance(value, str | None):
            yield key, f"Expected string, received {kind_of(value)}"


def _of_group(config: Config) -> Iterator[Complaint]:
    strategy, targets = config.get("strategy"), config.get("targets")
    if strategy is None:
        yield ("strategy",), "Required: targets need a strategy"
    elif not targets:
        yield ("targets",), "A strategy needs at least one target"
    elif strategy["mode"] == Strategy.LOADBALANCE:
        yield from _of_weights(targets)
    elif strategy["mode"] == Strategy.CONDITIONAL:
        yield from _of_conditions(strategy, targets)


def _of_weights(targets: list[Config]) -> Iterator[Complaint]:
    weights = [target.get("weight", 1) for target in targets]
    for i, weight in enumerate(weights):
        if weight < 0:
            message = f"A weight must not be negative, received {weight}"
            yield ("targets", str(i), "weight"), message
    if sum(weights) == 0:
        yield ("targets",), "The weights of the targets sum up to 0"


def _of_conditions(strategy: Config, targets: list[Config]) -> Iterator[Complaint]:
    names = [target.get("name") for target in targets]
    if not strategy.get("conditions"):
        yield ("strategy", "conditions"), "No conditions passed in the query router"
    if strategy.get("default") is None:
        yield ("strategy", "default"), "Required: where to go if no condition holds"
    elif strategy["default"] not in names:
        yield ("strategy", "default"), _unknown_target(strategy["default"])
    for i, condition in enumerate(strategy.get("conditions") or ()):
        place = ("strategy", "conditions", str(i))
        yield from ((place + keys, m) for keys, m in _of_condition(condition, names))


def _of_condition(condition: Config, names: list[Any]) -> Iterator[Complaint]:
    then = condition.get("then")
    if then not in names or not isinstance(then, str):
        yield ("then",), _unknown_target(then)
    try:
        conditions.check(condition.get("query"), patterns.compiled)
    except conditions.BadQuery as e:
        yield ("query", *e.path), str(e)


def _unknown_target(name: object) -> str:
    return f"Invalid target name found in the query router: {str(name)[:60]}"
