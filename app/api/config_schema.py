"""The shape of a config: which keys hold which types, in Portkey's words.

Unlike there, an unknown key of strategy, retry and cache is a slip, and refused.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, pre_load

from ..core.caching import Scope
from ..core.routing import Mode, Way
from ..providers.names import KNOWN_NAMES

Config = dict[str, Any]


def complaints(config: Config) -> list[tuple[str, str]]:
    """Path and message of all that has the wrong shape."""
    return [*_flat(_SCHEMA.validate(config))]


def kind_of(value: object) -> str:
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
        if kind_of(value) != self.kind:
            raise ValidationError(f"Expected {self.kind}, received {kind_of(value)}")
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


class _Whole(_Within):
    """A whole number in a range."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) is not int:
            raise ValidationError(f"Expected integer, received {kind_of(value)}")
        return super()._deserialize(value)


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


class _Provider(_OneOf):
    """A provider's name, or `@` and the id of a virtual key."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, str) and value.startswith("@"):
            return value
        return super()._deserialize(value)


class _List(_Typed):
    """A list of values of one JSON type."""

    def __init__(self, item: str, **kwargs: Any) -> None:
        super().__init__("array", **kwargs)
        self.item = item

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        super()._deserialize(value)
        wrong = {
            i: [f"Expected {self.item}, received {kind_of(item)}"]
            for i, item in enumerate(value)
            if kind_of(item) != self.item
        }
        if wrong:
            raise ValidationError(wrong)
        return value


class _Object(fields.Nested):
    """An object with a schema of its own."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError(f"Expected object, received {kind_of(value)}")
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
    mode = _OneOf(("simple",), "Invalid 'cache.mode' value", required=True)
    max_age = _Within(0, 1e12)
    scope = _OneOf(tuple(Scope), "Invalid 'cache.scope' value")


class _Bridge(_Strict):
    system = _Typed("string")
    template = _Typed("string")


class _ModelInfo(_Strict):
    lacks = _List("string")
    max_tokens = _Typed("string")
    token_floor = _Whole(0, 1e6)


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
    provider = _Provider(KNOWN_NAMES, "Invalid 'provider' value")
    virtual_key = _Typed("string")
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
    model_aliases = _Typed("object")
    strict_open_ai_compliance = _Typed("boolean")
    strict_params = _Typed("boolean")
    via = _OneOf(tuple(Way), "Invalid 'via' value")
    bridge = _Object(_Bridge)
    model_info = _Object(_ModelInfo)


_SCHEMA = ConfigSchema()


def _flat(errors: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """marshmallow's nested errors as pairs of path and message."""
    if isinstance(errors, dict):
        for key, inner in errors.items():
            deeper = path if key == "_schema" else (*path, str(key))
            yield from _flat(inner, deeper)
    else:
        yield from ((",".join(path), str(message)) for message in errors)
