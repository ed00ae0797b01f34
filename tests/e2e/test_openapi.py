"""schemathesis, which knows the OpenAPI document alone, finds nothing in a gateway."""

import pytest

from tests.soak import openapi

from .server import Server

pytestmark = [
    pytest.mark.e2e,
    # Which kind of worker it is makes no difference to what is answered.
    pytest.mark.parametrize("gunicorn", ["gevent"], indirect=True),
]

# Those whose every header is tried in turn take minutes, in `make soak`.
WIDE = ("/v1/completions", "/v1/models")


def test_what_the_document_allows_is_answered_as_it_says(
    gunicorn: Server, script
) -> None:
    """And so is what it does not allow, on every path."""
    bounds = "--phases=examples,fuzzing", "--max-examples=20", "--seed=1"
    found = openapi.run(gunicorn.url, script(openapi.answer), *bounds)

    # It does not ask for the document, which it has.
    paths = len(gunicorn.get("/openapi.json").json()["paths"]) - 1
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"Tested: {paths}\n" in found.stdout


def test_every_other_method_and_header_is_answered_as_it_says(
    gunicorn: Server, script
) -> None:
    """One after the other, where there are few."""
    paths = [f"--exclude-path={path}" for path in WIDE]
    bounds = "--phases=coverage", "--exclude-deprecated", "--seed=1"
    found = openapi.run(gunicorn.url, script(openapi.answer), *bounds, *paths)

    assert found.returncode == 0, found.stdout + found.stderr
