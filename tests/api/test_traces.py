"""The spans of requests, as a collector receives them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.permissions import Alias
from app.observability import otel_settings
from app.settings import BadSettings, Settings
from tests.collector import CLIENT, SERVER, Collector
from tests.conftest import KEY, Caller
from tests.stored_gateway import StoredGateway
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

DOCS = (Path(__file__).parents[2] / "docs" / "traces.md").read_text()
FRAMES = [data(frame("Hel")), data(frame("lo", "stop")), DONE]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


Traced = Callable[..., Caller]


@pytest.fixture
def traced(call: Any, collector: Collector, monkeypatch: Any) -> Traced:
    """Creates callers of a gateway with tracing, with OpenTelemetry's variables."""

    def make(upstream: Any, otel: dict[str, str] | None = None, **settings: Any) -> Any:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | (otel or {})
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return call(upstream, otel=variables, **settings)

    return make


def ended(caller: Caller) -> None:
    """Export all of that gateway's spans."""
    for response in caller.responses:
        response.close()
    caller.app.extensions["lastword"].close()


def test_request_span_has_attempt_spans(
    traced: Traced, upstream, collector: Collector
) -> None:
    before = time.time()
    caller = traced(upstream)
    caller.complete(model="gpt-x", max_tokens=7, temperature=0.5, stop="END", n=1)
    ended(caller)
    request, (tried,) = collector.request, collector.tries

    assert request.name == tried.name == "text_completion gpt-x"
    assert request["http.response.status_code"] == 200 and not request.failed
    assert request["gen_ai.operation.name"] == "text_completion"
    assert request["gen_ai.provider.name"] == "openai"
    assert request["gen_ai.request.max_tokens"] == 7
    assert request["gen_ai.request.temperature"] == 0.5
    assert request["gen_ai.request.stop_sequences"] == ["END"]
    assert request["gen_ai.response.model"] == "gpt-3.5-turbo-instruct:20230824-v2"
    assert request["gen_ai.response.finish_reasons"] == ["stop"]
    assert request["gen_ai.usage.input_tokens"] == 1
    assert request["gen_ai.usage.output_tokens"] == 2
    assert tried["server.address"] == "127.0.0.1"
    assert tried["server.port"] == upstream.port
    assert tried.parent_id == request.span_id and request.parent_id == ""
    assert before <= request.began <= tried.began <= tried.ended + 0.001
    assert tried.ended <= request.ended + 0.001 <= time.time() + 0.001


def test_span_joins_the_callers_trace(
    traced: Traced, upstream, collector: Collector
) -> None:
    caller = traced(upstream)
    sent = {"traceparent": TRACEPARENT, "tracestate": "vendor=1,other=2"}
    response = caller.complete(headers=sent)
    ended(caller)
    request, (tried,) = collector.request, collector.tries

    assert (request.trace_id, request.parent_id) == (TRACE, PARENT)
    assert request.state == tried.state == "vendor=1,other=2"
    headers = upstream.last.headers
    assert headers["traceparent"] == f"00-{TRACE}-{tried.span_id}-01"
    assert headers["tracestate"] == "vendor=1,other=2"
    assert response.headers["x-portkey-trace-id"] == TRACE
    assert request["lastword.trace_id"] == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        "nonsense",
        f"00-{TRACE}-{PARENT}",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)
def test_invalid_traceparent_starts_new_trace(
    traced: Traced, upstream, collector: Collector, traceparent: str
) -> None:
    caller = traced(upstream)
    caller.complete(headers={"traceparent": traceparent, "tracestate": "a=1"})
    ended(caller)

    assert collector.request.parent_id == "" and collector.request.trace_id != TRACE
    assert "tracestate" not in upstream.last.headers


def test_own_traceparent_replaces_forwarded(
    traced: Traced, upstream, collector: Collector
) -> None:
    caller = traced(upstream)
    forward = {"x-portkey-forward-headers": "traceparent"}
    caller.complete(headers={"traceparent": TRACEPARENT} | forward)
    ended(caller)

    (tried,) = collector.tries
    assert upstream.last.headers["traceparent"] == f"00-{TRACE}-{tried.span_id}-01"


@pytest.mark.parametrize(
    ("sampler", "flag", "recorded"),
    [
        ("parentbased_always_on", "00", 0),
        ("parentbased_always_off", "01", 2),
        ("parentbased_always_off", None, 0),
        ("always_on", "00", 2),
        ("always_off", "01", 0),
    ],
)
def test_sampler_decides_recording(
    traced: Traced, upstream, collector: Collector, sampler, flag, recorded
) -> None:
    caller = traced(upstream, {"OTEL_TRACES_SAMPLER": sampler})
    sent = {"traceparent": f"00-{TRACE}-{PARENT}-{flag}"} if flag else {}
    caller.complete(headers=sent)
    ended(caller)

    assert len(collector.spans) == recorded
    traceparent = upstream.last.headers["traceparent"]
    assert traceparent.endswith("-01" if recorded else "-00")


