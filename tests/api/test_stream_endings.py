"""When an answer is whole, at the wire: native, by fill-in-the-middle, and by chat."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.conftest import Caller, events
from tests.upstream import (
    DONE,
    STREAM,
    Step,
    Upstream,
    chunk,
    close,
    closing_stream,
    completion,
    cut_stream,
    data,
    delta,
    frame,
    head,
    reply,
    reset,
    stream,
    wait_for,
    whole,
)

USAGE = {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ledger=True)


@dataclass(frozen=True)
class Mode:
    """One way to ask, and the pieces of its streams."""

    provider: str
    via: str
    piece: Callable[..., dict[str, Any]]
    params: Any = ()

    def __str__(self) -> str:
        return self.via

    def caller(self, call: Any, upstream: Upstream, **target: Any) -> Caller:
        caller: Caller = call(upstream)
        del caller.headers["x-portkey-provider"], caller.headers["Authorization"]
        config = {"provider": self.provider, "api_key": "k", "via": self.via} | target
        caller.headers["x-portkey-config"] = json.dumps(config)
        return caller

    def whole(self, texts: list[str], **changes: Any) -> dict[str, Any]:
        """A whole answer; *changes* are fields of each choice, None if absent."""
        answer = reply() if self.via == "chat" else completion()
        choices = []
        for index, text in enumerate(texts):
            choice = answer["choices"][0] | {"index": index} | changes
            if self.via == "chat":
                choice["message"] = {"role": "assistant", "content": text}
            else:
                choice["text"] = text
            choices.append({k: v for k, v in choice.items() if v is not Absent})
        return answer | {"choices": choices, "usage": USAGE}


class Absent:
    """Stands for a field that is left out."""


NATIVE = Mode("openai", "native", frame)
FIM = Mode("mistral-ai", "fim", delta, (("suffix", " end"),))
CHAT = Mode("openai", "chat", delta)
EVERY_WAY = pytest.mark.parametrize("mode", [NATIVE, FIM, CHAT], ids=str)
MANY_CHOICES = pytest.mark.parametrize("mode", [NATIVE, CHAT], ids=str)


def ask(mode: Mode, call: Any, upstream: Upstream, **body: Any) -> Any:
    params = dict(mode.params) | body
    return mode.caller(call, upstream).complete(**params)


def streamed(mode: Mode, call: Any, script: Any, *steps: Step, **body: Any) -> Any:
    upstream = script(stream(*steps))
    return events(ask(mode, call, upstream, stream=True, **body))


def counted(mode: Mode) -> bytes:
    return data(mode.piece() | {"choices": [], "usage": USAGE})


def check_whole(got: list[Any], *texts: str) -> list[str]:
    """The finish reasons of a stream of *texts*, each behind its text."""
    *frames, done = got
    assert done == "[DONE]"
    together = dict.fromkeys(range(len(texts)), "")
    reasons: dict[int, str] = {}
    for choice in (choice for f in frames for choice in f["choices"]):
        assert choice["index"] not in reasons
        together[choice["index"]] += choice["text"]
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    assert list(together.values()) == list(texts)
    return [reasons[index] for index in range(len(texts))]


def check_error(got: list[Any], message: str = "") -> None:
    assert "[DONE]" not in got
    assert message in got[-1]["error"]["message"]


# Choices that never came


def one_of_two(mode: Mode, *more: bytes) -> list[bytes]:
    return [data(mode.piece("a")), data(mode.piece("", "stop")), *more]


@MANY_CHOICES
@pytest.mark.parametrize("tail", [(), (DONE,)], ids=["end", "done"])
def test_choice_that_never_came_is_an_error(mode, call, script, tail) -> None:
    steps = one_of_two(mode, counted(mode), *tail)

    check_error(streamed(mode, call, script, *steps, n=2), "1 of 2 choices came")


@MANY_CHOICES
@pytest.mark.parametrize("by", [reset, close], ids=["reset", "close"])
def test_break_before_last_choice_is_an_error(mode, call, script, by) -> None:
    upstream = script(cut_stream(*one_of_two(mode), by=by))

    check_error(events(ask(mode, call, upstream, n=2, stream=True)), "broke off")


def test_prompt_that_was_never_answered_is_an_error(call, script) -> None:
    steps = one_of_two(NATIVE, data(frame("b", "stop", 1)), DONE)
    prompts = ["x", "y", "z"]
    got = streamed(NATIVE, call, script, *steps, prompt=prompts)

    check_error(got, "2 of 3 choices came")


def test_text_before_missing_choice_is_passed_on(call, script) -> None:
    """Also text that came with a finish reason."""
    steps = [data(frame("a")), data(frame("b", "stop")), DONE]
    *frames, _ = streamed(NATIVE, call, script, *steps, n=2)

    assert "".join(f["choices"][0]["text"] for f in frames) == "ab"


@MANY_CHOICES
@pytest.mark.parametrize("prompt", ["x", ["x", "y"]], ids=["n", "batch"])
def test_whole_answer_with_missing_choice_fails(mode, call, script, prompt) -> None:
    n = 4 if isinstance(prompt, str) else 2
    answer = mode.whole(["a"] * (3 if mode is NATIVE else 1))
    response = ask(mode, call, script(whole(answer)), prompt=prompt, n=n)

    assert response.status_code == 502
    came = "3 of 4" if mode is NATIVE else f"1 of {n}"
    assert f"{came} choices came" in response.json["error"]["message"]


@MANY_CHOICES
@pytest.mark.parametrize("index", [Absent, None, 0], ids=["absent", "null", "zero"])
def test_choices_without_index_are_counted_up(mode, call, script, index) -> None:
    answer = mode.whole(["a", "b", "c"], index=index)
    response = ask(mode, call, script(whole(answer)), n=3)

    assert [(c["index"], c["text"]) for c in response.json["choices"]] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]


def rows(caller: Caller) -> list[dict[str, Any]]:
    """The rows of the ledger, after all answers are sent."""
    caller.leave()
    file = Path(caller.app.extensions["lastword.settings"].instance) / "gateway.db"
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    entered = [dict(row) for row in connection.execute("SELECT * FROM requests")]
    connection.close()
    return entered


@MANY_CHOICES
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "whole"])
def test_missing_choice_is_charged_and_not_cached(mode, call, script, streams) -> None:
    bad = (
        stream(*one_of_two(mode, counted(mode), DONE))
        if streams
        else whole(mode.whole(["a"]))
    )
    good = mode.whole(["a", "b"])
    caller = mode.caller(call, script(bad, whole(good)), cache={"mode": "simple"})
    first = caller.complete(n=2, stream=streams)
    first.get_data()
    first.close()
    second = caller.complete(n=2)
    row, _ = rows(caller)

    assert second.headers["x-portkey-cache-status"] == "MISS"
    assert [c["text"] for c in second.json["choices"]] == ["a", "b"]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (4, 6)
    assert row["ended"] == ("cut" if streams else "failed")


# Text behind a finish reason


@EVERY_WAY
@pytest.mark.parametrize(
    "reasons",
    [
        ["stop"] * 3,
        ["stop", None, None],
        [None, "stop", None],
        ["length", None, "stop"],
    ],
    ids=str,
)
@pytest.mark.parametrize("tail", [(), (DONE,)], ids=["end", "done"])
def test_text_behind_finish_reason_is_delivered(
    mode, call, script, reasons, tail
) -> None:
    pieces = zip("abc", reasons, strict=True)
    steps = [data(mode.piece(text, reason)) for text, reason in pieces]

    assert check_whole(streamed(mode, call, script, *steps, *tail), "abc") == ["stop"]


@EVERY_WAY
def test_reason_with_first_empty_frame_loses_no_text(mode, call, script) -> None:
    steps = [data(mode.piece("", "stop")), data(mode.piece("a")), data(mode.piece("b"))]

    assert check_whole(streamed(mode, call, script, *steps, DONE), "ab") == ["stop"]


def google(text: str, reason: str | None = "STOP") -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}]}}
    candidate |= {"finishReason": reason} if reason else {}
    return data({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 1}})


@pytest.mark.parametrize("last", ["STOP", "MAX_TOKENS", "SAFETY"])
def test_google_stop_on_every_frame_loses_no_text(call, script, last) -> None:
    upstream = script(stream(google("a"), google("b"), google("c", last), DONE))
    caller = call(upstream)
    caller.headers["x-portkey-provider"] = "google"
    reasons = {"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}

    got = events(caller.complete(stream=True))
    assert check_whole(got, "abc") == [reasons[last]]


@EVERY_WAY
def test_reason_comes_between_text_and_usage(mode, call, script) -> None:
    steps = [counted(mode), data(mode.piece("a", "stop")), data(mode.piece("b"))]
    options = {"include_usage": True}
    got = streamed(mode, call, script, *steps, DONE, stream_options=options)
    *_, ending, last, _ = got

    assert check_whole(got, "ab") == ["stop"]
    assert ending["choices"][0]["finish_reason"] == "stop" and ending["usage"] is None
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 6


@EVERY_WAY
def test_text_with_reason_waits_for_no_event(mode, call, script) -> None:
    """It is held for a moment only, if nothing follows."""
    go_on = threading.Event()
    upstream = script(stream(data(mode.piece("a", "stop")), wait_for(go_on), DONE))
    response = ask(mode, call, upstream, stream=True)
    pieces = response.iter_encoded()
    began = time.monotonic()
    first = next(pieces)

    assert b'"a"' in first and b'"finish_reason":null' in first
    assert time.monotonic() - began < 5 and not go_on.is_set()
    go_on.set()
    assert b'"finish_reason":"stop"' in b"".join(pieces)


def test_stop_sequence_of_gateway_ends_once(call, script) -> None:
    """The gateway's own end goes out at once; what upstream says later is nothing."""
    steps = [data(delta("a END b", "length")), data(delta(" c", "length"))]
    caller = call(script(stream(*steps, DONE)))
    caller.headers["x-portkey-provider"] = "perplexity-ai"
    got = events(caller.complete(stream=True, stop=["END"]))

    assert check_whole(got, "a ") == ["stop"]


