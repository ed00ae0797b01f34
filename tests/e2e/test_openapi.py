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


def test_responses_match_openapi_document(gunicorn: Server, script) -> None:
    """To what the document allows and to what it does not, on every path."""
    bounds = "--phases=examples,fuzzing", "--max-examples=20", "--seed=1"
    done = openapi.run(gunicorn.url, script(openapi.answer), *bounds)

    # It does not ask for the document, which it has.
    paths = len(gunicorn.get("/openapi.json").json()["paths"]) - 1
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {paths}\n" in done.stdout


def test_other_methods_match_openapi_document(gunicorn: Server, script) -> None:
    """Other headers too. One after the other, on the paths that have few."""
    paths = [f"--exclude-path={path}" for path in WIDE]
    bounds = "--phases=coverage", "--exclude-deprecated", "--seed=1"
    done = openapi.run(gunicorn.url, script(openapi.answer), *bounds, *paths)

    assert done.returncode == 0, done.stdout + done.stderr
