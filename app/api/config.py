"""The JSON of x-portkey-config: its schema, with every complaint named by its path.

Portkey's words where it has some. Unlike there, a config that could not work is refused
at once: unknown keys of strategy, retry and cache, empty targets, weights without sum,
conditions without way out, and what this gateway does not do.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from marshmallow import INCLUDE, Schema, ValidationError, fields, pre_load

from ..core import conditions
from ..core.hosts import custom_host
from ..core.routing import Mode
from ..errors import InvalidRoute
from ..providers.names import KNOWN_NAMES
from . import patterns

Config = dict[str, Any]

DEEPEST = 16

# Below these keys the names are the caller's own, and stay as they are.
_VERBATIM = {"override_params", "default_params", "conditions", "drop_params"}
_VERBATIM |= {"vertex_service_account_json"}

# What Portkey would do for a completion, and this gateway does not: to pass over a
# guardrail in silence would be worse than to refuse it.
_UNSUPPORTED = (
    "input_guardrails",
    "output_guardrails",
    "before_request_hooks",
    "after_request_hooks",
    "input_mutators",
    "output_mutators",
    "virtual_key",
)

_NOTHING_TO_DO = (
    "Invalid configuration. It must have either 'provider' and 'api_key', or "
    "'strategy' and 'targets', or 'cache', or 'retry', or 'request_timeout'"
)


def read(text: str) -> Any:
    """The JSON in *text*, whatever it holds. Raises InvalidRoute if there is none."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as e:
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
    keys = ("provider", "targets")
    return isinstance(document, dict) and any(key in document for key in keys)


def checked(document: Any, trusted: tuple[str, ...]) -> Config:
    """The config in *document*, its keys in snake_case. Raises InvalidRoute.

    *trusted* are custom hosts that may be internal.
    """
    complaints = [*_complaints(document, trusted)]
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


def invalid(complaints: list[tuple[str, str]]) -> InvalidRoute:
    """All complaints, as Portkey writes them, and the first in our message."""
    path, message = complaints[0]
    where = f" at {path.replace(',', '.')}" if path else ""
    return InvalidRoute(
        f"Invalid x-portkey-config{where}: {message}",
        legacy="Invalid config passed",
        code="invalid_config",
        errors=[f"path: {path}, message: {message}" for path, message in complaints],
    )


def _complaints(document: Any, trusted: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Path and message of all that is wrong: first the shape, then the sense."""
    if not isinstance(document, dict):
        yield "", f"Expected object, received {_kind(document)}"
    elif _deeper_than(document, DEEPEST):
        yield "", f"Targets may be nested {DEEPEST} levels deep"
    else:
        config = _snake(document)
        wrong = _SCHEMA.validate(config)
        yield from _flat(wrong) if wrong else _senseless(config, (), trusted)


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


# The shape


def _kind(value: object) -> str:
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    kinds |= {list: "array", dict: "object", type(None): "null"}
    return kinds[type(value)]


class _Typed(fields.Field[Any]):
    """A value of one JSON type, in the words of Portkey's validator."""

    def __init__(self, kind: str, **kwargs: Any) -> None:
        null = f"Expected {kind}, received null"
        messages: dict[str, Any] = {"required": "Required", "null": null}
        super().__init__(error_messages=messages, **kwargs)
        self.kind = kind

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if _kind(value) != self.kind:
            raise ValidationError(f"Expected {self.kind}, received {_kind(value)}")
        return value


class _Within(_Typed):
    """A number in a range."""

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        super().__init__("number", **kwargs)
        self.low, self.high = low, high

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        super()._deserialize(value)
        if not self.low <= value <= self.high:
            raise ValidationError(
                f"Expected a number from {self.low:g} to {self.high:g}, received "
                f"{value}"
            )
        return value


class _OneOf(_Typed):
    """One word of a list."""

    def __init__(self, words: tuple[str, ...], complaint: str, **kwargs: Any) -> None:
        super().__init__("string", **kwargs)
        self.words, self.complaint = words, complaint

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, str) or value not in self.words:
            words = ", ".join(self.words)
            raise ValidationError(f"{self.complaint}. Must be one of: {words}")
        return value


class _List(_Typed):
    """A list of values of one JSON type."""

    def __init__(self, item: str, **kwargs: Any) -> None:
        super().__init__("array", **kwargs)
        self.item = item

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        super()._deserialize(value)
        wrong = {
            i: [f"Expected {self.item}, received {_kind(item)}"]
            for i, item in enumerate(value)
            if _kind(item) != self.item
        }
        if wrong:
            raise ValidationError(wrong)
        return value


