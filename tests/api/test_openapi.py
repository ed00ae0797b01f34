"""The OpenAPI document, compared with the code; and its HTML page."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limited
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import create_app, errors
from app.api.config import schema
from app.api.config.rules import KINDS
from app.api.openapi import examples
from app.api.request import schemas
from app.core.completion import Choice, Logprobs, Usage
from app.errors import GatewayError, InvalidRequest, InvalidRoute
from app.gateway.retries import Attempt
from app.providers import PROVIDERS
from app.settings import Settings
from tests.conftest import Caller, events
from tests.soak.openapi import only_words_refuse
from tests.upstream import (
    DONE,
    Upstream,
    completion,
    cut_stream,
    data,
    frame,
    stream,
    whole,
)

from .test_schemas import BODIES

API = Path(schemas.__file__).parent.parent
Document = dict[str, Any]
Shape = Callable[[str], Draft202012Validator]
SETTINGS = Settings(metrics_token="a token of the tests")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """The document as the gateway serves it."""
    instance = str(tmp_path_factory.mktemp("instance"))
    app = create_app(replace(SETTINGS, instance=instance, ledger=False))
    try:
        return app.test_client().get("/openapi.json").get_json()
    finally:
        Caller(app).leave()


@pytest.fixture(scope="module")
def shape(document: Document) -> Shape:
    """The schema of that name."""

    def make(name: str) -> Draft202012Validator:
        reference = {"$ref": f"#/components/schemas/{name}"}
        return Draft202012Validator(reference | {"components": document["components"]})

    return make


def test_document_is_valid(document: Document) -> None:
    assert document["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


# Blueprints with pages for people, which are not part of the API.
FOR_PEOPLE = {"console"}


def test_document_has_all_served_paths(call, upstream: Upstream) -> None:
    caller = call(upstream)
    document = caller.get("/openapi.json").get_json()
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in caller.app.url_map.iter_rules()
        if rule.endpoint.partition(".")[0] not in FOR_PEOPLE
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert served == {
        (path, method.upper())
        for path, operations in document["paths"].items()
        for method in operations
    }


def test_disabled_endpoints_are_not_listed(call, upstream: Upstream) -> None:
    document = call(upstream, metrics=False).get("/openapi.json").get_json()

    assert "/metrics" not in document["paths"]


# Portkey's headers, our own, and related ones.
OURS = re.compile(r"x-(portkey|lastword|should|request)-[a-z-]*[a-z]|x-api-key|api-key")


def named_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and OURS.fullmatch(str(node.value).lower()):
            yield str(node.value).lower()


def test_document_has_all_headers_of_the_code(document: Document) -> None:
    files = [path for path in API.rglob("*.py") if path.parent.name != "openapi"]
    declared = {name for path in files for name in named_in(path)}
    declared |= {
        name.lower()
        for provider in PROVIDERS.values()
        for setting in provider.settings
        for name in setting.headers
    }
    parts = document["components"]
    described = {name.lower() for name in (*parts["parameters"], *parts["headers"])}
    described |= {s.get("name", "") for s in parts["securitySchemes"].values()}

    assert declared - described == set()
    assert {name for name in described if OURS.fullmatch(name)} - declared == set()


FALLBACK = {
    "strategy": {"mode": "fallback"},
    "targets": [{"provider": "cohere"}, {"provider": "openai"}],
    "model_aliases": {"m": {"model": "gpt-4o"}},
    "cache": {"mode": "simple"},
}


def test_document_has_all_answer_headers(document: Document, call, script) -> None:
    """Also those of failed attempts and of a fallback."""
    upstream = script(whole({}, 503), whole(completion()))
    caller = call(upstream, default_max_tokens=100)
    caller.headers["x-portkey-config"] = json.dumps(FALLBACK)
    answers = [caller.complete(seed=1, user="u") for _ in range(3)]
    sent = {name.lower() for answer in answers for name, _ in answer.headers}

    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert {"age", "x-lastword-attempts", "x-lastword-model-alias"} <= sent
    assert sent - {"content-type", "content-length"} <= {
        name.lower() for name in document["components"]["headers"]
    }


def tree(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


ERRORS = [error for error in tree() if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_document_statuses_match_errors(
    document: Document, error: type[GatewayError]
) -> None:
    path = "/metrics" if issubclass(error, errors.NotFound) else "/v1/completions"
    (operation,) = document["paths"][path].values()

    assert error is errors.CallerLeft or str(error.status) in operation["responses"]


def test_errors_match_their_schema(shape) -> None:
    plain = GatewayError("no", param="n", code="c")
    plain.attempts = [Attempt("config.targets[0]", "openai", 503, 12, None).to_body()]
    upstream = errors.UpstreamTimeout("late")
    upstream.provider = "openai"
    route = InvalidRoute("no", legacy="No", errors=["path: , message: no"])

    for error in (plain, upstream, route, errors.Busy()):
        shape("Error").validate(error.to_body())
    shape("RouteError").validate(route.to_body())
    assert not shape("RouteError").is_valid(plain.to_body())


def test_completions_match_their_schema(document: Document, shape) -> None:
    scores = Logprobs(["a"], [-0.5], [{"a": -0.5}], [0])
    choice = Choice("a", 0, scores, "stop").to_body()
    usage = Usage(1, 2, reasoning_tokens=1, cached_tokens=1).to_body()
    shapes = document["components"]["schemas"]

    shape("Choice").validate(choice)
    shape("Usage").validate(usage)
    shape("Completion").validate(completion() | {"choices": [choice], "usage": usage})
    assert set(choice) == set(shapes["Choice"]["properties"])
    assert set(usage) == set(shapes["Usage"]["properties"])
    assert set(scores.to_body()) == set(shapes["Logprobs"]["properties"])


def test_events_match_their_schema(shape, call, script) -> None:
    pieces = data(frame("Hel")), data(frame("lo", "stop")), DONE
    upstream = script(stream(*pieces), cut_stream(*pieces[:1]))
    *chunks, end = events(call(upstream).complete(stream=True))
    first, error = events(call(upstream).complete(stream=True))

    for chunk in (*chunks, first):
        shape("CompletionChunk").validate(chunk)
    shape("Error").validate(error)
    for text in (json.dumps(error), json.dumps(first), end):
        shape("Event").validate({"data": text})


def test_examples_match_their_schemas(document: Document, shape) -> None:
    operation = document["paths"]["/v1/completions"]["post"]
    (sent,) = operation["requestBody"]["content"].values()
    answer = operation["responses"]["200"]["content"]
    blocks = answer["text/event-stream"]["example"].split("\n\n")
    texts = [b.removeprefix("data: ") for b in blocks if b.startswith("data: ")]

    for example in sent["examples"].values():
        shape("CompletionRequest").validate(example["value"])
        schemas.validate(example["value"])
    shape("Completion").validate(answer["application/json"]["example"])
    shape("Config").validate(examples.CONFIG)
    for text in texts[:-1]:
        shape("CompletionChunk").validate(json.loads(text))
    assert texts[-1] == "[DONE]" and len(texts) == 3


def test_everything_has_a_description(document: Document) -> None:
    parts = document["components"]
    for name in ("CompletionRequest", "Config", "Strategy", "Retry", "Cache"):
        for key, field in parts["schemas"][name]["properties"].items():
            assert field.get("description"), f"{name}.{key}"
    for parameter in parts["parameters"].values():
        assert "example" not in parameter, "the page would send it"
    for described in (*parts["parameters"].values(), *parts["headers"].values()):
        assert described["description"]


@pytest.mark.parametrize("length", [None, 7])
def test_default_max_tokens_comes_from_settings(
    call, upstream: Upstream, length: int | None
) -> None:
    caller = call(upstream, default_max_tokens=length)
    shapes = caller.get("/openapi.json").get_json()["components"]["schemas"]
    field = shapes["CompletionRequest"]["properties"]["max_tokens"]

    assert field.get("default") == length


# Schema and validation agree

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def is_accepted(body: Document) -> bool:
    try:
        schemas.validate(body)
    except InvalidRequest:
        return False
    return True


@limited(max_examples=200, suppress_health_check=SLOW)
@given(BODIES)
def test_schema_allows_accepted_bodies(shape: Shape, body: Document) -> None:
    if not only_words_refuse(body):
        assert shape("CompletionRequest").is_valid(body) == is_accepted(body)


BODY: Document = {
    "model": "m",
    "prompt": ["a"],
    "best_of": None,
    "echo": False,
    "frequency_penalty": 1,
    "logit_bias": {"50256": -100},
    "logprobs": 2,
    "max_tokens": 0,
    "n": 1,
    "presence_penalty": 0.5,
    "seed": 1,
    "stop": ["\n"],
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": None},
    "suffix": None,
    "temperature": 0.5,
    "top_p": 0.5,
    "user": "u",
}
# Values on both sides of each bound.
BOUNDS = [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, -3, -2, 2, 3, 20, 21, 128, 129]
BOUNDS += [100, 101, -100, -101, 1.5, 2.5, -2.5]
OTHER: list[Any] = [None, True, *BOUNDS, *([bound] for bound in BOUNDS), "", "x", "@x"]
OTHER += [
    [None],
    [True],
    [""],
    ["x"] * 4,
    ["x"] * 5,
    ["x", 1],
    [[1]],
    [[1], []],
    "openai",
]
OTHER += [[], {}, [{}], 10**13, *({"1": bound} for bound in BOUNDS), {"x": 1}]
OTHER += [{"mode": "single"}]


def changed(value: Any) -> Iterator[Any]:
    """*value* with one node replaced."""
    if isinstance(value, dict):
        yield value | {"unknown": 1}
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in changed(value[key]))
    if isinstance(value, list):
        yield from ([other] for item in value for other in changed(item))
    yield from OTHER


def test_schema_allows_accepted_fields(document: Document, shape: Shape) -> None:
    allowed = shape("CompletionRequest")
    fields = document["components"]["schemas"]["CompletionRequest"]["properties"]

    assert set(BODY) == set(fields)
    assert allowed.is_valid(BODY) and is_accepted(BODY)
    for body in changed(BODY):
        if isinstance(body, dict) and not only_words_refuse(body):
            assert allowed.is_valid(body) == is_accepted(body), body


# Every key that a config has, and at most one of each kind of object.
CONFIG: Document = {
    "strategy": {
        "mode": "conditional",
        "on_status_codes": [429],
        "conditions": [{"query": {}, "then": "a"}],
        "default": "a",
        "sticky": "metadata.user",
        "cb_config": {
            "failure_threshold": 3,
            "failure_threshold_percentage": 50,
            "minimum_requests": 10,
            "cooldown_interval": 30_000,
            "failure_status_codes": [500],
        },
    },
    "targets": [{"provider": "openai", "name": "a", "targets": []}],
    "name": "all",
    "provider": "@key",
    "virtual_key": "key",
    "api_key": "k",
    "custom_host": "http://localhost/v1",
    "weight": 0.5,
    "retry": {
        "attempts": 2,
        "on_status_codes": [429],
        "use_retry_after_header": True,
        "use_retry_after_headers": False,
    },
    "cache": {"mode": "simple", "max_age": 60, "scope": "config"},
    "request_timeout": 1000,
    "deadline_ms": 1000,
    "forward_headers": ["x-tenant"],
    "override_params": {"n": 1},
    "default_params": {"n": 1},
    "drop_params": ["user"],
    "model_aliases": {"m": {"model": "o"}},
    "strict_open_ai_compliance": True,
    "strict_params": False,
    "via": "chat",
    "bridge": {"system": "s", "template": "{prompt}"},
    "model_info": {"lacks": ["n"], "max_tokens": "mt", "token_floor": 3},
}


def test_schema_allows_accepted_configs(document: Document, shape: Shape) -> None:
    allowed = shape("Config")
    configs = [each for each in changed(CONFIG) if isinstance(each, dict)]

    assert {*CONFIG, *KINDS} == set(
        document["components"]["schemas"]["Config"]["properties"]
    )
    assert allowed.is_valid(CONFIG) and schema.complaints(CONFIG) == []
    for config in configs:
        accepted = schema.complaints(config) == []
        assert allowed.is_valid(config) == accepted, config


# The page


def test_apispec_is_loaded_on_demand(settings: Settings) -> None:
    code = (
        "import sys; from app import create_app; from app.settings import Settings; "
        f"own = Settings(instance={settings.instance!r}, ledger=False); "
        "app = create_app(own); loaded = 'apispec' in sys.modules; "
        "app.test_client().get('/openapi.json'); "
        "sys.exit(loaded or 'apispec' not in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_page_loads_nothing_from_elsewhere(caller: Caller) -> None:
    page = caller.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    text = page.get_data(as_text=True)
    parts = re.findall(r'(?:src|href)="([^"]+)"', text)

    assert page.mimetype == "text/html"
    assert "script-src 'self';" in policy and "unsafe" not in policy
    assert re.search(r"<style|\s(style|on\w+)=|<script>|//", text) is None
    assert len(parts) == 5
    assert all(caller.get(f"/{part}").status_code == 200 for part in parts)
    assert "//" not in caller.get("/docs/start.js").get_data(as_text=True)


def test_page_assets_are_cached(caller: Caller) -> None:
    first = caller.get("/docs/swagger-ui.css")
    caller.headers["If-None-Match"] = first.headers["ETag"]
    second = caller.get("/docs/swagger-ui.css")

    assert (first.status_code, first.mimetype) == (200, "text/css")
    assert (second.status_code, second.get_data()) == (304, b"")


@pytest.mark.parametrize("name", ["index.html", "..%2f__init__.py", "%2fetc%2fpasswd"])
def test_unknown_assets_are_404(caller: Caller, name: str) -> None:
    answer = caller.get(f"/docs/{name}")

    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] == "invalid_url"


def test_document_and_page_can_be_disabled(call, upstream: Upstream) -> None:
    caller = call(upstream, docs=False)
    paths = ("/openapi.json", "/docs", "/docs/start.js")

    assert [caller.get(path).status_code for path in paths] == [404] * 3
