"""What is charged for each end of an attempt, over HTTP.

The counters of the gateway key and the virtual key agree with the ledger. Numbers are
those of the cases in docs/contract.md.
"""

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.core.counters import LimitReached, UsageRequest
from app.core.limits import Limits
from app.core.prices import prices
from app.settings import Settings
from tests.conftest import Caller, events, read_until
from tests.e2e.server import eventually
from tests.stored_gateway import StoredGateway
from tests.upstream import (
    DONE,
    STREAM,
    Answer,
    ReceivedRequest,
    Step,
    Upstream,
    chunk,
    close,
    completion,
    data,
    delta,
    frame,
    head,
    reply,
    reset,
    stream,
    until_closed,
    whole,
)

# "Hi" is one token by the gateway's own count.
PROMPT, LENGTH, CAME = 1, 20, 3
# A thousandth of a dollar per token.
ROW = {"provider": "*", "model": "*", "input": 1000, "output": 1000}
LIMITS = Limits.of({"tokens_per_day": 10**6, "money_per_day": 1000})

NOTHING = (0, 0)
ALL = (PROMPT, LENGTH)
THE_PROMPT = (PROMPT, 0)
WHAT_CAME = (PROMPT, CAME)


@dataclass(frozen=True)
class End:
    """How a call ends, and its cost in prompt and completion tokens.

    *answer* is what the upstream sends for a whole completion, *events* for a stream;
    None where the end cannot occur. *by* is what ends the request: the answer, the
    caller, or the end of the process. It ends after the answer has *begun*, or before.
    """

    answer: Answer | None = None
    costs: tuple[int, int] = NOTHING
    events: Callable[..., Answer] | None = None
    stream_costs: tuple[int, int] = NOTHING
    by: str = "answer"
    begun: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


ERROR = {"error": {"message": "overloaded", "type": "server_error"}}
HEAD = head(200, "Content-Type: application/json", "Content-Length: 500")
SLOW = {"request_timeout": 150}


def begun(*then: Step) -> Callable[..., Answer]:
    """A stream of three tokens, followed by *then*."""

    def events(piece: Callable[..., Any]) -> Answer:
        opening = head(200, STREAM, "Transfer-Encoding: chunked")
        return [opening, *(chunk(data(piece(text))) for text in "abc"), 0.05, *then]

    return events


def unbegun(*answer: Step) -> Callable[..., Answer]:
    """The same end for a stream that has not begun, whatever its events."""
    return lambda piece: answer


UNREADABLE = chunk(data(b"<html>"))
IN_BAND = chunk(data(ERROR))

