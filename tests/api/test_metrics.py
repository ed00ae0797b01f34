"""The metrics of requests, as Prometheus reads them."""

import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from app.observability import metrics
from tests.conftest import Caller
from tests.upstream import (
    DONE,
    Upstream,
    completion,
    cut_stream,
    data,
    frame,
    stream,
    whole,
)

DOCS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
FRAMES = [data(frame("Hel")), data(frame("lo", "stop")), DONE]


class Counted:
    """A scrape of a gateway, by the name and labels of each series."""

    def __init__(self, caller: Caller) -> None:
        text = caller.get("/metrics").get_data(as_text=True)
        self.families = list(text_string_to_metric_families(text))
        self.samples = [s for family in self.families for s in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all series of that *name* that have these *labels*."""
        named = [s for s in self.samples if s.name == f"lastword_{name}"]
        return sum(s.value for s in named if labels.items() <= s.labels.items())


def read_body(response: Any) -> bytes:
    """The whole body, read as a server does it."""
    body = b"".join(response.iter_encoded())
    response.close()
    return body


def test_whole_answer_is_counted(call, upstream: Upstream) -> None:
    caller = call(upstream)
    caller.complete()
    counted = Counted(caller)

    labels = {"provider": "openai", "via": "native", "status": "200"}
    labels |= {"stream": "no", "cache": "disabled", "end": "whole"}
    assert counted("requests_total", **labels) == 1
    assert counted("requests_total") == 1
    assert counted("tokens_total", kind="prompt") == 1
    assert counted("tokens_total", kind="completion") == 2
    assert counted("request_duration_seconds_count", provider="openai") == 1


def test_negative_usage_spoils_no_counter(call, script) -> None:
    odd = {"prompt_tokens": -5, "completion_tokens": 10**30, "total_tokens": 1}
    caller = call(script(whole(completion(usage=odd)), whole(completion())))
    caller.complete()
    caller.complete()
    counted = Counted(caller)

    assert counted("requests_total") == 2
    # The first one's prompt is estimated.
    assert counted("tokens_total", kind="prompt") == 2


def test_stream_is_counted_with_longest_gap(call, script) -> None:
    caller = call(script(stream(FRAMES[0], 0.3, *FRAMES[1:])))
    read_body(caller.complete(stream=True))
    counted = Counted(caller)

    assert counted("requests_total", stream="yes", end="whole") == 1
    assert counted("longest_gap_seconds_sum") == pytest.approx(0.3, abs=0.2)
    assert counted("stream_gaps_total") == 1
    only = counted("longest_gap_seconds_sum")
    assert counted("stream_gap_seconds_total") == pytest.approx(only)


def test_truncation_and_failure_are_distinct(call, script) -> None:
    caller = call(script(cut_stream(FRAMES[0]), whole({"error": {}}, 500)))
    read_body(caller.complete(stream=True))
    caller.complete()
    counted = Counted(caller)

    assert counted("requests_total", end="cut", status="200") == 1
    assert counted("requests_total", end="failed", status="500") == 1


def test_hang_up_is_counted(call, script) -> None:
    caller = call(script(stream(FRAMES[0], 0.1, *FRAMES[1:])))
    response = caller.complete(stream=True)
    next(response.iter_encoded())
    response.close()
    counted = Counted(caller)

    assert counted("left_total", provider="openai") == 1
    assert counted("requests_total", end="left") == 1


def test_attempts_are_counted_by_target(call, script) -> None:
    busy = script(whole({"error": {}}, 503))
    good = script(whole(completion()))
    caller = call(good)
    targets = [{"custom_host": busy.url, "retry": {"attempts": 2}}]
    targets += [{"custom_host": good.url}]
    del caller.headers["x-portkey-custom-host"]
    caller.headers["x-portkey-config"] = fallback(targets)
    caller.complete()
    counted = Counted(caller)

    assert counted("attempts_total") == 4
    assert counted("attempts_total", status="503") == 3
    assert counted("retries_total") == 2
    assert counted("fallbacks_total") == 1


def test_breakers_are_counted_by_state(call, script) -> None:
    sick, well = script(whole({"error": {}}, 503)), script(whole(completion()))
    caller = call(well)
    targets = [{"custom_host": sick.url}, {"custom_host": well.url}]
    del caller.headers["x-portkey-custom-host"]
    breaker = {"failure_threshold": 1}
    caller.headers["x-portkey-config"] = fallback(targets, cb_config=breaker)
    caller.complete()
    counted = Counted(caller)

    assert counted("breakers", provider="openai", state="open") == 1
    assert counted("breakers", provider="openai", state="closed") == 1


def fallback(targets: list[dict[str, Any]], **strategy: Any) -> str:
    named = [{"provider": "openai", "api_key": "sk-1", **each} for each in targets]
    return json.dumps({"strategy": {"mode": "fallback", **strategy}, "targets": named})


@pytest.mark.parametrize(
    "wrong", [{"prompt": 7}, {"model": None}, {"n": -1}], ids=lambda w: str(w)
)
def test_early_refusals_are_counted_apart(call, upstream, wrong) -> None:
    caller = call(upstream)
    status = caller.complete(**wrong).status_code
    counted = Counted(caller)

    assert counted("refused_total", status=str(status)) == 1
    assert counted("requests_total") == 0


def test_only_listed_metrics_are_emitted(call, upstream) -> None:
    caller = call(upstream)
    caller.complete()
    emitted = {family.name for family in Counted(caller).families}

    assert emitted <= {name for name, _ in metrics.families()}


def test_metrics_table_matches_documentation() -> None:
    rows = re.findall(r"^\| `(lastword_\w+)` \| (.*?) \|", DOCS, re.M)
    documented = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    counters = {metrics.Counter: "_total"}
    declared = {
        name + counters.get(metric.kind, ""): metric.labels
        for name, metric in metrics.families()
    }

    assert documented == declared


def test_callers_cannot_create_series(call, upstream) -> None:
    app = call(upstream, log_requests=False).app
    send_unique_requests(app, upstream, range(600))
    before = series(app)
    send_unique_requests(app, upstream, range(600, 10_600))

    assert series(app) == before
    # Most are refused by the gateway or by the target; they count all the same.
    counted = Counted(Caller(app))
    assert counted("requests_total") + counted("refused_total") == 10_600
    assert counted("requests_total") > 3_000


def send_unique_requests(app: Flask, upstream: Upstream, numbers: range) -> None:
    """Send completions with unique values in every field, on one of several routes."""
    for number in numbers:
        invented = f"made-up-{number}"
        body = json.dumps({"model": invented, "prompt": invented, invented: number})
        headers = {"x-portkey-trace-id": invented, "traceparent": invented}
        headers |= {f"x-{invented}": invented, "authorization": f"Bearer {invented}"}
        headers["x-portkey-metadata"] = json.dumps({invented: invented})
        route = ROUTES[number % len(ROUTES)] if number % 40 else "upstream"
        headers |= route_headers(route, invented, upstream)
        send(app, f"address-{number}", headers, body.encode())


# Routes with different ends.
ROUTES = ("no text", "refused", "no key", "provider", "config", "virtual key")


def route_headers(route: str, invented: str, upstream: Upstream) -> dict[str, str]:
    """The headers for one of these routes."""
    return {
        "upstream": {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": upstream.url,
        },
        "no text": {"x-portkey-provider": "stability-ai"},
        "refused": {"x-portkey-provider": "ollama", "x-portkey-custom-host": "http://"},
        "no key": {"x-portkey-provider": "anthropic", "authorization": ""},
        "provider": {"x-portkey-provider": invented},
        "config": {"x-portkey-config": json.dumps({"provider": invented})},
        "virtual key": {"x-portkey-virtual-key": invented},
    }[route]


def send(app: Flask, address: str, headers: dict[str, str], body: bytes) -> None:
    """Post *body* as a WSGI server would, which is faster than a test client.

    Each request has its own address, so that none is throttled.
    """
    environ = {f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()}
    environ |= {
        "REMOTE_ADDR": address,
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/completions",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "gateway",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
    }
    answer: Any = app(environ, lambda status, headers: None)
    b"".join(answer)
    answer.close()


def series(app: Flask) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """The names and labels of all that is emitted."""
    samples = Counted(Caller(app)).samples
    return {(sample.name, frozenset(sample.labels.items())) for sample in samples}


# Access to /metrics


@pytest.fixture
def scrape_status(call, upstream) -> Iterator[Callable[..., int]]:
    def scrape(token: str = "", **settings: Any) -> int:
        caller = call(upstream, **settings)
        caller.headers = {"Authorization": token} if token else {}
        status: int = caller.get("/metrics").status_code
        return status

    yield scrape


def test_local_request_needs_no_token(scrape_status: Callable[..., int]) -> None:
    assert scrape_status() == 200


def test_remote_request_needs_token(scrape_status: Callable[..., int]) -> None:
    everywhere = {"bind": "0.0.0.0:8787"}

    assert scrape_status(**everywhere) == 404
    options = {**everywhere, "metrics_token": "a-token"}
    assert scrape_status(**options) == 401
    assert scrape_status("Bearer another", **options) == 401
    assert scrape_status("Bearer a-token", **options) == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto"]
)
@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)])
def test_proxied_request_is_not_local(
    call, upstream, header: str, proxies: tuple[str, ...]
) -> None:
    caller = call(upstream, trusted_proxies=proxies)
    caller.headers = {}
    assert caller.get("/metrics").status_code == 200
    caller.headers = {header: "127.0.0.1"}
    assert caller.get("/metrics").status_code == 404


@pytest.mark.parametrize("peer", ["192.0.2.1", "", "::ffff:192.0.2.1"])
def test_remote_address_is_not_local(call, upstream, peer: str) -> None:
    """Whatever the peer's address is; a unix socket has none."""
    client = {"environ_overrides": {"REMOTE_ADDR": peer}}
    assert call(upstream).get("/metrics", **client).status_code == 404


def test_metrics_can_be_disabled(scrape_status: Callable[..., int]) -> None:
    assert scrape_status(metrics=False) == 404
