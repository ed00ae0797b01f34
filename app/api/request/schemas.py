"""From the body of POST /v1/completions to a request: the schema, and its errors.

JSON types are strict: "5", 1.5 and true are no integers, but 4.0 is one. Null means
absent where the contract lets a field be null. Unknown fields are kept, for upstreams
that know them. A value is refused here only if no target takes it: the ranges of OpenAI
hold for OpenAI alone, and are checked when its call is planned.

The first invalid field raises InvalidRequest at once, instead of marshmallow's
collection of errors: OpenAI's error has one `param`.

Source: CreateCompletionRequest in https://github.com/openai/openai-openapi; the
wording is that of the errors that the real endpoint sends.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, fields, missing, validates_schema

from ...core.parameter_errors import (
    DECIMAL,
    INTEGER,
    OBJECT,
    check_range,
    length_error,
    range_error,
    type_error,
)
from ...core.request import NO_LIMIT, CompletionRequest
from ...errors import InvalidRequest

_INT64, _INT32 = 2**63, 2**31

# Stop sequences, and characters of all of them. Editors and chat front ends send up to
# some dozens; the gateway looks for them in the text if the target does not.
_MAX_STOPS, _MAX_STOP_CHARACTERS = 256, 16_384

# The bias of OpenAI for "never".
_NEVER = -100

Shape = Mapping[str, Any]

# The parameters of a body, by their names on the wire.
Params = dict[str, Any]


def completion_request(
    body: Params, default_max_tokens: int | None
) -> CompletionRequest:
    """The request in *body*. Raises InvalidRequest for the first invalid field.

    *default_max_tokens* is set here because upstreams differ in it from OpenAI's
    documentation; the other defaults of the endpoint are theirs as well.
    """
    # A null is as good as nothing, except for the prompt: "no document at all".
    params = {
        name: value
        for name, value in validate(body).items()
        if value is not None or name == "prompt"
    }
    defaults = {}
    if "max_tokens" not in params and default_max_tokens is not None:
        defaults = {"max_tokens": default_max_tokens}
    return CompletionRequest(
        model=params.pop("model"),
        prompt=params.pop("prompt"),
        params=params | defaults,
        id=f"cmpl-{secrets.token_hex(16)}",
        created=int(time.time()),
        defaults=defaults,
        rewritten={
            name: body[name]
            for name in _REWRITTEN
            if type(body.get(name)) in (float, list)
        },
        default_max_tokens=default_max_tokens,
    )


# The parameters that come in two forms, of which one is canonical.
_REWRITTEN = ("best_of", "logit_bias", "logprobs", "max_tokens", "n", "seed")


def validate(body: Mapping[str, Any]) -> dict[str, Any]:
    """The result of the schema's own `load`, computed for the present fields only.

    `load` deserializes each field of the specification, most of which are absent in
    most bodies.
    """
    values = {
        name: field.deserialize(body.get(name, missing))
        for name, field in _SCHEMA.fields.items()
        if name in body or field.required
    }
    # In the order of the specification, then the unknown fields: the first one that is
    # wrong is the one that the error names.
    params = {**values, **body, **values}
    _SCHEMA.check_combinations(params)
    return params


def _non_empty_array(items: Shape) -> Shape:
    return {"type": "array", "minItems": 1, "items": items}


_STRING: Shape = {"type": "string"}
_ID_NUMBER: Shape = {"type": "integer", "minimum": 0}
_TOKENS = _non_empty_array({"type": "integer", "minimum": 0, "maximum": _INT64 - 1})


class _Field(fields.Field[Any]):
    """A field of one JSON type.

    *about* is its description. *expected* names the type in error messages, *shape* is
    its JSON Schema without null.
    """

    expected = ""
    shape: Shape = {}

    def __init__(self, about: str, *, null: bool = True, **kwargs: Any) -> None:
        metadata = {"description": about}
        super().__init__(allow_none=null, metadata=metadata, **kwargs)

    def deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value is missing and self.required:
            raise self.missing_error()
        if value is None and not self.allow_none:
            raise self.type_error(value)
        return (
            value
            if value is None or value is missing
            else self._deserialize(value, *args, **kwargs)
        )

    def missing_error(self) -> InvalidRequest:
        return InvalidRequest(
            f"Missing required parameter: '{self.name}'.",
            param=self.name,
            code="missing_required_parameter",
        )

    def type_error(self, value: object) -> InvalidRequest:
        return type_error(str(self.name), self.expected, value)


class _NumberField(_Field):
    """A number from *low* to *high*; None is no bound."""

    kind = "number"

    def __init__(
        self, low: int | None, high: int | None, about: str, **kwargs: Any
    ) -> None:
        super().__init__(about, **kwargs)
        self.low, self.high = low, high
        bounds = {"minimum": low, "maximum": high}
        present = {name: bound for name, bound in bounds.items() if bound is not None}
        self.shape = {"type": self.kind, **present}


class _Integer(_NumberField):
    expected, kind = INTEGER, "integer"

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        name = str(self.name)
        if type(value) is float and abs(value) >= _INT64:
            # An integer beyond 64 bits, which orjson reads as a float.
            raise range_error(self.low, self.high, value, name, "integer")
        if type(value) is float and value.is_integer():
            # In JSON there is one kind of number, and some clients write 4 as 4.0.
            value = int(value)
        if type(value) is not int:
            raise self.type_error(value)
        return check_range(self.low, self.high, value, name, "integer")


class _MaxTokens(_Integer):
    """A number of tokens; or -1 for no limit, as llama.cpp and LM Studio have it."""

    def __init__(self, about: str) -> None:
        super().__init__(0, _INT64 - 1, about)
        self.shape = {**self.shape, "minimum": NO_LIMIT}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return NO_LIMIT if value == NO_LIMIT else super()._deserialize(value)


class _Decimal(_NumberField):
    expected = DECIMAL

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) not in (int, float):
            raise self.type_error(value)
        return check_range(self.low, self.high, value, str(self.name), "decimal")


class _Boolean(_Field):
    expected, shape = "a boolean", {"type": "boolean"}

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        # Neither 1 nor "true", which marshmallow's own field would take.
        if type(value) is not bool:
            raise self.type_error(value)
        return value


class _Text(_Field):
    expected, shape = "a string", _STRING

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if type(value) is not str:
            raise self.type_error(value)
        return value


class _Suffix(_Text):
    """An empty one is none."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return super()._deserialize(value) or None