ENDS = {
    "error status": End(whole(ERROR, 503), NOTHING, unbegun(*whole(ERROR, 503))),
    "error status, cut": End(
        [head(500, "Content-Length: 500"), b"{", 0.05, reset],
        NOTHING,
        unbegun(head(500, "Content-Length: 500"), b"{", 0.05, reset),
    ),
    "redirect": End(
        [head(302, "Location: /", "Content-Length: 0")],
        NOTHING,
        unbegun(head(302, "Location: /", "Content-Length: 0")),
    ),
    "no answer": End([0.05, close], ALL, unbegun(0.05, close), THE_PROMPT),
    "no HTTP": End([b"?\r\n\r\n"], ALL, unbegun(b"?\r\n\r\n"), THE_PROMPT),
    "cut in the head": End(
        [b"HTTP/1.1 200 OK\r\n", close],
        ALL,
        unbegun(b"HTTP/1.1 200 OK\r\n", close),
        THE_PROMPT,
    ),
    "cut": End([HEAD, b'{"id', 0.05, reset], ALL, begun(reset), WHAT_CAME),
    "ended too soon": End(events=begun(b"0\r\n\r\n"), stream_costs=WHAT_CAME),
    "timeout before the head": End(
        [until_closed], ALL, unbegun(until_closed), THE_PROMPT, config=SLOW
    ),
    "timeout before the body": End(
        [HEAD, until_closed],
        ALL,
        unbegun(head(200, STREAM), until_closed),
        THE_PROMPT,
        config=SLOW,
    ),
    "timeout of the config": End(
        [until_closed],
        ALL,
        unbegun(until_closed),
        THE_PROMPT,
        config={"deadline_ms": 150},
    ),
    "timeout in the body": End(
        [HEAD, b'{"id', until_closed],
        ALL,
        begun(until_closed),
        WHAT_CAME,
        settings={"idle_timeout": 0.3},
    ),
    "too large": End(
        whole(completion("x" * 2000)), ALL, settings={"max_answer_bytes": 1000}
    ),
    "too large an event": End(
        events=begun(chunk(b"data: " + b"x" * 2000)),
        stream_costs=WHAT_CAME,
        settings={"max_event_bytes": 1000},
    ),
    "not JSON": End(whole(b"<html>"), ALL, begun(UNREADABLE, until_closed), WHAT_CAME),
    "no choices": End(whole({"choices": []}), ALL),
    "no content": End([head(204)], ALL),
    "whole in place of a stream, not JSON": End(
        events=unbegun(*whole(b"{")), stream_costs=ALL
    ),
    "encoded unasked": End(
        whole(b"?", 200, "Content-Encoding: br"), ALL, begun(UNREADABLE), WHAT_CAME
    ),
    "error in place of an answer": End(
        whole(ERROR),
        NOTHING,
        unbegun(head(200, STREAM, "Connection: close"), data(ERROR), close),
        NOTHING,
    ),
    "error in the middle": End(
        events=begun(IN_BAND, until_closed), stream_costs=WHAT_CAME
    ),
    "caller left before the head": End(
        [until_closed], ALL, unbegun(until_closed), THE_PROMPT, by="caller"
    ),
    "caller left after the head": End(
        [HEAD, b'{"id', until_closed],
        ALL,
        begun(until_closed),
        WHAT_CAME,
        by="caller",
        begun=True,
    ),
    "process ended before the head": End([until_closed], ALL, by="process"),
    "process ended after the head": End(
        [HEAD, b'{"id', until_closed],
        ALL,
        begun(until_closed),
        WHAT_CAME,
        by="process",
        begun=True,
    ),
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(
        settings,
        ledger=True,
        prices=prices([ROW]),
        secret_key="a secret of the tests",
        store_ttl=0.0001,
    )


@pytest.fixture
def gateway(
    call: Callable[..., Caller], upstream: Upstream, settings: Settings
) -> Iterator[StoredGateway]:
    with StoredGateway(call, upstream, settings) as gateway:
        yield gateway


def limited(
    gateway: StoredGateway, provider: str, config: dict[str, Any], **more: Any
) -> Caller:
    """A caller whose key is limited, as is the virtual key of its route."""
    key = gateway.virtual_key(provider=provider, limits=LIMITS)
    gateway.store.put_config("main", config | {"virtual_key": key})
    return gateway.caller(
        gateway.key(config="main", limits=LIMITS), ledger=True, **more
    )


def charged(caller: Caller, holder: str) -> tuple[int, int]:
    """The tokens and billionths of a dollar that are counted."""

    def used(rule: str, **most: Any) -> int:
        mine = UsageRequest(holder, Limits.of({rule: 0}), 10**9, Decimal(10**6))
        with pytest.raises(LimitReached) as refused:
            caller.app.extensions["lastword"].metering.meter.reserve(
                [mine], time.time()
            )
        return refused.value.used

    return used("tokens_per_day"), used("money_per_day")


def row(caller: Caller) -> dict[str, Any]:
    """The ledger's row of the only request.

    For a cancelled stream another thread writes it, after the keys are charged.
    """
    ledger = caller.app.extensions["lastword.ledger"]
    file = Path(caller.app.extensions["lastword.settings"].instance) / "gateway.db"
    rows: list[dict[str, Any]] = []

    def entered() -> bool:
        ledger.flush()
        with closing(sqlite3.connect(file)) as connection:
            connection.row_factory = sqlite3.Row
            rows[:] = map(dict, connection.execute("SELECT * FROM requests"))
        return bool(rows)

    eventually(entered)
    (entry,) = rows
    return entry


def agree(caller: Caller, prompt: int, text: int) -> None:
    """Assert that every holder is charged for so many tokens in the end."""
    tokens, money = prompt + text, (prompt + text) * 10**6
    for holder in ("key:job", "virtual-key:openai-1"):
        eventually(
            lambda holder=holder: charged(caller, holder) == (tokens, money),
            2,
            lambda holder=holder: (holder, charged(caller, holder), tokens),
        )
    entered = row(caller)
    tokens_entered = (entered["prompt_tokens"], entered["completion_tokens"])
    assert tokens_entered == (prompt, text)
    assert (entered["cost_micros"] or 0) == tokens * 1000


def run_request(
    caller: Caller, end: End, upstream: Upstream, calls: int, **body: Any
) -> None:
    """Run a request to its *end*; the caller hangs up after so many *calls*."""
    if end.by == "answer":
        response = caller.complete(max_tokens=LENGTH, **body)
        response.get_data()
        response.close()
    elif body.get("stream"):
        _broken_off_stream(caller, end, upstream, calls, body)
    else:
        _broken_off(caller, end, upstream, calls, body)


def _broken_off_stream(
    caller: Caller, end: End, upstream: Upstream, calls: int, body: dict[str, Any]
) -> None:
    response = caller.complete(max_tokens=LENGTH, **body)
    if not end.begun:
        read_until(response, marker=b"keep-alive")
    for _ in range(calls if end.begun else 0):
        read_until(response, marker=b'"c"')
    eventually(lambda: len(upstream.requests) == calls)
    if end.by == "caller":
        response.close()
        return
    callers = caller.app.extensions["lastword"].clients
    here, there = socket.socketpair()
    with here, there, callers.watching(here) as connection:
        callers.drain(0)
        assert "restarts" in str(list(response.iter_encoded())[-1])
        connection.forget()
        response.close()


def _broken_off(
    caller: Caller, end: End, upstream: Upstream, calls: int, body: dict[str, Any]
) -> None:
    here, there = socket.socketpair()
    sent = json.dumps({"model": "m", "prompt": "Hi", "max_tokens": LENGTH} | body)

    def post() -> None:
        client = caller.app.test_client()
        client.post(
            "/v1/completions",
            data=sent,
            headers=caller.headers,
            content_type="application/json",
            environ_overrides={"gunicorn.socket": here},
        ).close()

    asking = threading.Thread(target=post)
    with here, there:
        asking.start()
        eventually(lambda: len(upstream.requests) == calls)
        if end.by == "caller":
            there.close()
        else:
            caller.app.extensions["lastword"].clients.drain(0)
        asking.join(10)


def settings_of(end: End) -> dict[str, Any]:
    return {"heartbeat": 0.05 if end.by == "caller" else None} | end.settings


def cases(which: str) -> Any:
    ends = {name: end for name, end in ENDS.items() if getattr(end, which)}
    return pytest.mark.parametrize("end", ends.values(), ids=ends.keys())


@cases("answer")
def test_whole_call_charge_depends_on_its_end(gateway: StoredGateway, end: End) -> None:
    assert end.answer
    gateway.upstream.answers[:] = [end.answer]
    caller = limited(gateway, "openai", end.config, **settings_of(end))
    run_request(caller, end, gateway.upstream, 1)

    agree(caller, *end.costs)


@cases("events")
def test_streamed_call_charge_depends_on_its_end(
    gateway: StoredGateway, end: End
) -> None:
    assert end.events
    gateway.upstream.answers[:] = [end.events(frame)]
    caller = limited(gateway, "openai", end.config, **settings_of(end))
    run_request(caller, end, gateway.upstream, 1, stream=True)

    agree(caller, *end.stream_costs)


def beside(upstream: Upstream, end: End, answer: Answer, idle: Answer) -> Any:
    """Send *answer* to the second of two calls, as soon as both have arrived.

    The first gets the same if the caller ends it; else it stays *idle*.
    """

    def script(request: ReceivedRequest) -> Answer:
        if len(upstream.requests) == 1 and end.by == "answer":
            return idle
        eventually(lambda: len(upstream.requests) == 2)
        return answer

    return script


def plus(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return first[0] + second[0], first[1] + second[1]


@cases("answer")
def test_batch_call_charges_depend_on_their_ends(
    gateway: StoredGateway, end: End
) -> None:
    assert end.answer
    answer = whole(reply("x" * 2000)) if "too large" in str(end.settings) else None
    script = beside(gateway.upstream, end, answer or end.answer, [until_closed])
    gateway.upstream.answers[:] = [script]
    caller = limited(gateway, "groq", end.config, **settings_of(end))
    run_request(caller, end, gateway.upstream, 2, n=2)

    agree(caller, *plus(end.costs, ALL if end.by == "answer" else end.costs))


@cases("events")
def test_batch_stream_charges_depend_on_their_ends(
    gateway: StoredGateway, end: End
) -> None:
    assert end.events
    script = beside(gateway.upstream, end, end.events(delta), [until_closed])
    gateway.upstream.answers[:] = [script]
    caller = limited(gateway, "groq", end.config, **settings_of(end))
    run_request(caller, end, gateway.upstream, 2, n=2, stream=True)
    other = THE_PROMPT if end.by == "answer" else end.stream_costs

    agree(caller, *plus(end.stream_costs, other))


CHAT_MODEL = {"error": {"message": "This is a chat model", "code": None}}
USAGE = {"prompt_tokens": PROMPT, "completion_tokens": LENGTH}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_refused_batch_costs_nothing(gateway: StoredGateway, streamed: bool) -> None:
    """A refusal breaks off the calls beside it, which would have had the same one."""
    upstream = gateway.upstream

    def script(request: ReceivedRequest) -> Answer:
        if "messages" in request.json:
            if not streamed:
                return whole(reply("x", usage=USAGE))
            end = data({"id": "x", "choices": [], "usage": USAGE})
            return stream(data(delta("x", "stop")), end, DONE)
        if len(upstream.requests) == 1:
            return [until_closed]
        eventually(lambda: len(upstream.requests) == 2)
        return whole(CHAT_MODEL, 404)

    upstream.answers[:] = [script]
    caller = limited(gateway, "deepseek", {})
    body = {"prompt": ["Hi", "Hi"], "max_tokens": LENGTH, "stream": streamed}
    response = caller.complete(**body)
    sent = response.get_data(as_text=True)
    response.close()

    assert response.status_code == 200 and "error" not in sent
    assert [r.path.rpartition("/")[2] for r in upstream.requests] == ["completions"] * 4
    agree(caller, 2 * PROMPT, 2 * LENGTH)


# Calls that are not sent


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("n", [1, 3])
def test_refused_connection_costs_nothing(
    gateway: StoredGateway, streams: bool, n: int
) -> None:
    key = f"http://127.0.0.1:{closed_port()}/v1"
    gateway.virtual_key(provider="groq", custom_host=key, limits=LIMITS)
    gateway.store.put_config("main", {"virtual_key": "openai-1"})
    caller = gateway.caller(gateway.key(config="main", limits=LIMITS), ledger=True)
    assert caller.complete(n=n, stream=streams).status_code == 502

    agree(caller, *NOTHING)


def test_connection_without_tls_costs_nothing(gateway: StoredGateway) -> None:
    """No request was sent: the TLS handshake fails before it."""
    key = gateway.virtual_key(
        custom_host=gateway.upstream.url.replace("http", "https"), limits=LIMITS
    )
    gateway.store.put_config("main", {"virtual_key": key})
    caller = gateway.caller(
        gateway.key(config="main", limits=LIMITS), ledger=True, connect_timeout=0.2
    )
    assert caller.complete().status_code in (502, 504)

    agree(caller, *NOTHING)


def test_hang_up_between_retries_is_free(gateway: StoredGateway) -> None:
    busy = whole(ERROR, 429, "Retry-After: 30")
    retry = {"attempts": 5, "use_retry_after_headers": True}
    gateway.upstream.answers[:] = [busy]
    caller = limited(gateway, "openai", {"retry": retry})
    run_request(caller, End(by="caller"), gateway.upstream, 1)

    agree(caller, *NOTHING)


def test_queued_calls_cost_nothing(gateway: StoredGateway) -> None:
    """Of five calls, two run at a time, and the first one fails."""
    script = beside(gateway.upstream, End(), whole(ERROR, 503), [until_closed])
    gateway.upstream.answers[:] = [script]
    caller = limited(gateway, "groq", {}, fanout=2)
    caller.complete(n=5, max_tokens=LENGTH)

    agree(caller, *ALL)


def test_partly_sent_request_costs_nothing(
    gateway: StoredGateway,
) -> None:
    """The request exceeds the socket buffers, and its timeout expires."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    key = gateway.virtual_key(custom_host=host, limits=LIMITS)
    gateway.store.put_config("main", {"virtual_key": key, "request_timeout": 300})
    limits = Limits.of({"tokens_per_day": 10**8, "money_per_day": 10**6})
    gateway.virtual_key(custom_host=host, limits=limits)
    caller = gateway.caller(
        gateway.key(config="main", limits=limits), ledger=True, max_body_bytes=10**8
    )
    response = caller.complete(prompt="x" * 3 * 10**7)
    listener.close()

    assert response.status_code == 408
    agree(caller, *NOTHING)


def test_stale_connection_costs_one_call(gateway: StoredGateway) -> None:
    """And none, if the server that closed the idle connection is gone."""
    answers = [[*whole(completion()), close], whole(completion())]
    gateway.upstream.answers[:] = answers
    caller = limited(gateway, "openai", {})
    assert caller.complete().status_code == 200
    assert gateway.upstream.wait_closed()
    gateway.upstream.stop()
    assert caller.complete().status_code == 502

    assert charged(caller, "key:job")[0] == 3


def test_cache_waiter_pays_nothing(gateway: StoredGateway) -> None:
    """Of two identical requests, one calls the upstream; both callers hang up."""
    gateway.upstream.answers[:] = [[until_closed]]
    caller = limited(gateway, "openai", {"cache": {"mode": "simple"}})
    ends = [socket.socketpair() for _ in "12"]
    body = json.dumps({"model": "m", "prompt": "Hi", "max_tokens": LENGTH})

    def post(here: socket.socket) -> None:
        caller.app.test_client().post(
            "/v1/completions",
            data=body,
            headers=caller.headers,
            content_type="application/json",
            environ_overrides={"gunicorn.socket": here},
        ).close()

    threads = [threading.Thread(target=post, args=(here,)) for here, _ in ends]
    for thread in threads:
        thread.start()
    extension = caller.app.extensions["lastword"]
    eventually(lambda: extension.clients.count == 2 and gateway.upstream.requests)
    for _, there in ends:
        there.close()
    for thread, (here, _) in zip(threads, ends, strict=True):
        thread.join(10)
        here.close()

    # The waiting request may have become the leader, and then been cancelled.
    calls = len(gateway.upstream.requests)
    assert calls <= 2
    assert charged(caller, "key:job")[0] == calls * sum(ALL)


# Answers that are shortened


def test_silent_thinking_stream_is_charged_whole(
    gateway: StoredGateway,
) -> None:
    gateway.upstream.answers[:] = [unbegun(until_closed)(delta)]
    caller = limited(
        gateway, "groq", {"model_info": {"token_floor": 10}}, heartbeat=0.05
    )
    run_request(caller, End(by="caller"), gateway.upstream, 1, stream=True)

    agree(caller, *ALL)


def test_thoughts_before_text_are_charged(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [begun(until_closed)(delta)]
    caller = limited(
        gateway, "groq", {"model_info": {"token_floor": 10}}, heartbeat=0.05
    )
    end = End(by="caller", begun=True)
    run_request(caller, end, gateway.upstream, 1, stream=True)

    agree(caller, PROMPT, 10 + CAME)


def test_required_extra_token_is_charged(gateway: StoredGateway) -> None:
    """A chat generates at least one token, which the gateway drops."""
    gateway.upstream.answers[:] = [whole(reply())]
    caller = limited(gateway, "groq", {})
    response = caller.complete(max_tokens=0, echo=True)
    assert response.json["usage"]["completion_tokens"] == 0

    agree(caller, 4, 2)


@pytest.mark.parametrize("usage", [None, {"total_tokens": 0}], ids=str)
def test_answer_without_usage_is_estimated(gateway: StoredGateway, usage: Any) -> None:
    gateway.upstream.answers[:] = [whole(completion("four letters", usage=usage))]
    caller = limited(gateway, "openai", {})
    caller.complete(max_tokens=LENGTH)

    agree(caller, PROMPT, 3)


def test_repeated_prompts_are_in_the_ledger(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [whole(reply())]
    caller = limited(gateway, "groq", {})
    response = caller.complete(n=3, max_tokens=LENGTH)
    assert response.json["usage"]["prompt_tokens"] == 4

    agree(caller, 3 * 4, 3 * 2)


def test_abandoned_stream_charges_all_choices(gateway: StoredGateway) -> None:
    pieces = [data(frame(text, index=i)) for text in "abc" for i in range(3)]
    gateway.upstream.answers[:] = [stream(*pieces, until_closed)]
    caller = limited(gateway, "openai", {})
    response = caller.complete(stream=True, n=3, max_tokens=LENGTH)
    for _ in range(3):
        read_until(response, marker=b'"c"')
    response.close()

    agree(caller, PROMPT, 3 * CAME)


def test_complete_stream_is_charged_by_usage(gateway: StoredGateway) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    last = data(delta() | {"choices": [], "usage": usage})
    pieces = (data(delta("a")), data(delta("b", "stop")), last, DONE)
    gateway.upstream.answers[:] = [stream(*pieces)]
    caller = limited(gateway, "groq", {})
    response = caller.complete(stream=True, n=2, max_tokens=LENGTH)
    response.get_data()
    response.close()

    agree(caller, 2 * 5, 2 * 7)


# As xAI counts: reasoning is in the total alone.
REASONED = {
    "prompt_tokens": 12,
    "completion_tokens": 1,
    "total_tokens": 241,
    "completion_tokens_details": {"reasoning_tokens": 228},
}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
OF_BOTH_MODES = pytest.mark.parametrize("via", ["native", "chat"])
OF_BOTH_FORMS = pytest.mark.parametrize("streams", [False, True], ids=["whole", "sse"])


def counted_answer(via: str, streams: bool, usage: Any) -> Answer:
    """An answer in the shape of that mode, with this *usage*."""
    if not streams:
        text = reply if via == "chat" else completion
        return whole(text("four letters", usage=usage))
    piece: Callable[..., dict[str, Any]] = delta if via == "chat" else frame
    last = piece() | {"choices": [], "usage": usage}
    pieces = piece("four letters"), piece("", "stop"), last
    return stream(*map(data, pieces), DONE)


def reported_usage(response: Any, streams: bool) -> Any:
    """The usage that the caller sees, and whether it is marked as an estimate."""
    body = events(response)[-2] if streams else response.json
    response.close()
    return body["usage"], body.get("usage_estimated", False)


@OF_BOTH_MODES
@OF_BOTH_FORMS
@pytest.mark.parametrize("provider", ["x-ai", "openai", "together-ai"])
def test_65_separate_reasoning_is_charged(
    gateway: StoredGateway, provider: str, via: str, streams: bool
) -> None:
    gateway.upstream.answers[:] = [counted_answer(via, streams, REASONED)]
    caller = limited(gateway, provider, {"via": via})
    response = caller.complete(**(WITH_USAGE if streams else {}))
    usage, estimated = reported_usage(response, streams)

    assert not estimated
    assert usage["completion_tokens"] == 229
    assert usage["prompt_tokens"] + 229 == usage["total_tokens"] == 241
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 228
    agree(caller, 12, 229)


@OF_BOTH_FORMS
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("provider", ["openai", "cerebras"])
def test_65_scored_prompt_alone_has_no_completion(
    gateway: StoredGateway, provider: str, count: int, streams: bool
) -> None:
    """Its echo is text, of which no token was generated."""
    usage = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}

    def answer(request: ReceivedRequest) -> Answer:
        piece = frame if streams else completion
        one: dict[str, Any] = piece("Hi, which is echoed")
        choices = [
            one["choices"][0] | {"index": i, "finish_reason": "length"}
            for i in range(request.json.get("n", 1))
        ]
        document = one | {"choices": choices, "usage": usage}
        return stream(data(document), DONE) if streams else whole(document)

    gateway.upstream.answers[:] = [answer]
    caller = limited(gateway, provider, {})
    response = caller.complete(
        prompt="Hi, which is echoed",
        echo=True,
        max_tokens=0,
        n=count,
        **(WITH_USAGE if streams else {}),
    )

    assert reported_usage(response, streams) == (usage, False)
    calls = len(gateway.upstream.requests)
    agree(caller, calls * 5, 0)


@OF_BOTH_MODES
@OF_BOTH_FORMS
@pytest.mark.parametrize(
    "usage, expected",
    [
        ({"completion_tokens": 7}, (PROMPT, 7)),
        ({"prompt_tokens": 5, "completion_tokens": None}, (5, 3)),
        ({"prompt_tokens": -5, "completion_tokens": "7"}, (PROMPT, 7)),
        ({"prompt_tokens": 5.0, "completion_tokens": 0, "total_tokens": 5}, (5, 3)),
        ([], (PROMPT, 3)),
    ],
    ids=str,
)
def test_65_uncounted_part_is_charged_as_estimated(
    gateway: StoredGateway, via: str, streams: bool, usage: Any, expected: Any
) -> None:
    gateway.upstream.answers[:] = [counted_answer(via, streams, usage)]
    caller = limited(gateway, "openai", {"via": via})
    response = caller.complete(**(WITH_USAGE if streams else {}))
    reported, estimated = reported_usage(response, streams)

    assert estimated
    sums = {"prompt_tokens": expected[0], "completion_tokens": expected[1]}
    assert reported == sums | {"total_tokens": sum(expected)}
    agree(caller, *expected)
