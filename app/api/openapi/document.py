"""Builds the whole document: paths, shared components and description."""

from collections.abc import Iterator
from typing import Any

from apispec import APISpec
from werkzeug.routing import Map, Rule

from ... import __version__
from ...settings import Settings
from ..completions import PATHS
from . import failures, headers, schemas
from .operations import OPERATIONS, TAGS, template

_ABOUT = """\
A gateway for the legacy completions endpoint: callers change a base URL, and nothing
else. Headers and configs are those of the Portkey gateway; requests, streams and errors
are those of OpenAI's endpoint.

Errors have one shape on every path, `{"error": {"message", "type", "param", "code"}}`,
also for paths and methods that do not exist (404, 405).

Pages of other origins may call where GATEWAY_CORS_ORIGINS names them; answers have the
headers of CORS then.
"""
_METRICS_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "GATEWAY_METRICS_TOKEN.",
}


def document(routes: Map, settings: Settings) -> dict[str, Any]:
    """The OpenAPI document of an application with these *routes*."""
    spec = APISpec(
        title="lastword",
        version=__version__,
        # 3.1 has all of JSON Schema: `const`, null as a type, examples of whole bodies.
        openapi_version="3.1.0",
        plugins=[schemas.plugin()],
        info={"description": _ABOUT, "license": {"name": "MIT", "identifier": "MIT"}},
        tags=TAGS,
    )
    schemas.describe(spec, settings)
    headers.describe(spec)
    failures.describe(spec)
    if settings.metrics_token:
        spec.components.security_scheme("metrics", _METRICS_TOKEN)

    def order(rule: Rule) -> tuple[int, int]:
        """The position in OPERATIONS, then older spellings of the endpoint last."""
        spelling = PATHS.index(rule.rule) if rule.rule in PATHS else 0
        return [*OPERATIONS].index(rule.endpoint), spelling

    # Routes that have no operation, such as the console's, are left out.
    rules = (rule for rule in routes.iter_rules() if rule.endpoint in OPERATIONS)
    for rule in sorted(rules, key=order):
        path = template(rule.rule)
        operation = OPERATIONS[rule.endpoint](path, settings)
        spec.path(path, operations={method: operation for method in methods(rule)})
    return spec.to_dict()


def methods(rule: Rule) -> Iterator[str]:
    """The methods of a route but for HEAD and OPTIONS, which Flask adds."""
    return (method.lower() for method in (rule.methods or set()) - {"HEAD", "OPTIONS"})
