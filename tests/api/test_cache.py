"""The response cache over HTTP, in a file and in a real Valkey."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.core.limits import Limits
from tests.conftest import Caller, events
from tests.e2e.server import eventually
from tests.stored_gateway import StoredGateway
from tests.upstream import (
    DONE,
    close,
    completion,
    cut_stream,
    data,
    delta,
    frame,
    head,
    reply,
    stream,
    wait_for,
    whole,
)

SIMPLE = {"provider": "openai", "cache": {"mode": "simple", "max_age": 60}}

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def asking(gateway: StoredGateway, config: Any = SIMPLE, key: str = "sk-1") -> Caller:
    """A caller with a provider key and a *config*."""
    caller = gateway.caller(key)
    host = {"x-portkey-custom-host": gateway.upstream.url}
    caller.headers |= {"x-portkey-config": json.dumps(config), **host}
    return caller


def status(response: Any) -> str:
    return str(response.headers["x-portkey-cache-status"])


def tokens_left(response: Any) -> int:
    return int(response.headers["x-ratelimit-remaining-tokens"])


def statuses(*responses: Any) -> list[str]:
    assert {response.status_code for response in responses} == {200}
    return list(map(status, responses))


# Whole answers


def test_cached_answer_needs_no_call(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [
        whole(completion(), 200, "openai-model: m-1", "x-ratelimit-limit-tokens: 9")
    ]
    caller = asking(gateway)
    first, second = caller.complete(), caller.complete()

    assert statuses(first, second) == ["MISS", "HIT"]
    assert first.get_data() == second.get_data()
    assert len(gateway.upstream.requests) == 1
    assert int(second.headers["Age"]) >= 0 and "Age" not in first.headers
    assert second.headers["openai-model"] == "m-1"
    assert "x-ratelimit-limit-tokens" not in second.headers
    assert second.headers["x-portkey-provider"] == "openai"


def test_gateways_share_cached_answers(gateway: StoredGateway) -> None:
    assert statuses(
        asking(gateway).complete(),
        asking(gateway).complete(),
    ) == ["MISS", "HIT"]


def test_nothing_is_cached_by_default(gateway: StoredGateway) -> None:
    cached, plain = asking(gateway), asking(gateway, {"provider": "openai"})

    assert statuses(cached.complete(), plain.complete()) == ["MISS", "DISABLED"]
    assert len(gateway.upstream.requests) == 2


def test_target_may_disable_inherited_cache(
    gateway: StoredGateway,
) -> None:
    config = {
        "cache": {"mode": "simple"},
        "strategy": {"mode": "single"},
        "targets": [{"provider": "openai", "cache": {"mode": "simple", "max_age": 0}}],
    }
    caller = asking(gateway, config)

    assert statuses(caller.complete(), caller.complete()) == ["DISABLED"] * 2


@pytest.mark.parametrize("body", [{"prompt": "Ho"}, {"model": "n"}, {"seed": 1}])
def test_different_request_is_not_cached(
    gateway: StoredGateway, body: dict[str, Any]
) -> None:
    caller = asking(gateway)

    assert statuses(caller.complete(), caller.complete(**body)) == ["MISS"] * 2


def test_stale_answer_is_refreshed(gateway: StoredGateway) -> None:
    brief = SIMPLE | {"cache": {"mode": "simple", "max_age": 0.05}}
    first = asking(gateway).complete()
    eventually(lambda: status(asking(gateway, brief).complete()) == "MISS")

    assert first.status_code == 200


def test_force_refresh_replaces_cached_answer(
    gateway: StoredGateway,
) -> None:
    gateway.upstream.answers[:] = [whole(completion(text)) for text in ("old", "new")]
    caller = asking(gateway)
    fresh = {"x-portkey-cache-force-refresh": "true"}
    answers = [caller.complete(), caller.complete(headers=fresh), caller.complete()]

    assert statuses(*answers) == ["MISS", "REFRESH", "HIT"]
    texts = [answer.json["choices"][0]["text"] for answer in answers]
    assert texts == ["old", "new", "new"]


def test_namespaces_are_separate(gateway: StoredGateway) -> None:
    caller = asking(gateway)
    spaces = [{"x-portkey-cache-namespace": name} for name in ("a", "b", "a")]
    answers = [caller.complete(headers=space) for space in spaces]

    assert statuses(*answers) == ["MISS", "MISS", "HIT"]


# Incomplete and failed answers


@pytest.mark.parametrize(
    "bad",
    [
        whole({"error": {"message": "busy"}}, 503),
        whole({"error": {"message": "busy"}}, 200),
        whole({"choices": []}, 200),
        whole(b"<html>", 200),
        [head(200, "Content-Length: 500"), b'{"choi', close],
    ],
    ids=["status", "in band", "empty", "no JSON", "cut"],
)
def test_error_is_never_cached(gateway: StoredGateway, bad: Any) -> None:
    gateway.upstream.answers[:] = [bad, whole(completion())]
    caller = asking(gateway)
    first, second = caller.complete(), caller.complete()

    assert first.status_code >= 400
    assert statuses(second) == ["MISS"]
    assert statuses(caller.complete()) == ["HIT"]


def test_truncated_stream_is_never_cached(gateway: StoredGateway) -> None:
    whole_stream = stream(data(frame("a", "stop")), DONE)
    gateway.upstream.answers[:] = [cut_stream(data(frame("a"))), whole_stream]
    caller = asking(gateway)
    first = caller.complete(stream=True)
    assert "error" in events(first)[-1]
    first.close()
    second = caller.complete(stream=True)

    assert statuses(second) == ["MISS"]
    assert events(second)[-1] == "[DONE]"


def test_abandoned_stream_is_never_cached(
    gateway: StoredGateway,
) -> None:
    caller = asking(gateway)
    gateway.upstream.answers[:] = [
        stream(data(frame("a")), 0.1, data(frame("b", "stop")))
    ]
    first = caller.complete(stream=True)
    next(iter(first.response))
    first.close()

    assert statuses(caller.complete(stream=True)) == ["MISS"]


def test_fallback_caches_the_answering_target(
    gateway: StoredGateway,
) -> None:
    """Portkey would cache the failure of the first target as a success."""
    gateway.upstream.answers[:] = [
        whole({"error": {"message": "busy"}}, 503),
        whole(completion("good")),
        whole({"error": {"message": "busy"}}, 503),
    ]
    targets = [{"provider": "openai", "name": name} for name in "ab"]
    targets[1]["override_params"] = {"model": "other"}  # type: ignore[assignment]
    plan = {"strategy": {"mode": "fallback"}, "targets": targets}
    caller = asking(gateway, plan | {"cache": {"mode": "simple"}})
    first, second = caller.complete(), caller.complete()

    assert statuses(first, second) == ["MISS", "HIT"]
    assert second.json["choices"][0]["text"] == "good"
    assert second.headers["x-portkey-last-used-option-index"] == "config.targets[1]"


# Streams


def check_frames(frames: list[Any], *, usage: bool) -> None:
    """Assert that frames have exactly the fields of the contract."""
    *pieces, done = frames
    assert done == "[DONE]"
    assert len({(f["id"], f["created"], f["model"], f["object"]) for f in pieces}) == 1
    assert all(f["object"] == "text_completion" for f in pieces)
    if usage:
        *pieces, last = pieces
        assert last["choices"] == [] and last["usage"]["total_tokens"] > 0
        assert all(piece["usage"] is None for piece in pieces)
    else:
        assert all("usage" not in piece for piece in pieces)
    for piece in pieces:
        (choice,) = piece["choices"]
        assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    ends = [p["choices"][0]["finish_reason"] for p in pieces]
    assert ends[-1] == "stop" and set(ends[:-1]) <= {None}


@pytest.mark.parametrize("usage", [True, False], ids=["usage", "no usage"])
def test_whole_answer_serves_a_stream(gateway: StoredGateway, usage: bool) -> None:
    gateway.upstream.answers[:] = [whole(completion("word " * 300))]
    caller = asking(gateway)
    first = caller.complete()
    second = caller.complete(stream=True, stream_options={"include_usage": usage})
    frames = events(second)

    assert statuses(first, second) == ["MISS", "HIT"]
    assert second.mimetype == "text/event-stream"
    check_frames(frames, usage=usage)
    text_of = "".join(f["choices"][0]["text"] for f in frames[:-1] if f["choices"])
    assert text_of == "word " * 300 and len(frames) > 3
    assert len(gateway.upstream.requests) == 1


def test_stream_serves_a_whole_answer(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [
        stream(
            *(data(frame(text)) for text in ("a", "b")),
            data(frame("", "stop")),
            DONE,
        )
    ]
    caller = asking(gateway)
    first = caller.complete(stream=True)
    frames = events(first)
    first.close()
    second = caller.complete()

    assert statuses(first, second) == ["MISS", "HIT"]
    (choice,) = second.json["choices"]
    assert choice == {
        "text": "ab",
        "index": 0,
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert second.json["id"] == frames[0]["id"]
    # No usage was sent: one token is counted for each frame with text.
    assert second.json["usage"]["completion_tokens"] == 2
    assert second.json["usage_estimated"] is True


def test_bridged_batch_serves_both_forms(gateway: StoredGateway) -> None:
    """Several prompts, sent one by one to a chat, streamed; then from the cache."""
    gateway.upstream.answers[:] = [
        stream(data(delta("x")), data(delta(finish="stop")), DONE)
    ]
    config = SIMPLE | {"provider": "groq"}
    caller = asking(gateway, config)
    first = caller.complete(prompt=["a", "b"], n=2, stream=True)
    events(first)
    first.close()
    again = caller.complete(prompt=["a", "b"], n=2, stream=True)
    as_a_whole = caller.complete(prompt=["a", "b"], n=2)

    assert statuses(first, again, as_a_whole) == ["MISS", "HIT", "HIT"]
    assert [c["text"] for c in as_a_whole.json["choices"]] == ["x"] * 4
    assert [c["index"] for c in as_a_whole.json["choices"]] == [0, 1, 2, 3]
    *frames, done = events(again)
    assert done == "[DONE]"
    ends = {f["choices"][0]["index"]: f["choices"][0]["finish_reason"] for f in frames}
    assert ends == dict.fromkeys(range(4), "stop")
    assert len(gateway.upstream.requests) == 4


# Cache scopes


def test_other_credentials_share_nothing(gateway: StoredGateway) -> None:
    answers = [asking(gateway, key=key).complete() for key in ("sk-1", "sk-2", "sk-1")]

    assert statuses(*answers) == ["MISS", "MISS", "HIT"]


def test_stored_config_may_share_answers(gateway: StoredGateway) -> None:
    def answers(scope: str) -> list[str]:
        cache = {"mode": "simple", "scope": scope}
        target = {"virtual_key": gateway.virtual_key(), "cache": cache}
        gateway.store.put_config(f"c-{scope}", target)
        callers = [
            gateway.caller(gateway.key(f"{scope}-{n}", config=f"c-{scope}"))
            for n in (1, 2)
        ]
        return statuses(*(caller.complete() for caller in callers))

    assert answers("credentials") == ["MISS", "MISS"]
    assert answers("config") == ["MISS", "HIT"]


def test_cache_hit_uses_no_limit(gateway: StoredGateway) -> None:
    limits = Limits.of({"requests_per_minute": 2, "tokens_per_day": 30})
    key = gateway.virtual_key(limits=limits)
    gateway.store.put_config("main", {"virtual_key": key, "cache": {"mode": "simple"}})
    caller = gateway.caller(gateway.key(config="main", limits=limits))
    answers = [caller.complete(max_tokens=20) for _ in range(5)]
    # A refused request shows what remains; Redis is updated in the background.
    eventually(lambda: tokens_left(caller.complete(prompt="?", max_tokens=99)) == 27)
    last = caller.complete(prompt="Ho", max_tokens=20)

    assert statuses(*answers) == ["MISS"] + ["HIT"] * 4
    assert last.status_code == 200 and status(last) == "MISS"
    assert last.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-ratelimit-remaining-requests" not in answers[1].headers
    assert len(gateway.upstream.requests) == 2


def test_cache_hit_works_beyond_limit(gateway: StoredGateway) -> None:
    key = gateway.virtual_key(limits=Limits.of({"requests_per_minute": 1}))
    gateway.store.put_config("main", {"virtual_key": key, "cache": {"mode": "simple"}})
    caller = gateway.caller(gateway.key(config="main"))
    answers = [caller.complete(prompt=prompt) for prompt in ("Hi", "Ho", "Hi")]

    assert [answer.status_code for answer in answers] == [200, 429, 200]


# Concurrent identical requests


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_identical_requests_wait_for_the_first(
    gateway: StoredGateway, streamed: bool
) -> None:
    go_on = threading.Event()
    gateway.upstream.answers[:] = [
        (
            stream(data(frame("a")), wait_for(go_on), data(frame("b", "stop")), DONE)
            if streamed
            else [wait_for(go_on), *whole(completion("ab"))]
        )
    ]
    caller = asking(gateway)

    def complete(number: int) -> str:
        response = caller.complete(stream=streamed and number % 2 == 0)
        if response.mimetype == "application/json":
            return str(response.json["choices"][0]["text"])
        *frames, done = events(response)
        response.close()
        assert done == "[DONE]"
        return "".join(frame["choices"][0]["text"] for frame in frames)

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(complete, 0)
        eventually(lambda: gateway.upstream.requests)
        others = [pool.submit(complete, number) for number in range(1, 8)]
        go_on.set()
        text_of = {each.result() for each in (first, *others)}

    assert text_of == {"ab"}
    assert len(gateway.upstream.requests) == 1


def test_waiter_calls_after_failed_leader(gateway: StoredGateway) -> None:
    go_on = threading.Event()
    failing = [wait_for(go_on), *whole({"error": {"message": "busy"}}, 503)]
    gateway.upstream.answers[:] = [failing, whole(completion())]
    caller = asking(gateway)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(caller.complete)
        eventually(lambda: gateway.upstream.requests)
        second = pool.submit(caller.complete)
        go_on.set()

    assert (first.result().status_code, second.result().status_code) == (503, 200)


# Headers, and requests that are not cached


def test_cached_chat_keeps_its_headers(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [whole(reply())]
    caller = asking(gateway, SIMPLE | {"provider": "groq"})
    first, second = (caller.complete(best_of=1) for _ in range(2))

    assert statuses(first, second) == ["MISS", "HIT"]
    assert second.headers["x-lastword-via"] == first.headers["x-lastword-via"] == "chat"


def test_unrepeatable_request_is_not_cached(gateway: StoredGateway) -> None:
    """A usage on each frame belongs to that stream alone."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    gateway.upstream.answers[:] = [stream(data(frame("a", "stop", usage=USAGE)), DONE)]
    response = asking(gateway).complete(stream=True, stream_options=options)

    assert statuses(response) == ["DISABLED"]