def test_caller_may_leave_with_last_reason(call, script) -> None:
    upstream = script(stream(data(frame("a")), data(frame("b", "stop")), DONE))
    caller = call(upstream)
    response = caller.complete(stream=True)
    for piece in response.iter_encoded():
        if b'"stop"' in piece:
            break
    response.close()
    (row,) = rows(caller)

    assert row["ended"] == "whole"


# Without any finish reason


@EVERY_WAY
@pytest.mark.parametrize("max_tokens, reason", [(6, "length"), (7, "stop")])
@pytest.mark.parametrize("value", [None, "", "absent"], ids=repr)
def test_counted_stream_is_whole_without_reason(
    mode, call, script, max_tokens, reason, value
) -> None:
    pieces = [mode.piece("a", value), mode.piece("b", value)]
    for piece in pieces:
        if value == "absent":
            del piece["choices"][0]["finish_reason"]
    steps = [*map(data, pieces), counted(mode), DONE]
    options = {"include_usage": True}
    got = streamed(
        mode, call, script, *steps, max_tokens=max_tokens, stream_options=options
    )

    assert check_whole(got, "ab") == [reason]
    assert got[-2]["usage"]["completion_tokens"] == 6


@EVERY_WAY
@pytest.mark.parametrize("framing", [stream, closing_stream], ids=["chunked", "close"])
def test_stream_that_only_ends_is_cut(mode, call, script, framing) -> None:
    upstream = script(framing(data(mode.piece("a")), counted(mode)))

    check_error(events(ask(mode, call, upstream, stream=True)))