class _Object(fields.Nested):
    """An object with a schema of its own."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError(f"Expected object, received {_kind(value)}")
        return super()._deserialize(value, *args, **kwargs)


class _Strict(Schema):
    """A schema in which an unknown key is a slip, and named with what it meant."""

    class Meta:
        unknown = INCLUDE

    @pre_load
    def refuse_unknown(self, data: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        wrong = {
            key: [_slip(key, self.fields)] for key in data if key not in self.fields
        }
        if wrong:
            raise ValidationError(wrong)
        return data


def _slip(key: str, known: Mapping[str, Any]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
    return f"Unknown key '{key[:60]}'; did you mean '{nearest[0]}'?"


class _Breaker(_Strict):
    failure_threshold = _Within(1, 1e6)
    failure_threshold_percentage = _Within(1, 100)
    minimum_requests = _Within(1, 1e6)
    cooldown_interval = _Within(30_000, 1e9)
    failure_status_codes = _List("number")


class _Strategy(_Strict):
    mode = _OneOf(tuple(Mode), "Invalid 'mode' value", required=True)
    on_status_codes = _List("number")
    conditions = _List("object")
    default = _Typed("string")
    sticky = _Typed("string")
    cb_config = _Object(_Breaker)


class _Retry(_Strict):
    attempts = _Within(0, 1e6, required=True)
    on_status_codes = _List("number")
    use_retry_after_header = _Typed("boolean")
    use_retry_after_headers = _Typed("boolean")


class _Cache(_Strict):
    mode = _OneOf(("simple", "semantic"), "Invalid 'cache.mode' value", required=True)
    max_age = _Within(0, 1e12)


class ConfigSchema(Schema):
    """A config, or a target of one: the same keys at every level. Others are kept."""

    class Meta:
        unknown = INCLUDE

    strategy = _Object(_Strategy)
    targets = fields.List(
        _Object(lambda: ConfigSchema()),
        error_messages=dict[str, Any](invalid="Expected array"),
    )
    name = _Typed("string")
    provider = _OneOf(KNOWN_NAMES, "Invalid 'provider' value")
    api_key = _Typed("string")
    custom_host = _Typed("string")
    weight = _Typed("number")
    retry = _Object(_Retry)
    cache = _Object(_Cache)
    request_timeout = _Within(1, 1e9)
    deadline_ms = _Within(1, 1e9)
    forward_headers = _List("string")
    override_params = _Typed("object")
    default_params = _Typed("object")
    drop_params = _List("string")
    strict_open_ai_compliance = _Typed("boolean")
    openai_organization = _Typed("string")
    openai_project = _Typed("string")


_SCHEMA = ConfigSchema()


def _flat(errors: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """marshmallow's nested errors as pairs of path and message."""
    if isinstance(errors, dict):
        for key, inner in errors.items():
            deeper = path if key == "_schema" else (*path, str(key))
            yield from _flat(inner, deeper)
    else:
        yield from ((",".join(path), str(message)) for message in errors)


# The sense


def _senseless(
    config: Config, path: tuple[str, ...], trusted: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """What has the right shape and cannot work."""

    def at(*keys: str) -> str:
        return ",".join((*path, *keys))

    yield from ((at(key), _refused(key)) for key in _UNSUPPORTED if config.get(key))
    yield from ((at(*keys), message) for keys, message in _own(config, path, trusted))
    for i, target in enumerate(config.get("targets") or ()):
        yield from _senseless(target, (*path, "targets", str(i)), trusted)


def _refused(key: str) -> str:
    return f"'{key}' is not supported by this version of the gateway"


Complaint = tuple[tuple[str, ...], str]


def _own(
    config: Config, path: tuple[str, ...], trusted: tuple[str, ...]
) -> Iterator[Complaint]:
    """Complaints about one level."""
    if path and "deadline_ms" in config:
        yield (
            "deadline_ms",
        ), "A deadline is for the whole plan, and stands at the top"
    if config.get("custom_host"):
        try:
            custom_host(config["custom_host"], trusted)
        except ValueError as e:
            yield (), f"Invalid custom host: {e}"
    if "x-portkey-forward-headers" in map(str.lower, config.get("forward_headers", ())):
        yield ("forward_headers",), (
            "forward_headers must not contain the 'x-portkey-forward-headers' header"
        )
    if "strategy" in config or "targets" in config:
        yield from _of_group(config)
    elif not any(
        k in config for k in ("provider", "cache", "retry", "request_timeout")
    ):
        if config:
            yield (), _NOTHING_TO_DO


def _of_group(config: Config) -> Iterator[Complaint]:
    strategy, targets = config.get("strategy"), config.get("targets")
    if strategy is None:
        yield ("strategy",), "Required: targets need a strategy"
    elif not targets:
        yield ("targets",), "A strategy needs at least one target"
    elif strategy["mode"] == Mode.LOADBALANCE:
        yield from _of_weights(targets)
    elif strategy["mode"] == Mode.CONDITIONAL:
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
