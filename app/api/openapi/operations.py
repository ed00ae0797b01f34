"""What each route is for, by the endpoint that Flask knows it by."""

from collections.abc import Callable, Mapping
from typing import Any

from ...settings import Settings
from ..completions import PATHS
from . import examples, failures, headers
from .schemas import NAMELESS, REQUEST, Shape, ref

# Makes the operation of one path, in OpenAPI's form.
Operation = Callable[[str, Settings], Shape]

_STREAM = """\
A completion; if `stream` is true, in server-sent events. Comments (`: keep-alive`) keep
a silent stream alive. A stream that is whole ends with `data: [DONE]`. One that was cut
ends with one event whose data is an Error, and without `[DONE]`.
"""
_COMPLETE = """\
Answered by whichever provider the headers, the config or the key lead to. A failure
before the first event of a stream is a plain error with its own status.

`n` must not be above `best_of`, `stream` goes with a `best_of` of 1 at most, and
`stream_options` with `stream` alone; `echo` and `suffix` exclude each other. What a
provider has not is dropped and named, or refused: 400 with `unsupported_parameter`.
Parameters that are not listed travel on to providers that may know them. A number
with a fraction is no integer, be it 1.0.
"""


def _complete(path: str, settings: Settings) -> Shape:
    of_model, number = "{model}" in path, _spelling(path)
    schema = ref(NAMELESS if of_model else REQUEST)
    return {
        "operationId": f"createCompletion{number or ''}",
        "tags": ["completions"],
        "summary": "Complete a text" + (" (an older spelling)" if number else ""),
        "description": _COMPLETE,
        "deprecated": bool(number),
        "security": [{}, *({name: []} for name in headers.KEYS)],
        "parameters": [*headers.OF_COMPLETIONS, *([_MODEL] if of_model else [])],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "examples": examples.REQUESTS}
            },
        },
        "responses": {
            "200": _completed(),
            **(failures.refs(404) if of_model else {}),
            **failures.refs(*failures.statuses(), failures.OF_UPSTREAM),
        },
    }


def _spelling(path: str) -> int:
    """Which of the ways to write it *path* is, from 0."""
    return [template(rule) for rule in PATHS].index(path)


def template(rule: str) -> str:
    """A route of Flask's as a path of OpenAPI's."""
    return rule.replace("<path:", "{").replace("<", "{").replace(">", "}")


_MODEL: Shape = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The model, if the body has none. It may have slashes in it.",
    "schema": {"type": "string", "pattern": r"^[^/\n]+(/[^/\n]+)*$"},
    "example": "gpt-3.5-turbo-instruct",
}


def _completed() -> Shape:
    told = headers.SIGNED, headers.OF_WAY, headers.OF_OUTCOME, headers.OF_STREAM
    return {
        "description": _STREAM,
        "headers": headers.refs(*told, headers.PASSED_ON),
        "content": {
            "application/json": {
                "schema": ref("Completion"),
                "example": examples.COMPLETION,
            },
            "text/event-stream": {
                "schema": ref("Event"),
                "example": examples.STREAM,
            },
        },
    }


# Those that a request without a body can get.
_BODILESS = [status for status in failures.statuses() if status not in (413, 415)]


def _models(path: str, settings: Settings) -> Shape:
    told = headers.SIGNED, headers.OF_WAY, headers.PASSED_ON
    return {
        "operationId": "listModels",
        "tags": ["completions"],
        "summary": "The models of the chosen provider",
        "security": [{}, *({name: []} for name in headers.KEYS)],
        "parameters": [*headers.OF_MODELS],
        "responses": {
            "200": _answer("Its own list.", "application/json", ref("Models"), *told),
            **failures.refs(*_BODILESS, failures.OF_UPSTREAM),
        },
    }


def _hello(path: str, settings: Settings) -> Shape:
    return _plain("hello", "What this is", {"200": _answer("A line.", "text/plain")})


def _alive(path: str, settings: Settings) -> Shape:
    alive = _answer("It is.", "application/json", ref("Health"))
    return _plain("isAlive", "Whether this process is alive", {"200": alive})


def _ready(path: str, settings: Settings) -> Shape:
    ready = _answer("They can.", "application/json", ref("Health"))
    loading = "The engine is not loaded, or missing; or the process has to end."
    unready = _answer(loading, "application/json", ref("Health"))
    answers = {"200": ready, "503": unready}
    return _plain("isReady", "Whether requests can be served", answers)


def _metrics(path: str, settings: Settings) -> Shape:
    counted = _answer("Prometheus' text format.", "text/plain")
    answers = {"200": counted, **failures.refs(401, 404)}
    wanted: list[Shape] = [{"metrics": []}] if settings.metrics_token else []
    about = "What is counted, for Prometheus"
    return _plain("getMetrics", about, answers) | {"security": wanted}


def _document(path: str, settings: Settings) -> Shape:
    this = _answer("OpenAPI 3.1.", "application/json", {"type": "object"})
    return _plain("getDocument", "This document", {"200": this})


def _page(path: str, settings: Settings) -> Shape:
    page = _answer("Swagger UI.", "text/html")
    return _plain("getPage", "This document, to read and to try", {"200": page})


def _asset(path: str, settings: Settings) -> Shape:
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "example": "start.js",
    }
    contents: Shape = {
        kind: {} for kind in ("text/javascript", "text/css", "image/png")
    }
    headed: Shape = {"headers": headers.refs(headers.SIGNED)}
    answers = {
        "200": {"description": "It.", **headed, "content": contents},
        "304": {"description": "As it was.", **headed},
        **failures.refs(404),
    }
    made = _plain("getAsset", "A part of that page", answers)
    return made | {"parameters": [*made["parameters"], name]}


def _plain(id: str, about: str, answers: Shape) -> Shape:
    """An operation of no completion."""
    return {
        "operationId": id,
        "tags": ["operation"],
        "summary": about,
        "parameters": [*headers.OF_ANYTHING],
        "responses": {**answers, **failures.refs(400, 405, 500)},
    }


def _answer(about: str, kind: str, schema: Shape | None = None, *told: Shape) -> Shape:
    return {
        "description": about,
        "headers": headers.refs(*(told or (headers.SIGNED,))),
        "content": {kind: {"schema": schema or {"type": "string"}}},
    }


OPERATIONS: Mapping[str, Operation] = {
    "completions.complete": _complete,
    "models.models": _models,
    "health.hello": _hello,
    "health.alive": _alive,
    "health.ready": _ready,
    "metrics.scrape": _metrics,
    "docs.document": _document,
    "docs.page": _page,
    "docs.asset": _asset,
}

TAGS: list[dict[str, Any]] = [
    {"name": "completions", "description": "The endpoint."},
    {"name": "operation", "description": "For those who run it."},
]
