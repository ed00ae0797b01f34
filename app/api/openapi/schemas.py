"""The schemas of bodies.

Those of requests and configs are generated from the marshmallow schemas that validate
them, so that they cannot disagree. Responses have no such code, and are written here.
"""

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
    """The plugin of apispec, extended to read the `shape` of our fields."""
    return _ShapePlugin()


class _ShapePlugin(MarshmallowPlugin):
    def init_spec(self, spec: APISpec) -> None:
        super().init_spec(spec)
        # apispec only knows marshmallow's own field classes. For others it calls added
        # functions, and merges their results into the schema of each field.
        # Source: https://apispec.readthedocs.io/en/latest/using_plugins.html
        converter: Any = self.converter
        converter.add_attribute_function(_nullable_shape)


def _nullable_shape(_: Any, field: fields.Field[Any], **__: Any) -> Shape:
    """The `shape` of *field*, with null added where that is allowed."""
    # Fields of marshmallow have none, and are left to apispec.
    shape = dict(getattr(field, "shape", {}))
    if not shape or not field.allow_none:
        return shape
    if "type" in shape:
        return shape | {"type": [shape["type"], "null"]}
    return {"anyOf": [*shape["anyOf"], {"type": "null"}]}


def describe(spec: APISpec, settings: Settings) -> None:
    """Add all schemas to *spec*."""
    spec.components.schema(REQUEST, schema=schemas.CompletionSchema())
    # For the path that has the model in it: `partial` makes the field optional.
    without_model = schemas.CompletionSchema(partial=("model",))
    spec.components.schema(NAMELESS, schema=without_model)
    # The marshmallow schema has no defaults, as absent parameters stay absent. They are
    # added here; one of them is a setting.
    defaults = dict(DEFAULTS)
    if settings.default_max_tokens is not None:
        defaults["max_tokens"] = settings.default_max_tokens
    for component in (REQUEST, NAMELESS):
        properties = spec.components.schemas[component]["properties"]
        for name, value in defaults.items():
            properties[name]["default"] = value
    spec.components.schema(CONFIG, schema=ConfigSchema())
    # The settings of providers are valid keys of a config beside those of its schema.
    types: dict[type, str] = {str: "string", dict: "object"}
    properties = spec.components.schemas[CONFIG]["properties"]
    for name, kinds in KINDS.items():
        if name not in properties:
            providers = [
                provider.name
                for provider in PROVIDERS.values()
                if any(name in (s.name, s.alias) for s in provider.settings)
            ]
            properties[name] = {
                "type": [types[kind] for kind in kinds],
                "description": f"For {', '.join(providers)}.",
            }
    for name, shape in ANSWERS.items():
        spec.components.schema(name, shape)


def ref(name: str) -> Shape:
    return {"$ref": f"#/components/schemas/{name}"}


REQUEST, NAMELESS, CONFIG = "CompletionRequest", "CompletionOfModel", "Config"


# Answers. Properties that an upstream adds are passed on.

_STRING: Shape = {"type": "string"}
_INTEGER: Shape = {"type": "integer"}
_NUMBER: Shape = {"type": "number"}
_STRING_OR_NULL: Shape = {"type": ["string", "null"]}


def _object(properties: Shape, *optional: str, about: str = "") -> Shape:
    """An object that has all *properties*, except for those that are *optional*."""
    required = [name for name in properties if name not in optional]
    description = {"description": about} if about else {}
    shape = {"type": "object", "required": required, "properties": properties}
    return description | shape


def _list(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def _or_null(shape: Shape) -> Shape:
    return {"anyOf": [shape, {"type": "null"}]}


# What a whole completion and each chunk of a stream begin with.
_HEAD: Shape = {
    "id": _STRING,
    "object": {"const": "text_completion"},
    "created": _INTEGER | {"description": "Unix seconds."},
    "model": _STRING,
}
_ESTIMATED: Shape = {
    "const": True,
    "description": "Stands here if the gateway estimated a part of `usage`.",
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
    # OpenAPI 3.1 cannot describe a stream of events. This is one event as 3.2 describes
    # it, an object with the event's fields.
    # Source: https://spec.openapis.org/oas/v3.2.0.html (Server-Sent Event Streams)
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
            "index": _INTEGER
            | {"description": "The place of its prompt, times `n`, and its own."},
            "logprobs": _or_null(ref("Logprobs")),
            "finish_reason": _STRING_OR_NULL
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
                _INTEGER | {"description": "In characters, from the prompt's start."}
            ),
        },
        about="Parallel lists, with an entry for each token.",
    ),
    "Usage": _object(
        {
            "prompt_tokens": _INTEGER,
            "completion_tokens": _INTEGER,
            "total_tokens": _INTEGER,
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
            "usage": ref("Usage")
            | {"description": "What the provider counted before its error."},
            "called": _STRING | {"description": "What was not found there."},
        },
        "provider",
        "usage",
        "called",
        about="OpenAI's shape. It also ends a stream that was cut.",
    ),
    "ErrorDetail": _object(
        {
            "message": _STRING,
            "type": _STRING,
            "param": _STRING_OR_NULL
            | {"description": "Which part of the request is wrong."},
            "code": _STRING_OR_NULL,
            "attempts": _list(ref("Attempt")),
            "innererror": {"description": "Which filter of Azure's said no."},
            "metadata": {"description": "What a router's own provider answered."},
        },
        "attempts",
        "innererror",
        "metadata",
    ),
    "Attempt": _object(
        {
            "path": _STRING | {"description": "Where in the config it stands."},
            "provider": _STRING,
            "status": _INTEGER,
            "message": _STRING_OR_NULL,
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
