"""The body of POST /v1/completions: types, ranges, nulls, and OpenAI's words for each.

JSON types are strict: "5", 1.5 and true are no integers. Null means absent where the
contract lets a field be null. Unknown fields are kept, for upstreams that know them.

A field that is wrong raises InvalidRequest at once, instead of marshmallow's collected
errors: callers know one error with one `param`, that of the first field that is wrong.

Source: CreateCompletionRequest in https://github.com/openai/openai-openapi; the
wording is that of the errors that the real endpoint sends.
"""

from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, fields, missing, validates_schema

from ...errors import InvalidRequest

_INT64 = 2**63

# The most stop sequences, and the strongest bias of a token.
_STOPS, _BIAS = 4, 100

Shape = Mapping[str, Any]


def load(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, without nulls; `prompt` always, since null is one.

    Raises InvalidRequest for the first field that is wrong.
    """
    loaded = checked(body)
    return {k: v for k, v in loaded.items() if v is not None or k == "prompt"}


def checked(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the schema's own `load` makes of *body*, in one walk over what was given.

    That one asks each field of the specification for its value, one after the other,
    and most of them are never given.
    """
    known = {
        name: field.deserialize(body.get(name, missing))
        for name, field in _SCHEMA.fields.items()
        if name in body or field.required
    }
    loaded = {**known, **body, **known}
    _SCHEMA.fits_together(loaded)
    return loaded


def _full(items: Shape) -> Shape:
    return {"type": "array", "minItems": 1, "items": items}


_STRING: Shape = {"type": "string"}
_TOKENS = _full({"type": "integer", "minimum": 0, "maximum": _INT64 - 1})


class _Field(fields.Field[Any]):
    """A field of one JSON type: *about* says what it is for. *expected* names that type
    in complaints, *shape* is what it takes besides null, in JSON Schema.
    """

    expected = ""
    shape: Shape = {}

    def __init__(self, about: str, *, null: bool = True, **kwargs: Any) -> None:
        metadata = {"description": about}
        super().__init__(allow_none=null, metadata=metadata, **kwargs)

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value is missing and self.required:
            raise self.absent()
        if value is None and not self.allow_none:
            raise self.wrong(value)
        return (
            value
            if value is None or value is missing
            else self._deserialize(value, *args, **kwargs)
        )

    def absent(self) -> InvalidRequest:
        return InvalidRequest(
            f"Missing required parameter: '{self.name}'.",
            param=self.name,
            code="missing_required_parameter",
        )

    def wrong(self, value: object) -> InvalidRequest:
        return _wrong_type(str(self.name), self.expected, value)


class _Integer(_Field):
    expected = "an integer"

    kind = "integer"

    def __init__(self, low: int, high: int, about: str, **kwargs: Any) -> None:
        super().__init__(about, **kwargs)
        self.low, self.high = low, high
        self.shape = {"type": self.kind, "minimum": low, "maximum": high}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) is float and abs(value) >= _INT64:
            # orjson reads integers beyond 64 bits as floats.
            raise _outside(self.low, self.high, value, str(self.name), "integer")
        if type(value) is not int:
            raise self.wrong(value)
        return _within(self.low, self.high, value, str(self.name), "integer")


class _Decimal(_Integer):
    expected, kind = "a decimal number", "number"

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) not in (int, float):
            raise self.wrong(value)
        return _within(self.low, self.high, value, str(self.name), "decimal")


class _Boolean(_Field):
    expected, shape = "a boolean", {"type": "boolean"}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) is not bool:
            raise self.wrong(value)
        return value


class _Text(_Field):
    expected, shape = "a string", _STRING

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) is not str:
            raise self.wrong(value)
        return value


class _Model(_Text):
    def absent(self) -> InvalidRequest:
        return InvalidRequest("you must provide a model parameter")


class _Prompt(_Field):
    """One prompt or an array of them, as text or as token ids."""

    expected = (
        "a string, an array of strings, an array of token ids, or an array of arrays "
        "of token ids"
    )
    shape = {
        "anyOf": [_STRING, _full(_STRING), _TOKENS, _full(_TOKENS)],
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, str) or _are_tokens(value):
            return value
        if not isinstance(value, list):
            raise self.wrong(value)
        if not value or [] in value:
            raise self._invalid("an array in it is empty", "array_below_min_length")
        if _all(str, value) or all(map(_are_tokens, value)):
            return value
        raise self._invalid("it is an array of something else", "invalid_type")

    def _invalid(self, seen: str, code: str) -> InvalidRequest:
        return InvalidRequest(
            f"Invalid '{self.name}': expected {self.expected}, but {seen}.",
            param=self.name,
            code=code,
        )


class _Stop(_Field):
    """Up to four sequences. None of them, and empty ones, mean that none is wanted."""

    expected = "a string or an array of strings"
    shape = {
        "anyOf": [_STRING, {"type": "array", "items": _STRING, "maxItems": _STOPS}]
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, str):
            return value or None
        if not isinstance(value, list) or not (value == [] or _all(str, value)):
            raise self.wrong(value)
        if len(value) > _STOPS:
            raise InvalidRequest(
                f"Invalid '{self.name}': array too long. Expected an array with "
                f"maximum length {_STOPS}, but got an array with length {len(value)} "
                "instead.",
                param=self.name,
                code="array_above_max_length",
            )
        return [sequence for sequence in value if sequence] or None


