"""Recorded answers of real providers, through the whole gateway.

What an independent reader makes of the same bytes has to reach the caller: the text,
the reason, the counts. The recordings are public data of other projects, and not part
of this repository; where they are not there, these tests are skipped.

    python -m tests.providers.test_real_recordings

prints a table of all of them.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.upstream import Answer, Upstream, chunk, head, whole

from . import gateway_call
from .gateway_call import Received
from .independent_reader import Reading, read

_BESIDE = Path(__file__).parents[3] / "shared" / "wire" / "real"
FOLDER = Path(os.environ.get("REAL_RECORDINGS", _BESIDE))
INDEX = FOLDER / "INDEX.json"
RECORDINGS = json.loads(INDEX.read_text()) if INDEX.exists() else []

SUCCESSES = [each for each in RECORDINGS if each["status"] == 200]
ERRORS = [each for each in RECORDINGS if each["status"] != 200]

# Their last event is an error.
FAILED = ("openrouter-stream-error-after-length.sse",)
# Refused by a filter of the provider before anything was generated.
BLOCKED = ("vertex-model-armor-prompt.json",)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with gateway_call.running_app(tmp_path_factory.mktemp("instance")) as app:
        yield app


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream([whole({})])
    yield upstream
    upstream.stop()


def replay(app: Flask, upstream: Upstream, recording: dict[str, Any]) -> Received:
    """The answer of a gateway whose upstream sends the recording, in small pieces."""
    upstream.answers = [answer(recording)]
    via = {"via": recording["via"]} if recording["via"] else {}
    body = {"model": recording["model"], "max_tokens": 2000} | recording["params"]
    body |= {"stream": True} if recording["stream"] else {}
    if recording["stream"]:
        body["stream_options"] = {"include_usage": True}
    config = via | recording["config"]
    with gateway_call.ask(
        app, upstream, recording["provider"], config, **body
    ) as response:
        return Received(response, body.get("n", 1))


def answer(recording: dict[str, Any]) -> Answer:
    recorded = (FOLDER / recording["file"]).read_bytes()
    typed = f"Content-Type: {recording['content_type']}"
    opening = head(recording["status"], typed, "Transfer-Encoding: chunked")
    pieces = [chunk(recorded[i : i + 100]) for i in range(0, len(recorded), 100)]
    return [opening, *pieces, b"0\r\n\r\n"]


def expected(recording: dict[str, Any]) -> Reading:
    return read((FOLDER / recording["file"]).read_bytes(), recording["file"])


def by_file(recordings: list[dict[str, Any]]) -> Any:
    # One that is skipped, by name, where there are none.
    absent = pytest.param({}, id="none", marks=pytest.mark.skip("no recordings here"))
    named = [pytest.param(each, id=each["file"]) for each in recordings]
    return pytest.mark.parametrize("recording", named or [absent])


@by_file([each for each in SUCCESSES if each["file"] not in (*FAILED, *BLOCKED)])
def test_recording_is_read_as_it_is(
    app: Flask, upstream: Upstream, recording: dict[str, Any]
) -> None:
    received, reading = replay(app, upstream, recording), expected(recording)

    received.check_whole([reading.texts[i] for i in sorted(reading.texts)])
    for i, reason in reading.reasons.items():
        assert received.reasons[i] == [reason]
    usage = received.usage or {}
    if reading.prompt_tokens is not None:
        assert usage["prompt_tokens"] == reading.prompt_tokens
    if reading.completion_tokens is not None:
        assert usage["completion_tokens"] == reading.completion_tokens
    is_counted = None not in (reading.prompt_tokens, reading.completion_tokens)
    assert is_counted != received.is_estimated


@by_file([each for each in SUCCESSES if each["file"] in FAILED])
def test_recorded_failure_is_error(
    app: Flask, upstream: Upstream, recording: dict[str, Any]
) -> None:
    received, reading = replay(app, upstream, recording), expected(recording)

    assert received.error and "Token limit reached" in received.error["message"]
    assert not received.is_whole
    assert received.texts == [reading.texts[0]]


@by_file([each for each in SUCCESSES if each["file"] in BLOCKED])
def test_recorded_block_is_content_filter(
    app: Flask, upstream: Upstream, recording: dict[str, Any]
) -> None:
    received = replay(app, upstream, recording)

    assert received.texts == [""] and received.reasons == [["content_filter"]]


@by_file(ERRORS)
def test_recorded_error_keeps_status_and_message(
    app: Flask, upstream: Upstream, recording: dict[str, Any]
) -> None:
    received = replay(app, upstream, recording)

    assert received.status == recording["status"] and received.error
    recorded = json.loads((FOLDER / recording["file"]).read_bytes())
    details = recorded.get("error", recorded)
    assert details["message"] in received.error["message"]


def print_table() -> None:
    """A row for each recording: what was read, and what reached the caller."""
    upstream = Upstream([whole({})])
    with tempfile.TemporaryDirectory() as folder:
        with gateway_call.running_app(Path(folder)) as app:
            print("| recording | text | reason | usage | as read independently |")
            print("|---|---|---|---|---|")
            for recording in RECORDINGS:
                print(_row(recording, replay(app, upstream, recording)))
    upstream.stop()


def _row(recording: dict[str, Any], received: Received) -> str:
    error = (received.error or {}).get("message", "")
    usage = received.usage or {}
    counts = (
        f"{usage.get('prompt_tokens', '-')} + {usage.get('completion_tokens', '-')}"
    )
    counts += " (estimated)" if received.is_estimated else ""
    verdict = f"error {received.status}: {error[:40]}" if received.error else "yes"
    if recording["status"] == 200 and not received.error:
        reading = expected(recording)
        texts = [reading.texts[i] for i in sorted(reading.texts)]
        verdict = "yes" if texts in (received.texts, []) else "NO"
    texts = ", ".join(f"{len(text)} characters" for text in received.texts)
    reasons = ", ".join(reason for each in received.reasons for reason in each)
    cells = (recording["file"], texts, reasons or "-", counts, verdict)
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    if not RECORDINGS:
        sys.exit(f"no recordings in {FOLDER}")
    print_table()
