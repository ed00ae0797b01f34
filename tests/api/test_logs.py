"""The log line of each request."""

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from app.observability import logs
from tests.conftest import Caller
from tests.upstream import whole

logger = logging.getLogger("lastword")


class Written:
    """The log of the gateway."""

    def __init__(self, out: StringIO) -> None:
        self._out = out

    def lines(self, caller: Caller) -> list[str]:
        """The log lines of the requests of *caller*."""
        caller.app.extensions["lastword"].close()
        return self._out.getvalue().splitlines()

    def request(self, caller: Caller) -> dict[str, Any]:
        """The one line of a request, as JSON."""
        records = [json.loads(line) for line in self.lines(caller)]
        (request,) = [line for line in records if line["event"] == "request"]
        return request


@pytest.fixture(params=["json"])
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    before = logger.handlers[:], logger.level, logger.propagate
    logs.configure(request.param)
    out = StringIO()
    (handler,) = logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(out)
    yield Written(out)
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_request_is_one_json_line(call, upstream, written: Written) -> None:
    caller = call(upstream)
    caller.complete(headers={"x-portkey-trace-id": "t-1"}, model="gpt-x")
    record = written.request(caller)

    assert record["trace_id"] == "t-1" and record["level"] == "info"
    assert record["status"] == 200 and record["end"] == "whole"
    assert record["provider"] == "openai" and record["model"] == "gpt-x"
    assert record["prompt_tokens"] == 1 and record["completion_tokens"] == 2
    assert record["took_ms"] >= record["first_ms"] > 0
    (attempt,) = record["attempts"]
    assert attempt.startswith("config 200 ")
    assert "prompt" not in record and "error" not in record


def test_failure_line_has_reason(call, script, written: Written) -> None:
    caller = call(script(whole({"error": {"message": "no", "code": "odd"}}, 400)))
    caller.complete()
    record = written.request(caller)

    assert (
        record["status"] == 400
        and record["end"] == "failed"
        and record["error"] == "odd"
    )


def test_prompt_is_logged_on_request_only(call, upstream, written: Written) -> None:
    caller = call(upstream, log_prompts=True)
    key = "sk-proj-0123456789abcdef"
    caller.complete(prompt=f"Use {key} and Bearer abc.def to say " + "x" * 500)
    record = written.request(caller)

    assert record["prompt"].startswith("Use [redacted] and Bearer [redacted] to say xx")
    assert len(record["prompt"]) == 200 and key not in json.dumps(record)


def test_request_log_can_be_disabled(call, upstream, written: Written) -> None:
    caller = call(upstream, log_requests=False)
    caller.complete()

    assert written.lines(caller) == []


@pytest.mark.parametrize("written", ["console"], indirect=True)
def test_console_format_is_readable(call, upstream, written: Written) -> None:
    caller = call(upstream)
    caller.complete(model="a model\nof two lines")
    (line,) = written.lines(caller)

    assert " INFO    request " in line and " status=200 " in line
    assert r"model='a model\nof two lines'" in line


def test_non_text_prompts_are_logged(written: Written, caller) -> None:
    logger.info("odd", extra={"half": "a\ud800", "long": 2**70, 5: "five"})
    (line,) = written.lines(caller)
    record = json.loads(line)

    assert record["half"] == "a\ud800" and record["long"] == 2**70


def test_exception_is_one_line(written: Written, call, upstream) -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("it failed", extra={"size": 3})
    (line,) = written.lines(call(upstream))
    record = json.loads(line)

    assert record["event"] == "it failed" and record["size"] == 3
    assert "ValueError: odd" in record["traceback"]


def test_long_texts_are_cut(call, script, written: Written) -> None:
    """Names that callers choose: models, aliases, and paths of targets."""
    upstream = script(whole({"error": {"message": "m", "code": "c" * 9000}}, 500))
    target = {
        "provider": "openai",
        "api_key": "k",
        "custom_host": upstream.url,
        "model_aliases": {"m": {"model": "a" * 2500}},
    }
    config: dict[str, Any] = {"strategy": {"mode": "fallback"}, "targets": [target] * 9}
    for _ in range(14):
        config = {"strategy": {"mode": "fallback"}, "targets": [config]}
    caller = call(upstream)
    caller.headers = {"x-portkey-config": json.dumps(config)}
    assert caller.complete(user="u" * 9000).status_code == 500

    assert len(json.dumps(written.request(caller))) < 9000