def fallback(*targets: Any) -> dict[str, str]:
    plan = {"strategy": {"mode": "fallback"}, "targets": list(targets)}
    return {"x-portkey-config": json.dumps(plan)}


def at(upstream: Any, **more: Any) -> dict[str, Any]:
    named = {"provider": "openai", "api_key": "sk-1", "custom_host": upstream.url}
    return named | more


def test_retries_and_fallbacks_have_spans(
    traced: Traced, script, collector: Collector
) -> None:
    busy, good = script(whole({"error": {}}, 503)), script(whole(completion()))
    caller = traced(good)
    caller.headers = fallback(
        at(busy, retry={"attempts": 1}, override_params={"model": "first"}), at(good)
    )
    caller.complete(model="second")
    ended(caller)
    tries, request = collector.tries, collector.request

    statuses = [tried["http.response.status_code"] for tried in tries]
    assert statuses == [503, 503, 200]
    assert [tried.failed for tried in tries] == [True, True, False]
    kinds = [tried.attributes.get("error.type") for tried in tries]
    assert kinds == ["503", "503", None]
    models = [tried["gen_ai.request.model"] for tried in tries]
    assert models == ["first", "first", "second"] and not request.failed
    assert {tried.parent_id for tried in tries} == {request.span_id}
    parent_ids = [each.headers["traceparent"].split("-")[2] for each in busy.requests]
    assert parent_ids == [tried.span_id for tried in tries[:2]]


def test_failure_span_has_error_type_only(
    traced: Traced, script, collector: Collector
) -> None:
    gone = script(whole(completion()))
    gone.stop()
    caller = traced(gone)
    caller.complete(prompt="a secret")
    ended(caller)
    request, (tried,) = collector.request, collector.tries

    assert request.failed and tried.failed
    assert request["error.type"] == tried["error.type"] == "UpstreamRefused"
    assert request["http.response.status_code"] == 502
    assert "http.response.status_code" not in tried.attributes
    assert "secret" not in str(collector.spans) and KEY not in str(collector.spans)


def test_attempt_span_ends_with_stream(
    traced: Traced, script, collector: Collector
) -> None:
    caller = traced(script(stream(FRAMES[0], 0.05, *FRAMES[1:])))
    caller.complete(stream=True).get_data()
    ended(caller)
    request, (tried,) = collector.request, collector.tries

    assert tried["gen_ai.request.stream"] is True
    assert tried["gen_ai.response.finish_reasons"] == ["stop"]
    assert tried["gen_ai.response.model"] == "gpt-3.5-turbo-instruct:20230824-v2"
    assert 0 < tried["gen_ai.response.time_to_first_chunk"] < 5
    assert tried.ended == pytest.approx(request.ended, abs=0.001)
    assert tried.ended - tried.began > 0.05


def test_truncation_fails_span_and_hang_up_does_not(
    traced: Traced, script, collector: Collector
) -> None:
    caller = traced(script(cut_stream(FRAMES[0]), stream(FRAMES[0], 0.1, *FRAMES[1:])))
    caller.complete(model="cut", stream=True).get_data()
    response = caller.complete(model="left", stream=True)
    next(response.iter_encoded())
    ended(caller)
    spans = {
        (span.kind, span["gen_ai.request.model"]): span for span in collector.spans
    }

    assert {key: span["error.type"] for key, span in spans.items()} == {
        (2, "cut"): "UpstreamCut",
        (3, "cut"): "UpstreamCut",
        (2, "left"): "CallerLeft",
        (3, "left"): "CallerLeft",
    }
    assert spans[2, "cut"].failed and not spans[2, "left"].failed
    assert spans[2, "cut"]["gen_ai.response.finish_reasons"] == ["error"]
    assert spans[2, "cut"]["lastword.end"] == "cut"


def test_trace_does_not_affect_cache(
    traced: Traced, upstream, collector: Collector
) -> None:
    caller = traced(upstream)
    kept = at(upstream, cache={"mode": "simple"})
    caller.headers = {"x-portkey-config": json.dumps(kept)}
    for _ in range(2):
        assert caller.complete().status_code == 200
    ended(caller)

    assert len(upstream.requests) == 1
    states = {span.attributes.get("lastword.cache") for span in collector.spans}
    assert states == {"miss", "hit", None}
    statuses = [
        tried.attributes.get("http.response.status_code") for tried in collector.tries
    ]
    assert statuses == [200, None]


def test_prompts_are_recorded_on_request(
    traced: Traced, upstream, collector: Collector
) -> None:
    caller = traced(upstream, log_prompts=True)
    caller.complete(prompt="Use sk-proj-0123456789abcdef to say " + "x" * 500)
    ended(caller)
    (message,) = json.loads(collector.request["gen_ai.input.messages"])

    ((part),) = message["parts"]
    assert message["role"] == "user" and part["type"] == "text"
    assert part["content"].startswith("Use [redacted] to say x")
    assert len(part["content"]) == 200


