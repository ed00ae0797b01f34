"""The bodies, of requests from the schemas that check them, and of answers."""

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import fields

from ...core.request import DEFAULTS
from ...providers import PROVIDERS
from ...settings import Settings
from ..config.rules import KINDS
from ..config.schema import ConfigSchema
from ..request import schemas

Shape = dict[str, Any]


def plugin() -> MarshmallowPlugin:
    """Reads our fields, which say themselves what they take."""
    return _Plugin()


class _Plugin(MarshmallowPlugin):
    def init_spec(self, spec: APISpec) -> None:
        super().init_spec(spec)
        converter: Any = self.converter
        converter.add_attribute_function(_shape)


def _shape(_: Any, field: fields.Field[Any], **__: Any) -> Shape:
    shape = dict(getattr(field, "shape", {}))
    if not shape or not field.allow_none:
        return shape
    if "type" in shape:
        return shape | {"type": [shape["type"], "null"]}
    return {"anyOf": [*shape["anyOf"], {"type": "null"}]}


def describe(spec: APISpec, settings: Settings) -> None:
    """Put all of them into *spec*."""
    spec.components.schema(REQUEST, schema=schemas.CompletionSchema())
    without_model = schemas.CompletionSchema(partial=("model",))
    spec.components.schema(NAMELESS, schema=without_model)
    for name in (REQUEST, NAMELESS):
        _fill_in(spec.components.schemas[name]["properties"], settings)
    spec.components.schema(CONFIG, schema=ConfigSchema())
    known = spec.components.schemas[CONFIG]["properties"]
    known |= {name: shape for name, shape in _settings() if name not in known}
    for name, shape in ANSWERS.items():
        spec.components.schema(name, shape)


def ref(name: str) -> Shape:
    return {"$ref": f"#/components/schemas/{name}"}


REQUEST, NAMELESS, CONFIG = "CompletionRequest", "CompletionOfModel", "Config"


def _fill_in(properties: Shape, settings: Settings) -> None:
    """Say which values hold where none are given."""
    defaults = dict(DEFAULTS)
    if settings.default_max_tokens is not None:
        defaults["max_tokens"] = settings.default_max_tokens
    for name, value in defaults.items():
        properties[name]["default"] = value


def _settings() -> list[tuple[str, Shape]]:
    """What one provider alone has to know, by its names in a config."""
    words: dict[type, str] = {str: "string", dict: "object"}
    return [
        (name, {"type": [words[kind] for kind in kinds], "description": _whose(name)})
        for name, kinds in KINDS.items()
    ]


def _whose(name: str) -> str:
    of = [
        provider.name
        for provider in PROVIDERS.values()
        if name in {n for s in provider.settings for n in (s.name, s.alias)}
    ]
    return f"For {', '.join(of)}."


# Answers. What an upstream adds to them is passed on.

_STRING: Shape = {"type": "string"}
_WHOLE: Shape = {"type": "integer"}
_NUMBER: Shape = {"type": "number"}
_MAYBE: Shape = {"type": ["string", "null"]}


def _object(properties: Shape, *optional: str, about: str = "") -> Shape:
    required = [name for name in properties if name not in optional]
    told = {"description": about} if about else {}
    shape = {"type": "object", "required": required, "properties": properties}
    return told | shape


def _list(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def _or_null(shape: Shape) -> Shape:
    return {"anyOf": [shape, {"type": "null"}]}


_HEAD: Shape = {
    "id": _STRING,
    "object": {"const": "text_completion"},
    "created": _WHOLE | {"description": "Unix seconds."},
    "model": _STRING,
}
_ESTIMATED: Shape = {
    "const": True,
    "description": "Stands here if nobody counted, and the gateway estimated.",
}

ANSWERS: dict[str, Shape] = {
    "Completion": _object(
        _HEAD
        | {
            "choices": _list(ref("Choice")),
            "usage": ref("Usage"),
            "usage_estimated": _ESTIMATED,
        },
        "usage_estimated",
        about="A whole answer.",
    ),
    "CompletionChunk": _object(
        _HEAD
        | {
            "choices": _list(ref("Choice")),
            "usage": _or_null(ref("Usage")),
            "usage_estimated": _ESTIMATED,
        },
        "usage",
        "usage_estimated",
        about="The data of an event. All of a stream have one id and one time.",
    ),
    "Event": _object(
        {
            "event": {"const": "message", "description": "It is never named."},
            "data": {
                "type": "string",
                "description": "A CompletionChunk; last of all `[DONE]`, or an Error.",
                "anyOf": [
                    {"const": "[DONE]"},
                    {
                        "pattern": "^\\{",
                        "contentMediaType": "application/json",
                        "contentSchema": {
                            "anyOf": [ref("CompletionChunk"), ref("Error")]
                        },
                    },
                ],
            },
        },
        "event",
        about="One of the events of a stream.",
    ),
    "Choice": _object(
        {
            "text": _STRING,
            "index": _WHOLE
            | {"description": "The place of its prompt, times `n`, and its own."},
            "logprobs": _or_null(ref("Logprobs")),
            "finish_reason": _MAYBE
            | {
                "description": "`stop`, `length` or `content_filter`; null while more "
                "is to come."
            },
        },
    ),
    "Logprobs": _object(
        {
            "tokens": _list(_STRING),
            "token_logprobs": _list(_or_null(_NUMBER)),
            "top_logprobs": _or_null(
                _list(_or_null({"type": "object", "additionalProperties": _NUMBER}))
            ),
            "text_offset": _list(
                _WHOLE | {"description": "In characters, from the prompt's start."}
            ),
        },
        about="Parallel lists, with an entry for each token.",
    ),
    "Usage": _object(
        {
            "prompt_tokens": _WHOLE,
            "completion_tokens": _WHOLE,
            "total_tokens": _WHOLE,
            "prompt_tokens_details": _or_null({"type": "object"}),
            "completion_tokens_details": _or_null({"type": "object"}),
        },
        "prompt_tokens_details",
        "completion_tokens_details",
    ),
    "Models": _object(
        {"object": _STRING, "data": _list({"type": "object"})},
        "object",
        about="The provider's own list.",
    ),
    "Health": _object({"status": _STRING, "engine": _STRING}, "engine"),
    "Error": _object(
        {
            "error": ref("ErrorDetail"),
            "provider": _STRING | {"description": "Whose error it is."},
        },
        "provider",
        about="OpenAI's shape. It also ends a stream that was cut.",
    ),
    "ErrorDetail": _object(
        {
            "message": _STRING,
            "type": _STRING,
            "param": _MAYBE | {"description": "Which part of the request is wrong."},
            "code": _MAYBE,
            "attempts": _list(ref("Attempt")),
        },
        "attempts",
    ),
    "Attempt": _object(
        {
            "path": _STRING | {"description": "Where in the config it stands."},
            "provider": _STRING,
            "status": _WHOLE,
            "message": _MAYBE,
        },
        about="One try, if there were several.",
    ),
    "RouteError": {
        "description": "A header or a config is refused: in both shapes, OpenAI's and "
        "Portkey's.",
        "allOf": [
            ref("Error"),
            _object(
                {
                    "status": {"const": "failure"},
                    "message": _STRING,
                    "errors": _list(_STRING),
                },
                "errors",
            ),
        ],
    },
}
