"""Checks of answers in addition to those of schemathesis.

schemathesis loads this module through SCHEMATHESIS_HOOKS.
"""

from typing import Any

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .openapi import only_words_refuse

# Headers of HTTP itself, which the server sets.
OF_THE_SERVER = {"connection", "content-length", "content-type", "date", "server"}
OF_THE_SERVER |= {"transfer-encoding"}

# Headers of the HTML page and its parts.
OF_THE_PAGE = {"cache-control", "content-security-policy", "etag", "referrer-policy"}
OF_THE_PAGE |= {"x-content-type-options"}


@schemathesis.check
def every_status_is_named(ctx: Any, response: Any, case: Any) -> None:
    """Also where the document allows any status, since a provider's status is kept."""
    answers = _answers(case)
    status = str(response.status_code)

    assert not answers or status in answers, f"{status} is not in the document"


@schemathesis.check
def every_header_is_described(ctx: Any, response: Any, case: Any) -> None:
    answer = _answers(case).get(str(response.status_code))
    if answer is None:
        return
    named = {name.lower() for name in answer.get("headers", {})}
    unnamed = {name.lower() for name in response.headers} - named - OF_THE_SERVER
    if case.operation.path.startswith("/docs"):
        unnamed -= OF_THE_PAGE

    assert not unnamed, f"not in the document: {sorted(unnamed)}"


@schemathesis.check
def fitting_data_acceptance(ctx: Any, response: Any, case: Any) -> Any:
    """schemathesis' own check, except for rules that no schema can express."""
    if not only_words_refuse(case.body):
        return positive_data_acceptance(ctx, response, case)


def _answers(case: Any) -> dict[str, Any]:
    """The answers of an operation, by status. Empty if there is no such operation."""
    document = case.operation.schema.raw_schema
    operations = document["paths"][case.operation.path]
    listed = operations.get(case.method.lower(), {}).get("responses", {})
    return {status: _resolved(document, answer) for status, answer in listed.items()}


def _resolved(document: Any, answer: Any) -> Any:
    _, _, name = answer.get("$ref", "").rpartition("/")
    return document["components"]["responses"][name] if name else answer