def test_callers_cannot_spoil_spans(
    traced: Traced, upstream, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caller = traced(upstream)
    odd = {"top_k": 2**70, "stop": ["sé" * 8000]}
    states = {"traceparent": TRACEPARENT, "tracestate": "no state = , at all"}
    caller.complete(model="m\0\n", headers=states, **odd)
    caller.complete(model="n" * 5000)
    ended(caller)

    assert len(collector.spans) == 4 and caplog.text == ""
    values = [v for span in collector.spans for v in span.attributes.values()]
    assert max(len(str(value)) for value in values) < 250


def test_service_name_and_headers_come_from_variables(
    traced: Traced, upstream, collector: Collector
) -> None:
    named = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=one"}
    caller = traced(upstream, named | headers)
    caller.complete()
    ended(caller)

    resource = collector.request.resource
    assert resource["service.name"] == "lastword" and resource["service.version"]
    assert resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-tenant"] == "one"


def test_service_name_can_be_set(
    traced: Traced, upstream, collector: Collector
) -> None:
    caller = traced(upstream, {"OTEL_SERVICE_NAME": "completions-eu"})
    caller.complete()
    ended(caller)

    assert collector.request.resource["service.name"] == "completions-eu"


# The table in the documentation


def documented(column: int) -> set[str]:
    """The attributes that have a dot in that column: 0 is that of requests."""
    rows = re.findall(r"^\| `([a-z_.]+)` \| (•?) ?\| (•?) ?\|", DOCS, re.M)
    return {name for name, *dots in rows if dots[column]}


def test_span_attributes_match_documentation(
    traced: Traced, upstream: Upstream, settings: Settings, collector: Collector
) -> None:
    sealed = replace(settings, secret_key="a secret of the tests", store_ttl=0.0001)
    gateway = StoredGateway(traced, upstream, sealed)
    details = {
        "prompt_tokens_details": {"cached_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10, **details}
    slow = stream(FRAMES[0], 0.1, *FRAMES[1:])
    upstream.answers[:] = [whole(completion(usage=usage)), slow]
    target = {"virtual_key": gateway.virtual_key(), "cache": {"mode": "simple"}}
    gateway.store.put_config("pc-1", target)
    gateway.store.put_alias("old", Alias("gpt-4"))
    caller = gateway.caller(gateway.key(), log_prompts=True)
    caller.headers["x-portkey-config"] = "pc-1"
    sampling = {"frequency_penalty": 0.1, "presence_penalty": 0.1, "seed": 1}
    sampling |= {"temperature": 0, "top_k": 5, "top_p": 0.5, "stop": ["x"]}
    caller.complete(model="old", n=1, max_tokens=3, **sampling)
    caller.complete(stream=True).get_data()
    caller.complete(model="left", stream=True)
    ended(caller)
    gateway.store.engine.dispose()

    for column, kind in enumerate((SERVER, CLIENT)):
        spans = [span for span in collector.spans if span.kind == kind]
        attributes = {name for span in spans for name in span.attributes}
        assert attributes == documented(column)


# Settings


def test_no_endpoint_traces_nothing(caller: Caller, upstream) -> None:
    caller.complete(headers={"traceparent": TRACEPARENT})

    assert "traceparent" not in upstream.last.headers


def test_no_endpoint_loads_nothing(tmp_path: Path) -> None:
    code = "import sys, wsgi; print([n for n in sys.modules if 'opentelemetry' in n])"
    environ = {name: os.environ[name] for name in os.environ if "OTEL" not in name}
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env=environ | {"GATEWAY_INSTANCE": str(tmp_path), "OTEL_SERVICE_NAME": "mine"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert process.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "otel",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "true"},
    ],
    ids=str,
)
def test_variables_can_disable_traces(otel: dict[str, str]) -> None:
    assert not otel_settings.tracing_enabled(Settings.from_environ(otel).otel)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "must be otlp or none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "must be http/protobuf"),
    ],
)
def test_unsupported_options_fail_at_start(name, value, right) -> None:
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces"}
    with pytest.raises(BadSettings, match=f"{name}='{value}': {right}"):
        otel_settings.tracing_enabled(variables | {name: value})


def test_batch_options_come_from_variables() -> None:
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_SCHEDULE_DELAY": "1000"}

    assert otel_settings.Batches.of({}) == otel_settings.Batches(2048, 128, 5000)
    assert otel_settings.Batches.of(sizes) == otel_settings.Batches(64, 64, 1000)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_invalid_batch_options_fail_at_start(value: str) -> None:
    with pytest.raises(BadSettings, match="OTEL_BSP_SCHEDULE_DELAY='.*' *: must be"):
        otel_settings.Batches.of({"OTEL_BSP_SCHEDULE_DELAY": value})


def test_missing_package_fails_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "app.observability.traces", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = Settings(otel={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"})

    with pytest.raises(BadSettings, match=r"pip install 'lastword\[otel\]'"):
        otel_settings.span_observer(settings)


def test_unreachable_collector_harms_nothing(
    traced: Traced, upstream, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caller = traced(upstream, {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"})
    collector.stop()
    responses = [caller.complete() for _ in range(3)]
    ended(caller)

    assert [response.status_code for response in responses] == [200] * 3
    assert "Failed to export spans" in caplog.text
