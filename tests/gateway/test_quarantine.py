"""Crashes of the embedded engine as callers see them: an engine that hangs up."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.errors import EngineEnded, EngineWithheld
from app.gateway.quarantine import Quarantine
from app.gateway.retries import Trace
from app.state.local_store import LocalCircuits, LocalFile
from tests.conftest import Caller, read_until
from tests.upstream import DONE, close, cut_stream, data, frame, head, stream, whole

HANGS_UP = [close]
HALF_A_HEAD = [b"HTTP/1.1 200 OK\r\nContent-", close]
HALF_AN_ANSWER = [head(200, "Content-Length: 100") + b'{"choices"', close]
LOADING = whole(
    {"error": {"message": "Loading model", "type": "unavailable_error"}}, 503
)
ANSWER = whole(
    {"choices": [{"text": "x", "index": 0, "finish_reason": "stop"}], "id": "x"}
)


def caller_of(call: Any, upstream: Any, **changes: Any) -> Caller:
    url = upstream.url.removesuffix("/v1")
    caller: Caller = call(upstream, engine=True, engine_url=url, **changes)
    caller.headers.clear()
    caller.headers["x-portkey-provider"] = "local"
    return caller


ENDS = {
    "before the head": HANGS_UP,
    "within the head": HALF_A_HEAD,
    "within the answer": HALF_AN_ANSWER,
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_ended_requests_are_not_sent_again(call, script, name, streaming) -> None:
    engine = script(ENDS[name])
    target = {"provider": "local", "retry": {"attempts": 5}}
    config = {"strategy": {"mode": "fallback"}, "targets": [target] * 3}
    caller = caller_of(call, engine)
    response = caller.complete(
        headers={"x-portkey-config": json.dumps(config)}, stream=streaming
    )

    assert response.status_code == 503
    assert response.json["error"]["code"] == "engine_ended"
    assert response.headers["x-should-retry"] == "false"
    assert len(engine.requests) == 1


def test_ended_batches_are_not_sent_again(call, script) -> None:
    """A batch is several parallel calls: each of them is sent at most once."""
    engine = script(HANGS_UP)
    caller = caller_of(call, engine)
    response = caller.complete(prompt=["a", "b", "c"], n=2)

    assert response.json["error"]["code"] == "engine_ended"
    bodies = [each.body for each in engine.requests]
    assert len(bodies) <= 6


def test_fallback_replaces_ended_engine(call, script) -> None:
    engine, other = script(HANGS_UP), script(ANSWER)
    targets = [
        {"provider": "local"},
        {"provider": "openai", "api_key": "k", "custom_host": other.url},
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    response = caller_of(call, engine).complete(
        headers={"x-portkey-config": json.dumps(config)}
    )

    assert response.status_code == 200
    assert (len(engine.requests), len(other.requests)) == (1, 1)


def test_loading_engine_is_awaited(call, script) -> None:
    engine = script(LOADING, whole({"status": "ok"}), ANSWER)
    response = caller_of(call, engine).complete()

    assert response.status_code == 200
    assert len(engine.requests) == 3


def test_two_ends_withhold_the_engine(call, script) -> None:
    engine = script(HANGS_UP)
    caller = caller_of(call, engine)
    assert [code(caller.complete()) for _ in "12"] == ["engine_ended"] * 2
    response = caller.complete()

    assert (response.status_code, code(response)) == (503, "engine_withheld")
    assert 0 < int(response.headers["retry-after"]) <= 120
    assert len(engine.requests) == 2
    other = caller_of(call, script(ANSWER))
    assert code(other.complete()) == "engine_withheld", "it holds for every process"


def code(response: Any) -> Any:
    return (response.json.get("error") or {}).get("code")


def test_broken_streams_do_not_withhold_engine(call, script) -> None:
    begun = data(frame("x"))
    engine = script(*[cut_stream(begun, begun)] * 3, stream(begun, DONE))
    caller = caller_of(call, engine)
    for _ in "123":
        assert b'"error"' in read_until(caller.complete(stream=True), b'"error"')

    assert caller.complete(stream=True).status_code == 200
    assert len(engine.requests) == 4


def test_engine_connections_are_not_reused(call, script) -> None:
    """On a reused one, a crash would look like the close of an idle connection."""
    engine = script(ANSWER)
    caller = caller_of(call, engine)
    for _ in "123":
        assert caller.complete().status_code == 200

    assert len({each.connection for each in engine.requests}) == 3


@pytest.mark.parametrize(
    "body, param",
    [
        ({"prompt": "a" * 300_000}, "prompt"),
        ({"prompt": ["a", "a" * 300_000]}, "prompt"),
        ({"prompt": [5] * 3000}, "prompt"),
        ({"prompt": "a", "suffix": "a" * 300_000}, "suffix"),
    ],
    ids=["text", "batch", "tokens", "suffix"],
)
def test_prompts_beyond_context_are_refused(call, script, body, param) -> None:
    engine = script(ANSWER)
    response = caller_of(call, engine).complete(**body)

    error = response.json["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert not engine.requests


def test_oversized_grammar_is_refused_early(call, script) -> None:
    engine = script(ANSWER)
    response = caller_of(call, engine).complete(grammar="root ::= " + "(" * 200_000)

    assert response.status_code == 400
    assert response.json["error"]["param"] == "grammar"
    assert not engine.requests


def test_unlisted_parameters_are_dropped(call, script) -> None:
    engine = script(ANSWER)
    response = caller_of(call, engine).complete(n_probs=49152, top_k=5)

    assert response.headers["x-lastword-dropped-params"] == "n_probs"
    assert engine.last.json == {"model": "m", "prompt": "Hi", "top_k": 5}


def test_withheld_callers_are_probed_later(tmp_path: Path) -> None:
    seconds = 1_800_000_000.0
    with closing(LocalFile(tmp_path / "limits.db")) as file:
        quarantine = Quarantine(LocalCircuits(file), lambda: seconds)

        def call_engine(caller: str, *, ends: bool = False) -> None:
            with quarantine.guarding(Trace(caller=caller)):
                if ends:
                    raise EngineEnded

        for _ in "12":
            with pytest.raises(EngineEnded):
                call_engine("key:a", ends=True)
        with pytest.raises(EngineWithheld) as refused:
            call_engine("key:a")
        call_engine("key:b")
        seconds += 121
        with pytest.raises(EngineEnded):
            call_engine("key:a", ends=True)
        with pytest.raises(EngineWithheld):
            call_engine("key:a")
        seconds += 121
        call_engine("key:a")
        call_engine("key:a")

    assert refused.value.headers["retry-after"] == "120"