class _Model(_Text):
    def missing_error(self) -> InvalidRequest:
        return InvalidRequest("you must provide a model parameter")


class _Prompt(_Field):
    """One prompt or an array of them, as text or as token ids."""

    expected = (
        "a string, an array of strings, an array of token ids, or an array of arrays "
        "of token ids"
    )
    shape = {
        "anyOf": [
            _STRING,
            _non_empty_array(_STRING),
            _TOKENS,
            _non_empty_array(_TOKENS),
        ],
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, str) or _are_tokens(value):
            return value
        if not isinstance(value, list):
            raise self.type_error(value)
        # An array may have a million items, so each is looked at by functions of C.
        if not value or [] in value:
            raise self._invalid("an array in it is empty", "array_below_min_length")
        if _has_only(str, value) or all(map(_are_tokens, value)):
            return value
        raise self._invalid("it is an array of something else", "invalid_type")

    def _invalid(self, problem: str, code: str) -> InvalidRequest:
        return InvalidRequest(
            f"Invalid '{self.name}': expected {self.expected}, but {problem}.",
            param=self.name,
            code=code,
        )


class _Stop(_Field):
    """Sequences. Empty ones, and an empty array, count as none."""

    expected = "a string or an array of strings"
    shape = {
        "anyOf": [_STRING, {"type": "array", "items": _STRING, "maxItems": _MAX_STOPS}]
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        sequences = [value] if isinstance(value, str) else value
        if not isinstance(sequences, list) or not (
            sequences == [] or _has_only(str, sequences)
        ):
            raise self.type_error(value)
        if len(sequences) > _MAX_STOPS:
            raise length_error(str(self.name), _MAX_STOPS, sequences)
        length = sum(map(len, sequences))
        if length > _MAX_STOP_CHARACTERS:
            raise InvalidRequest(
                f"Invalid '{self.name}': string too long. Expected at most "
                f"{_MAX_STOP_CHARACTERS} characters in all, but got {length} instead.",
                param=self.name,
                code="string_above_max_length",
            )
        # An empty sequence would end every text before it begins.
        if isinstance(value, str):
            return value or None
        return [sequence for sequence in sequences if sequence] or None


class _LogitBias(_Field):
    """Token ids, written as strings, to numbers.

    llama.cpp's clients send pairs, `[[15043, 1.5]]`, with false for "never".
    Source: tools/server/README.md in https://github.com/ggml-org/llama.cpp
    """

    expected = OBJECT
    shape = {
        "anyOf": [
            {
                "type": "object",
                "propertyNames": {"pattern": "^[0-9]+$"},
                "additionalProperties": {"type": "number"},
            },
            {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [
                        {
                            "anyOf": [
                                _ID_NUMBER,
                                {"type": "string", "pattern": "^[0-9]+$"},
                            ]
                        },
                        {"anyOf": [{"type": "number"}, {"const": False}]},
                    ],
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        ]
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, list):
            value = self._pairs_as_object(value)
        if not isinstance(value, dict):
            raise self.type_error(value)
        for key, bias in value.items():
            # `isdecimal` alone is true of the digits of every script.
            if not (key.isascii() and key.isdecimal()):
                raise InvalidRequest(
                    f"Invalid key in '{self.name}': expected a token id, written as an "
                    f"integer, but got {key[:40]!r} instead.",
                    param=self.name,
                    code="invalid_type",
                )
            if type(bias) not in (int, float):
                raise type_error(f"{self.name}.{key[:40]}", DECIMAL, bias)
        return value

    def _pairs_as_object(self, pairs: list[Any]) -> dict[str, Any]:
        biases: dict[str, Any] = {}
        for pair in pairs:
            is_pair = isinstance(pair, list) and len(pair) == 2
            if not is_pair or type(pair[0]) not in (int, str):
                raise self.type_error(pairs)
            biases[str(pair[0])] = _NEVER if pair[1] is False else pair[1]
        return biases


class _StreamOptions(_Field):
    """The known switches are checked; other keys are kept, as unknown fields are."""

    expected = OBJECT
    switches = ("include_usage", "include_obfuscation")
    shape = {
        "type": "object",
        "properties": {name: {"type": ["boolean", "null"]} for name in switches},
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, dict):
            raise self.type_error(value)
        # vLLM and SGLang have switches of their own, such as continuous_usage_stats.
        for key in self.switches:
            if not isinstance(value.get(key), bool | None):
                name = f"{self.name}.{key}"
                raise type_error(name, _Boolean.expected, value[key])
        return value


class CompletionSchema(Schema):
    """The fields in the order of the specification, in which they are checked."""

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
        0,
        _INT32 - 1,
        "How many choices are drawn for each prompt; the best `n` come back. "
        "OpenAI: at most 20.",
    )
    echo = _Boolean("Whether the prompt stands before each text.")
    frequency_penalty = _Decimal(
        None,
        None,
        "Makes tokens rarer the more often they have come. OpenAI: from -2 to 2.",
    )
    logit_bias = _LogitBias("What is added to the logits of tokens, by their ids.")
    logprobs = _Integer(
        0,
        _INT32 - 1,
        "How many of the likeliest tokens are told at each place. OpenAI: at most 20.",
    )
    max_tokens = _MaxTokens(
        "The most tokens of a choice; -1 is no limit, where that exists."
    )
    n = _Integer(1, _INT32 - 1, "Choices for each prompt. OpenAI: at most 128.")
    presence_penalty = _Decimal(
        None, None, "Makes tokens rarer that have come at all. OpenAI: from -2 to 2."
    )
    seed = _Integer(-_INT64, _INT64 - 1, "The same for the same answer, if possible.")
    stop = _Stop("Sequences before which a text ends. OpenAI: at most 4.")
    stream = _Boolean("Whether the answer comes in events, as it is written.")
    stream_options = _StreamOptions(
        "Only with `stream`: whether usage comes in an event of its own."
    )
    suffix = _Suffix("What follows the text that is to be written.")
    temperature = _Decimal(
        0, None, "How far the unlikely is drawn, too. OpenAI: at most 2."
    )
    top_p = _Decimal(0, 1, "The share of the likeliest tokens that are drawn from.")
    user = _Text("Who asks, for the provider.")

    @validates_schema
    def check_combinations(self, body: Mapping[str, Any], **_: Any) -> None:
        """Refuse fields that are valid alone, and not together."""
        n, best_of, stream = body.get("n"), body.get("best_of"), body.get("stream")
        n = 1 if n is None else n
        # OpenAI's endpoint takes a best_of of 0 for 1.
        if best_of is not None and n > max(best_of, 1):
            raise InvalidRequest(
                "You requested that the server return more choices than it will "
                f"generate (HINT: you must set 'n' (currently {n}) to be at most "
                f"'best_of' (currently {best_of}), or omit either parameter if you "
                "don't specifically want to use them.)"
            )
        if best_of is not None and stream and best_of > 1:
            # Which of the candidates is the best is known only when all have ended.
            raise InvalidRequest(
                "Results with 'best_of' greater than 1 cannot be streamed.",
                param="best_of",
            )
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


def _has_only(kind: type, values: list[Any]) -> bool:
    return set(map(type, values)) == {kind}


def _are_tokens(value: Any) -> bool:
    """Whether *value* is a prompt as token ids. A boolean is no integer."""
    array = isinstance(value, list) and bool(value)
    return array and _has_only(int, value) and min(value) >= 0 and max(value) < _INT64
