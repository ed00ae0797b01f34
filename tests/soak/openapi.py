"""schemathesis against a running gateway, with valid and invalid inputs.

    python -m tests.soak.openapi --examples 200 --seed 1

Each input goes to an upstream of our own, which answers as OpenAI would.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from app.api.request.schemas import CompletionSchema
from app.core.completion import Logprobs
from app.core.request import CompletionRequest
from app.errors import InvalidRequest
from tests.e2e.server import Server
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Upstream,
    completion,
    data,
    frame,
    stream,
    whole,
)

ROOT = Path(__file__).parent.parent.parent


def answer(request: ReceivedRequest) -> Answer:
    """Roughly the answer of OpenAI to *request*."""
    if request.method == "GET":
        return whole({"object": "list", "data": [{"id": "m", "object": "model"}]})
    choices = [*_choices(request.json)]
    if request.json.get("stream"):
        return stream(*(data(frame(choices=[choice])) for choice in choices), DONE)
    return whole(completion(choices=choices))


def _choices(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The choices for each prompt, *n* times, with logprobs if requested."""
    request = CompletionRequest(body["model"], body["prompt"], body)
    for i, prompt in enumerate(request.prompts * int(body.get("n") or 1)):
        tokens = [*map(str, prompt or ())] * request.echo + [" there"]
        scores = None if request.logprobs is None else _scores(tokens)
        ended = {"index": i, "logprobs": scores, "finish_reason": "stop"}
        yield {"text": "".join(tokens)} | ended


def _scores(tokens: list[str]) -> dict[str, Any]:
    return Logprobs(
        tokens, [-0.5] * len(tokens), [{}] * len(tokens), [0] * len(tokens)
    ).to_body()


def route_headers(upstream: Upstream) -> dict[str, str]:
    """Headers that lead to *upstream*, whichever others are sent.

    The config takes precedence for the provider, and the header for the host.
    """
    # OpenAI itself takes less than the document allows for all targets together.
    config = {"provider": "vllm", "api_key": "sk-1", "custom_host": upstream.url}
    return {
        "x-portkey-config": json.dumps(config),
        "x-portkey-custom-host": upstream.url,
    }


def only_words_refuse(body: Any) -> bool:
    """Whether a schema cannot express the refusal: fields that exclude each other, and
    1.0 for an integer.
    """
    if _has_fractions(body):
        return True
    try:
        # Values of the wrong type cannot be checked.
        with suppress(TypeError, AttributeError):
            CompletionSchema().check_combinations(body)
    except InvalidRequest:
        return True
    return False


def _has_fractions(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_fractions, value.values()))
    if isinstance(value, list):
        return any(map(_has_fractions, value))
    return isinstance(value, float) and value.is_integer()


def run(url: str, upstream: Upstream, *options: str) -> CompletedProcess[str]:
    """Run schemathesis against the gateway at *url*; it returns 0 without failures."""
    headers = [
        f"--header={name}: {value}" for name, value in route_headers(upstream).items()
    ]
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    fixed = ["--generation-database=none", "--no-color"]
    # Replaced by our own check.
    fixed += ["--exclude-checks=positive_data_acceptance"]
    own = {"SCHEMATHESIS_HOOKS": "tests.soak.openapi_checks", "PYTHONPATH": str(ROOT)}
    # It writes its findings to the working folder.
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [*command, *fixed, *headers, *options],
            cwd=folder,
            env=os.environ | own,
            capture_output=True,
            text=True,
        )


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.soak.openapi")
    options.add_argument("--examples", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    args = options.parse_args(argv)
    upstream = Upstream([answer])
    server = Server(GATEWAY_LOG_REQUESTS="0", WEB_CONCURRENCY="1")
    bounds = f"--max-examples={args.examples}", f"--seed={args.seed}"
    phases = "--phases=examples,coverage,fuzzing"
    process = run(server.url, upstream, phases, "--continue-on-failure", *bounds)
    server.stop()
    upstream.stop()
    print(process.stdout, process.stderr)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
