"""The schema of a config: the type of each key, with Portkey's error messages.

Unlike there, an unknown key of strategy, retry and cache is refused as a misspelling.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import INCLUDE, RAISE, Schema, ValidationError, fields, pre_load

from ...core.caching import CacheSharing
from ...core.routing import CompletionMode, Strategy
from ...providers.catalog.known_names import KNOWN_NAMES

Config = dict[str, Any]
Shape = dict[str, Any]


def complaints(config: Config) -> list[tuple[str, Any]]:
    """Path and message of each value of a wrong type.

    A message may be an object that becomes text by `str`: that takes time, and most are
    never shown.
    """
    return [*_flatten(_SCHEMA.validate(config))]


def kind_of(value: object) -> str:
    """The JSON type of *value*, as Portkey's validator names it."""
    # By the exact type, as bool is a subclass of int.
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    kinds |= {list: "array", dict: "object", type(None): "null"}
    return kinds[type(value)]


class _Typed(fields.Field[Any]):
    """A value of one JSON type, with the messages of Portkey's validator.

    *about* is its description, *shape* its JSON Schema; both are for OpenAPI.
    """

    def __init__(self, kind: str, about: str, **kwargs: Any) -> None:
        null = f"Expected {kind}, received null"
        messages: dict[str, Any] = {"required": "Required", "null": null}
        metadata = {"description": about}
        super().__init__(error_messages=messages, metadata=metadata, **kwargs)
        self.kind = kind

    @property
    def shape(self) -> Shape:
        return {"type": self.kind}

    # marshmallow's hook for the conversion of a value. Its own fields convert: Integer
    # takes "5", Boolean takes "yes". Portkey's validator does not, nor do these.
    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if kind_of(value) != self.kind:
            raise ValidationError(f"Expected {self.kind}, received {kind_of(value)}")
        return value


class _BoundedNumber(_Typed):
    """A number in a range."""

    def __init__(self, low: float, high: float, about: str, **kwargs: Any) -> None:
        super().__init__("number", about, **kwargs)
        self.low, self.high = low, high

    @property
    def shape(self) -> Shape:
        return super().shape | {"minimum": self.low, "maximum": self.high}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        super()._deserialize(value)
        if not self.low <= value <= self.high:
            raise ValidationError(
                f"Expected a number from {self.low:g} to {self.high:g}, received "
                f"{value}"
            )
        return value


class _BoundedInteger(_BoundedNumber):
    """A whole number in a range."""

    @property
    def shape(self) -> Shape:
        return super().shape | {"type": "integer"}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        # Not isinstance: true is an int to Python.
        if type(value) is not int:
            raise ValidationError(f"Expected integer, received {kind_of(value)}")
        return super()._deserialize(value)


class _OneOf(_Typed):
    """A string out of a list."""

    def __init__(
        self, choices: tuple[str, ...], complaint: str, about: str, **kwargs: Any
    ) -> None:
        super().__init__("string", about, **kwargs)
        self.choices, self.complaint = choices, complaint

    @property
    def shape(self) -> Shape:
        return super().shape | {"enum": [str(choice) for choice in self.choices]}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, str) or value not in self.choices:
            choices = ", ".join(self.choices)
            raise ValidationError(f"{self.complaint}. Must be one of: {choices}")
        return value


class _Provider(_OneOf):
    """The name of a provider, or `@` and the id of a virtual key."""

    @property
    def shape(self) -> Shape:
        return {"anyOf": [super().shape, {"type": "string", "pattern": "^@"}]}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, str) and value.startswith("@"):
            return value
        return super()._deserialize(value)


class _List(_Typed):
    """A list of values of one JSON type."""

    def __init__(self, item: str, about: str, **kwargs: Any) -> None:
        super().__init__("array", about, **kwargs)
        self.item = item

    @property
    def shape(self) -> Shape:
        return super().shape | {"items": {"type": self.item}}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        super()._deserialize(value)
        errors = {
            i: [f"Expected {self.item}, received {kind_of(item)}"]
            for i, item in enumerate(value)
            if kind_of(item) != self.item
        }
        if errors:
            raise ValidationError(errors)
        return value