@EVERY_WAY
@pytest.mark.parametrize("max_tokens, reason", [(6, "length"), (7, "stop")])
@pytest.mark.parametrize("value", ["", None, Absent], ids=["empty", "null", "absent"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "for a stream"])
def test_whole_answer_without_reason_is_judged_by_budget(
    mode, call, script, max_tokens, reason, value, streams
) -> None:
    answer = mode.whole(["ab"], finish_reason=value)
    upstream = script(whole(answer))
    response = ask(mode, call, upstream, max_tokens=max_tokens, stream=streams)
    if streams:
        assert check_whole(events(response), "ab") == [reason]
        return
    (choice,) = response.json["choices"]

    assert (choice["text"], choice["finish_reason"]) == ("ab", reason)


# Around the end


@EVERY_WAY
@pytest.mark.parametrize(
    "last",
    [
        b"data: [DONE] \n\n",
        b"data:  [DONE]\n\n",
        b"data:[DONE]\r\n\r\n",
        b"data: [DONE]",
    ],
    ids=repr,
)
def test_terminator_may_have_blanks(mode, call, script, last) -> None:
    steps = [data(mode.piece("a")), data(mode.piece("", "stop")), last]

    assert check_whole(streamed(mode, call, script, *steps), "a") == ["stop"]


