"""The operations of the document, by the names of Flask's endpoints."""

from collections.abc import Callable, Mapping
from typing import Any

from ...settings import Settings
from ..completions import PATHS
from . import examples, failures, headers
from .schemas import NAMELESS, REQUEST, Shape, ref

# Builds the OpenAPI operation of a path.
Operation = Callable[[str, Settings], Shape]

_STREAM = """\
A completion; if `stream` is true, in server-sent events. Comments (`: keep-alive`) keep
a silent stream alive. A stream that is whole ends with `data: [DONE]`. One that was cut
ends with one event whose data is an Error, and without `[DONE]`.
"""
_COMPLETIONS = """\
Answered by whichever provider the headers, the config or the key lead to. A failure
before the first event of a stream is a plain error with its own status.

`n` must not be above `best_of`, `stream` goes with a `best_of` of 1 at most, and
`stream_options` with `stream` alone; `echo` and `suffix` exclude each other. What a
provider has not is dropped and named, or refused: 400 with `unsupported_parameter`.
Parameters that are not listed travel on to providers that may know them. A number
with a fraction is no integer, be it 1.0.
"""


_MODEL: Shape = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The model, if the body has none. It may have slashes in it.",
    "schema": {"type": "string", "pattern": r"^[^/\n]+(/[^/\n]+)*$"},
    "example": "gpt-3.5-turbo-instruct",
}
_ASSET_NAME: Shape = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "example": "start.js",
}


def template(rule: str) -> str:
    """A Flask rule as an OpenAPI path."""
    # OpenAPI has no parameters with slashes; what `<path:` allows, _MODEL describes.
    return rule.replace("<path:", "{").replace("<", "{").replace(">", "}")


def completions_operation(path: str, settings: Settings) -> Shape:
    has_model = "{model}" in path
    # Operation ids have to be unique, and code generators make function names of them:
    # those of the older spellings end with a number.
    number = [template(rule) for rule in PATHS].index(path)
    schema = ref(NAMELESS if has_model else REQUEST)
    completion = {"schema": ref("Completion"), "example": examples.COMPLETION}
    stream = {"schema": ref("Event"), "example": examples.STREAM}
    return {
        "operationId": f"createCompletion{number or ''}",
        "tags": ["completions"],
        "summary": "Complete a text" + (" (an older spelling)" if number else ""),
        "description": _COMPLETIONS,
        "deprecated": bool(number),
        # One of these; the empty one stands for no key at all.
        "security": [{}, *({name: []} for name in headers.SECURITY_SCHEMES)],
        "parameters": [
            *headers.COMPLETIONS_PARAMETERS,
            *([_MODEL] if has_model else []),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "examples": examples.REQUESTS}
            },
        },
        "responses": {
            "200": {
                "description": _STREAM,
                "headers": headers.refs(
                    headers.IDENTIFYING,
                    headers.TARGET,
                    headers.OUTCOME,
                    headers.STREAM,
                    headers.UPSTREAM,
                ),
                "content": {
                    "application/json": completion,
                    "text/event-stream": stream,
                },
            },
            **(failures.refs(404) if has_model else {}),
            **failures.refs(*failures.statuses(), failures.UPSTREAM_STATUS),
        },
    }


def models_operation(path: str, settings: Settings) -> Shape:
    shown = headers.IDENTIFYING, headers.TARGET, headers.UPSTREAM
    # A GET has no body that could be too large (413) or compressed (415).
    statuses = [status for status in failures.statuses() if status not in (413, 415)]
    return {
        "operationId": "listModels",
        "tags": ["completions"],
        "summary": "The models of the chosen provider",
        "security": [{}, *({name: []} for name in headers.SECURITY_SCHEMES)],
        "parameters": [*headers.MODELS_PARAMETERS],
        "responses": {
            "200": _answer("Its own list.", "application/json", ref("Models"), *shown),
            **failures.refs(*statuses, failures.UPSTREAM_STATUS),
        },
    }


def metrics_operation(path: str, settings: Settings) -> Shape:
    metrics = _answer("Prometheus' text format.", "text/plain")
    answers = {"200": metrics, **failures.refs(401, 404)}
    security: list[Shape] = [{"metrics": []}] if settings.metrics_token else []
    summary = "What is counted, for Prometheus"
    return _operation("getMetrics", summary, answers) | {"security": security}


def asset_operation(path: str, settings: Settings) -> Shape:
    types = ("text/javascript", "text/css", "image/png")
    shown = headers.refs(headers.IDENTIFYING)
    answers = {
        "200": {
            "description": "It.",
            "headers": shown,
            "content": {type: {} for type in types},
        },
        "304": {"description": "As it was.", "headers": shown},
        **failures.refs(404),
    }
    operation = _operation("getAsset", "A part of that page", answers)
    return operation | {"parameters": [*operation["parameters"], _ASSET_NAME]}


def _operation(id: str, summary: str, answers: Shape) -> Shape:
    """An operation for operators of the gateway."""
    return {
        "operationId": id,
        "tags": ["operation"],
        "summary": summary,
        "parameters": [*headers.PARAMETERS],
        "responses": {**answers, **failures.refs(400, 405, 500)},
    }


def _answer(
    description: str, mimetype: str, schema: Shape | None = None, *shown: Shape
) -> Shape:
    return {
        "description": description,
        "headers": headers.refs(*(shown or (headers.IDENTIFYING,))),
        "content": {mimetype: {"schema": schema or {"type": "string"}}},
    }


def _health(description: str) -> Shape:
    return _answer(description, "application/json", ref("Health"))


_UNREADY = "The engine is not loaded, or missing; or the process has to end."

# By the names of Flask's endpoints, in the order of the document.
OPERATIONS: Mapping[str, Operation] = {
    "completions.complete": completions_operation,
    "models.models": models_operation,
    "health.hello": lambda *_: _operation(
        "hello", "What this is", {"200": _answer("A line.", "text/plain")}
    ),
    "health.alive": lambda *_: _operation(
        "isAlive", "Whether this process is alive", {"200": _health("It is.")}
    ),
    "health.ready": lambda *_: _operation(
        "isReady",
        "Whether requests can be served",
        {"200": _health("They can."), "503": _health(_UNREADY)},
    ),
    "metrics.scrape": metrics_operation,
    "docs.document": lambda *_: _operation(
        "getDocument",
        "This document",
        {"200": _answer("OpenAPI 3.1.", "application/json", {"type": "object"})},
    ),
    "docs.page": lambda *_: _operation(
        "getPage",
        "This document, to read and to try",
        {"200": _answer("Swagger UI.", "text/html")},
    ),
    "docs.asset": asset_operation,
}

TAGS: list[dict[str, Any]] = [
    {"name": "completions", "description": "The endpoint."},
    {"name": "operation", "description": "For those who run it."},
]