class _Object(fields.Nested):
    """An object with a schema of its own."""

    def __init__(self, schema: Any, about: str = "", **kwargs: Any) -> None:
        metadata = {"description": about} if about else {}
        super().__init__(schema, metadata=metadata, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError(f"Expected object, received {kind_of(value)}")
        return super()._deserialize(value, *args, **kwargs)


class _Strict(Schema):
    """A schema that refuses unknown keys, and suggests the nearest known one."""

    class Meta:
        unknown = RAISE

    # RAISE alone would give marshmallow's "Unknown field.", without a suggestion.
    @pre_load
    def refuse_unknown(self, data: Mapping[str, Any], **_: Any) -> Mapping[str, Any]:
        unknown = {
            key: [_UnknownKey(key, self.fields)]
            for key in data
            if key not in self.fields
        }
        if unknown:
            raise ValidationError(unknown)
        return data


class _UnknownKey:
    """The message for an unknown key, computed when it is shown.

    The search for the nearest key is slow, and a config can have thousands of them.
    """

    def __init__(self, key: str, fields: Mapping[str, Any]) -> None:
        self._key, self._fields = key[:60], fields

    def __str__(self) -> str:
        # With a cutoff of 0, there always is a nearest one.
        nearest = difflib.get_close_matches(self._key, self._fields, n=1, cutoff=0)
        return f"Unknown key '{self._key}'; did you mean '{nearest[0]}'?"


class BreakerSchema(_Strict):
    """When the circuit breaker opens, and for how long."""

    failure_threshold = _BoundedNumber(1, 1e6, "Failures after which it is.")
    failure_threshold_percentage = _BoundedNumber(
        1, 100, "The same as a share of its calls."
    )
    minimum_requests = _BoundedNumber(1, 1e6, "Calls from which on that share counts.")
    cooldown_interval = _BoundedNumber(
        30_000, 1e9, "Milliseconds until it is tried again."
    )
    failure_status_codes = _List("number", "Which statuses are failures.")


class StrategySchema(_Strict):
    """How a group chooses among its targets."""

    mode = _OneOf(
        tuple(Strategy),
        "Invalid 'mode' value",
        "One after the other, one by weight, or one by conditions.",
        required=True,
    )
    on_status_codes = _List("number", "Statuses after which the next one is tried.")
    conditions = _List("object", "Each has a `query`, and `then` the name of a target.")
    default = _Typed("string", "The name of the target for when no condition holds.")
    sticky = _Typed("string", "The path of what has requests go to the same target.")
    cb_config = _Object(BreakerSchema, "When a target is left alone for a while.")


class RetrySchema(_Strict):
    """When and how often a target is retried."""

    attempts = _BoundedNumber(0, 1e6, "How often at most.", required=True)
    on_status_codes = _List("number", "After which statuses.")
    use_retry_after_header = _Typed("boolean", "Whether a provider says when.")
    use_retry_after_headers = _Typed("boolean", "The same, spelled differently.")


class CacheSchema(_Strict):
    """Which answers are cached, and for whom."""

    mode = _OneOf(("simple",), "Invalid 'cache.mode' value", "How.", required=True)
    max_age = _BoundedNumber(0, 1e12, "Seconds for which an answer is kept.")
    scope = _OneOf(
        tuple(CacheSharing),
        "Invalid 'cache.scope' value",
        "Whose answers are given to whom.",
    )


class BridgeSchema(_Strict):
    """How a prompt is sent to a chat model."""

    system = _Typed("string", "The message of the system.")
    template = _Typed("string", "The message of the user, with `{prompt}` in it.")


class ModelInfoSchema(_Strict):
    """Corrections of what the gateway assumes about a model."""

    lacks = _List("string", "Parameters that it refuses.")
    max_tokens = _Typed("string", "Its name for that parameter, in a chat.")
    token_floor = _BoundedInteger(0, 1e6, "The fewest tokens that it needs to think.")


class ConfigSchema(Schema):
    """A config or a target of one, which have the same keys. Unknown keys are kept."""

    class Meta:
        unknown = INCLUDE

    strategy = _Object(StrategySchema, "How the targets are made use of.")
    targets = fields.List(
        # A lambda, as the class does not exist yet: targets nest.
        _Object(lambda: ConfigSchema()),
        error_messages=dict[str, Any](invalid="Expected array"),
        metadata={
            "description": "The levels below, each a config again; at most 64 targets "
            "in all, and 1,024 in a stored config."
        },
    )
    name = _Typed("string", "What conditions call it.")
    provider = _Provider(
        KNOWN_NAMES,
        "Invalid 'provider' value",
        "Who answers; or the id of a virtual key behind an `@`.",
    )
    virtual_key = _Typed("string", "The id of a stored key of a provider.")
    api_key = _Typed("string", "The provider's key.")
    custom_host = _Typed("string", "What replaces the provider's base URL.")
    weight = _Typed("number", "Its share, where targets are chosen by weight.")
    retry = _Object(RetrySchema, "How often it is tried again.")
    cache = _Object(CacheSchema, "Answers that are given again.")
    request_timeout = _BoundedNumber(1, 1e9, "Milliseconds until an answer begins.")
    deadline_ms = _BoundedNumber(
        1, 1e9, "Milliseconds for the whole plan; at the top only."
    )
    forward_headers = _List("string", "Headers of the caller that travel on.")
    override_params = _Typed("object", "What the body says, whatever the caller said.")
    default_params = _Typed("object", "What the body says, where the caller does not.")
    drop_params = _List("string", "What is taken out of the body.")
    model_aliases = _Typed("object", "Models that answer in place of others.")
    strict_open_ai_compliance = _Typed(
        "boolean", "False keeps a provider's own finish reasons."
    )
    strict_params = _Typed("boolean", "Whether no parameter may be dropped.")
    via = _OneOf(
        tuple(CompletionMode),
        "Invalid 'via' value",
        "The way that a target has to take.",
    )
    bridge = _Object(BridgeSchema, "How a prompt becomes a chat.")
    model_info = _Object(ModelInfoSchema, "What is not known of the model.")


# Built once: a schema copies all its fields when it is created, which takes longer than
# to validate a config.
_SCHEMA = ConfigSchema()


def _flatten(errors: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Pairs of path and message from marshmallow's nested errors."""
    if isinstance(errors, dict):
        for key, inner in errors.items():
            # marshmallow's key for errors of an object as a whole.
            deeper = path if key == "_schema" else (*path, str(key))
            yield from _flatten(inner, deeper)
    else:
        yield from ((",".join(path), message) for message in errors)