def framed(body: bytes) -> dict[str, Any]:
    """*body* as a stream, in each framing of HTTP/1."""
    length = f"Content-Length: {len(body)}"
    return {
        "length": [head(200, STREAM, length), body],
        "chunks": [
            head(200, STREAM, "Transfer-Encoding: chunked") + chunk(body),
            b"0\r\n\r\n",
        ],
        "close": [head(200, STREAM, "Connection: close"), body, close],
    }


@EVERY_WAY
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"], ids=repr)
def test_last_event_needs_no_blank_line(mode, call, script, framing, end) -> None:
    body = data(mode.piece("a")) + data(mode.piece("b", "stop")).rstrip() + end
    upstream = script(framed(body)[framing])

    got = events(ask(mode, call, upstream, stream=True))
    assert check_whole(got, "ab") == ["stop"]


@EVERY_WAY
@pytest.mark.parametrize("end", [b"", b"\n"], ids=repr)
def test_lost_connection_completes_no_event(mode, call, script, end) -> None:
    body = data(mode.piece("a")) + data(mode.piece("b", "stop")).rstrip() + end
    first, last = framed(body)["chunks"]
    upstream = script([first, 0.05, close])

    check_error(events(ask(mode, call, upstream, stream=True)), "broke off")


@EVERY_WAY
def test_half_of_an_event_at_the_end_is_an_error(mode, call, script) -> None:
    body = data(mode.piece("a")) + data(mode.piece("b", "stop"))[:-20]
    upstream = script(framed(body)["length"])

    check_error(events(ask(mode, call, upstream, stream=True)))


@EVERY_WAY
@pytest.mark.parametrize("nothing", [b"data:\n\n", b"data: \n\n", b"data:  \n\n"])
def test_empty_events_mean_nothing(mode, call, script, nothing) -> None:
    steps = [data(mode.piece("a")), data(mode.piece("", "stop")), DONE]
    spread = [step for each in steps for step in (nothing, each)]

    assert check_whole(streamed(mode, call, script, *spread), "a") == ["stop"]


OLLAMA = [{"response": "a", "done": False}, {"response": "b", "done": True}]


@pytest.mark.parametrize("last", [b"", b"\n", b"\n[DONE]\n", b"\n\n \n"], ids=repr)
def test_json_lines_may_end_anyhow(call, script, last) -> None:
    body = b"\n".join(json.dumps(line).encode() for line in OLLAMA) + last
    lines = "Content-Type: application/x-ndjson"
    upstream = script([head(200, lines, f"Content-Length: {len(body)}"), body])
    caller = call(upstream)
    caller.headers["x-portkey-provider"] = "ollama"

    assert check_whole(events(caller.complete(stream=True)), "ab") == ["stop"]
