"""schemathesis, which knows the OpenAPI document only, finds no failure."""

import pytest

from tests.soak import openapi

from .server import Server

pytestmark = [
    pytest.mark.e2e,
    # The worker class makes no difference to the answers.
    pytest.mark.parametrize("gunicorn", ["gevent"], indirect=True),
]

# The phase that tries every header takes minutes; it is part of `make soak`.
WIDE = ("/v1/completions", "/v1/models")


def test_responses_match_openapi_document(gunicorn: Server, script) -> None:
    """For inputs that the document allows and for others, on every path."""
    bounds = "--phases=examples,fuzzing", "--max-examples=20", "--seed=1"
    done = openapi.run(gunicorn.url, script(openapi.answer), *bounds)

    # schemathesis does not request the document itself.
    paths = len(gunicorn.get("/openapi.json").json()["paths"]) - 1
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {paths}\n" in done.stdout


def test_other_methods_match_openapi_document(gunicorn: Server, script) -> None:
    """Other headers too, one by one, on the paths that have few."""
    paths = [f"--exclude-path={path}" for path in WIDE]
    bounds = "--phases=coverage", "--exclude-deprecated", "--seed=1"
    done = openapi.run(gunicorn.url, script(openapi.answer), *bounds, *paths)

    assert done.returncode == 0, done.stdout + done.stderr