class _LogitBias(_Field):
    """Token ids, written as strings, to numbers."""

    expected = "an object"
    shape = {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]+$"},
        "additionalProperties": {"type": "number", "minimum": -_BIAS, "maximum": _BIAS},
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, dict):
            raise self.wrong(value)
        for key, bias in value.items():
            self._check(key, bias)
        return value

    def _check(self, key: str, bias: object) -> None:
        name = f"{self.name}.{key[:40]}"
        if not (key.isascii() and key.isdecimal()):
            raise InvalidRequest(
                f"Invalid key in '{self.name}': expected a token id, written as an "
                f"integer, but got {key[:40]!r} instead.",
                param=self.name,
                code="invalid_type",
            )
        if type(bias) not in (int, float):
            raise _wrong_type(name, _Decimal.expected, bias)
        _within(-_BIAS, _BIAS, bias, name, "decimal")


class _StreamOptions(_Field):
    """Known switches are checked; what other upstreams understand travels on."""

    expected = "an object"
    switches = ("include_usage", "include_obfuscation")
    shape = {
        "type": "object",
        "properties": {name: {"type": ["boolean", "null"]} for name in switches},
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, dict):
            raise self.wrong(value)
        for key in self.switches:
            if not isinstance(value.get(key), bool | None):
                name = f"{self.name}.{key}"
                raise _wrong_type(name, _Boolean.expected, value[key])
        return value


class CompletionSchema(Schema):
    """In the order of the specification, in which the first failure is reported."""

    class Meta:
        unknown = INCLUDE

    model = _Model(
        "The model; or the id of a virtual key before it, as in `@key/model`.",
        required=True,
        null=False,
    )
    prompt = _Prompt(
        "What is to be continued: one text or several, or the same in token ids. Null "
        "is no document at all, where the provider knows that.",
        required=True,
    )
    best_of = _Integer(
        0, 20, "How many choices are drawn for each prompt; the best `n` come back."
    )
    echo = _Boolean("Whether the prompt stands before each text.")
    frequency_penalty = _Decimal(
        -2, 2, "Makes tokens rarer the more often they have come."
    )
    logit_bias = _LogitBias("What is added to the logits of tokens, by their ids.")
    # The specification says 5; the real endpoint took 20, and so does vLLM.
    logprobs = _Integer(
        0, 20, "How many of the likeliest tokens are told at each place."
    )
    max_tokens = _Integer(0, _INT64 - 1, "The most tokens of a choice.")
    n = _Integer(1, 128, "Choices for each prompt.")
    presence_penalty = _Decimal(-2, 2, "Makes tokens rarer that have come at all.")
    seed = _Integer(-_INT64, _INT64 - 1, "The same for the same answer, if possible.")
    stop = _Stop("Sequences before which a text ends.")
    stream = _Boolean("Whether the answer comes in events, as it is written.")
    stream_options = _StreamOptions(
        "Only with `stream`: whether usage comes in an event of its own."
    )
    suffix = _Text("What follows the text that is to be written.")
    temperature = _Decimal(0, 2, "How far the unlikely is drawn, too.")
    top_p = _Decimal(0, 1, "The share of the likeliest tokens that are drawn from.")
    user = _Text("Who asks, for the provider.", null=False)

    @validates_schema
    def fits_together(self, body: Mapping[str, Any], **_: Any) -> None:
        """Refuse what is right alone, and not together."""
        n, stream = body.get("n"), body.get("stream")
        _check_best_of(1 if n is None else n, body.get("best_of"), stream)
        if body.get("stream_options") is not None and not stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is "
                "enabled.",
                param="stream_options",
            )
        if body.get("echo") and body.get("suffix"):
            raise InvalidRequest(
                "'echo' is not supported together with 'suffix'.", param="suffix"
            )


_SCHEMA = CompletionSchema()


def _check_best_of(n: int, best_of: int | None, stream: bool | None) -> None:
    if best_of is None:
        return
    if n > max(best_of, 1):
        raise InvalidRequest(
            "You requested that the server return more choices than it will generate "
            f"(HINT: you must set 'n' (currently {n}) to be at most 'best_of' "
            f"(currently {best_of}), or omit either parameter if you don't "
            "specifically want to use them.)"
        )
    if stream and best_of > 1:
        raise InvalidRequest(
            "Results with 'best_of' greater than 1 cannot be streamed.",
            param="best_of",
        )


def _within(low: int, high: int, value: Any, name: str, word: str) -> Any:
    """*value*, if it lies between *low* and *high*."""
    if low <= value <= high:
        return value
    raise _outside(low, high, value, name, word)


def _outside(low: int, high: int, value: Any, name: str, word: str) -> InvalidRequest:
    below = value < 0 or value < low
    side, bound, sign = ("below min", low, ">=") if below else ("above max", high, "<=")
    return InvalidRequest(
        f"Invalid '{name}': {word} {side}imum value. Expected a value {sign} {bound}, "
        f"but got {value} instead.",
        param=name,
        code=f"{word}_{side.replace(' ', '_')}_value",
    )


def _wrong_type(name: str, expected: str, value: object) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got {_kind(value)} "
        "instead.",
        param=name,
        code="invalid_type",
    )


def _kind(value: object) -> str:
    """What *value* is in JSON, with its article."""
    kinds = {bool: "a boolean", int: "an integer", float: "a decimal number"}
    kinds |= {str: "a string", list: "an array", dict: "an object"}
    return kinds.get(type(value), "null")


def _all(kind: type, value: list[Any]) -> bool:
    return set(map(type, value)) == {kind}


def _are_tokens(value: Any) -> bool:
    """Whether *value* is a prompt in token ids. A boolean is no integer."""
    array = isinstance(value, list) and bool(value)
    return array and _all(int, value) and min(value) >= 0 and max(value) < _INT64
