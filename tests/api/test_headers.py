"""Request and response headers: routes, keys, and what is forwarded.

Numbers are those of the cases in docs/contract.md.
"""

from typing import Any

import pytest

from tests.conftest import KEY, Caller
from tests.upstream import Upstream, completion, whole

PORTKEY_SDK = {"x-portkey-package-version": "portkey-2.3.4"}


def both_shapes(response: Any) -> tuple[str, str]:
    """The messages of an error that has OpenAI's shape and Portkey's in one body."""
    assert response.status_code == 400
    assert set(response.json) == {"error", "status", "message"}
    assert response.json["status"] == "failure"
    assert set(response.json["error"]) == {"message", "type", "param", "code"}
    return response.json["error"]["message"], response.json["message"]


# Cases 110 and 111, and Portkey's checks in its order


def test_110_missing_route_has_both_error_shapes(
    caller: Caller,
) -> None:
    caller.headers = {}
    words = "Either x-portkey-config or x-portkey-provider header is required"

    assert both_shapes(caller.complete()) == (words, words)


@pytest.mark.parametrize("provider", ["nobody", "OpenAI", "openai "])
def test_111_unknown_provider_is_refused(caller: Caller, provider: str) -> None:
    ours, portkeys = both_shapes(
        caller.complete(headers={"x-portkey-provider": provider})
    )

    assert portkeys == "Invalid provider passed"
    assert repr(provider.strip()) in ours or repr(provider) in ours
    assert "openai" in ours


@pytest.mark.parametrize(
    "host",
    [
        "http://10.1.2.3/v1",
        "http://192.168.0.1",
        "http://172.16.0.1:8000",
        "http://169.254.169.254/latest",
        "http://100.64.0.1",
        "http://0.0.0.0",
        "http://[::]",
        "http://[fd00::1]",
        "http://[fe80::1]",
        "http://[::ffff:10.0.0.1]",
        "http://0x0a.1",
        "http://167772161",
        "http://012.0.0.1",
        "http://metadata.google.internal",
        "http://metadata",
        "http://printer.local",
        "http://db.internal",
        "http://user:secret@example.com",
        "ftp://example.com",
        "example.com",
        "http://",
        "http://exa mple.com",
        "http://example.com:0",
        "http://example.com:99999",
        "http://example.com?x=1",
        "http://api.portkey.ai",
        "http://[::1",
    ],
)
def test_internal_or_invalid_host_is_refused(caller: Caller, host) -> None:
    ours, portkeys = both_shapes(
        caller.complete(headers={"x-portkey-custom-host": host})
    )

    assert portkeys == "Invalid custom host"
    assert "secret" not in ours


def test_trusted_network_may_be_listed(call, upstream: Upstream) -> None:
    local = upstream.url.replace("127.0.0.1", "127.0.0.2")
    trusting = call(upstream, trusted_custom_hosts=("127.0.0.0/29",))
    refusing = call(upstream, trusted_custom_hosts=())

    host = {"x-portkey-custom-host": local}
    assert trusting.complete(headers=host).status_code in (200, 502)
    assert refusing.complete(headers=host).status_code == 400


@pytest.mark.parametrize("header", ["x-portkey-config", "x-portkey-virtual-key"])
def test_missing_record_is_refused_clearly(caller: Caller, upstream, header) -> None:
    ours, _ = both_shapes(caller.complete(headers={header: "pc-123"}))

    assert "pc-123" in ours
    assert upstream.requests == []


def test_forward_headers_must_not_name_itself(caller: Caller) -> None:
    named = {"x-portkey-forward-headers": "x-a, X-Portkey-Forward-Headers"}
    _, portkeys = both_shapes(caller.complete(headers=named))

    assert portkeys == (
        "forward_headers must not contain the 'x-portkey-forward-headers' header"
    )


def test_checks_run_in_portkeys_order(caller: Caller) -> None:
    wrong = {"x-portkey-provider": "nobody", "x-portkey-custom-host": "ftp://x"}
    everything = caller.post(b"{", headers=wrong, content_type="text/plain")
    headers_and_body = caller.post(b"{", headers=wrong)

    assert both_shapes(everything)[1] == "Invalid content type passed"
    assert both_shapes(headers_and_body)[1] == "Invalid provider passed"


# Case 113: keys


def without_key(caller: Caller) -> Caller:
    del caller.headers["Authorization"]
    return caller


@pytest.mark.parametrize(
    "headers, key",
    [
        ({"Authorization": "Bearer k1"}, "k1"),
        ({"Authorization": "bearer  k1"}, "k1"),
        ({"Authorization": "k1"}, "k1"),
        ({"x-api-key": "k2"}, "k2"),
        ({"api-key": "k3"}, "k3"),
        ({"x-portkey-api-key": "k4"}, "k4"),
        ({"x-portkey-api-key": "k4", "Authorization": "Bearer k1"}, "k4"),
        ({"Authorization": "Bearer k1", "api-key": "k3"}, "k1"),
        ({"x-portkey-api-key": "pk", "Authorization": "Bearer k1"} | PORTKEY_SDK, "k1"),
        (
            {"x-portkey-api-key": "k4", "Authorization": "Bearer OPENAI_API_KEY"}
            | PORTKEY_SDK,
            "k4",
        ),
        ({"Authorization": "Bearer OPENAI_API_KEY", "api-key": "k3"}, "k3"),
    ],
)
def test_113_provider_key_is_read_from_every_header(
    caller: Caller, upstream: Upstream, headers: dict[str, str], key: str
) -> None:
    assert without_key(caller).complete(headers=headers).status_code == 200
    assert upstream.last.headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer OPENAI_API_KEY"},
        {
            "Authorization": "Bearer OPENAI_API_KEY",
            "x-portkey-forward-headers": "authorization",
        },
    ],
)
def test_113_no_key_sends_no_authorization(caller: Caller, upstream, headers) -> None:
    response = without_key(caller).complete(headers=headers)

    assert response.status_code == 401
    assert response.json["error"]["code"] == "missing_api_key"
    assert upstream.requests == []


# Case 95: what goes upstream


def test_95_no_other_header_goes_upstream(caller: Caller, upstream: Upstream) -> None:
    caller.complete(
        headers={
            "Cookie": "session=1",
            "X-Stainless-Lang": "python",
            "x-portkey-metadata": '{"user": "u"}',
            "x-portkey-trace-id": "t",
            "traceparent": "00-1-2-01",
            "User-Agent": "OpenAI/v1 PythonBindings/0.28.1",
            "X-Forwarded-For": "1.2.3.4",
            "OpenAI-Organization": "not-through-this-header",
        }
    )

    sent = """accept accept-encoding authorization content-length content-type host
    user-agent""".split()
    assert sorted(upstream.last.headers) == sent
    assert upstream.last.headers["user-agent"].startswith("lastword/")


def test_netrc_and_proxy_variables_are_ignored(
    call, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password stolen")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")

    assert call(upstream).complete().status_code == 200
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"


def test_upstream_cookies_are_dropped(call, script) -> None:
    upstream = script(whole(completion(), 200, "Set-Cookie: a=secret; Path=/"))
    caller = call(upstream)
    first, second = caller.complete(), caller.complete()

    assert "Set-Cookie" not in first.headers and "Set-Cookie" not in second.headers
    assert "cookie" not in upstream.last.headers


def test_forwarded_headers_take_precedence(caller: Caller, upstream) -> None:
    caller.complete(
        headers={
            "x-portkey-forward-headers": "X-Tenant, authorization, host, missing",
            "X-Tenant": "acme",
            "Authorization": "Basic abc",
        }
    )

    assert upstream.last.headers["x-tenant"] == "acme"
    assert upstream.last.headers["authorization"] == "Basic abc"
    assert upstream.last.headers["host"] == f"127.0.0.1:{upstream.port}"


def test_openai_settings_use_portkeys_headers(caller: Caller, upstream) -> None:
    caller.complete(
        headers={
            "x-portkey-openai-organization": "org-1",
            "x-portkey-openai-project": "proj-1",
        }
    )

    assert upstream.last.headers["openai-organization"] == "org-1"
    assert upstream.last.headers["openai-project"] == "proj-1"


# Case 94: what comes back


def test_94_only_useful_headers_come_back(call, script) -> None:
    passed = {
        "x-request-id": "req_1",
        "x-ratelimit-remaining-requests": "9",
        "openai-processing-ms": "12",
        "retry-after": "3",
        "retry-after-ms": "3000",
    }
    kept = {"server": "cloud", "via": "1.1 x", "alt-svc": "h3", "cf-ray": "1"}
    sent = [f"{name}: {value}" for name, value in (passed | kept).items()]
    headers = call(script(whole(completion(), 200, *sent))).complete().headers

    assert {name: headers[name] for name in passed} == passed
    assert not set(kept) & {name.lower() for name in headers.keys()}


def test_answer_names_its_route(caller: Caller) -> None:
    headers = caller.complete(headers={"x-portkey-trace-id": "trace 1"}).headers

    assert headers["x-portkey-provider"] == "openai"
    assert headers["x-portkey-last-used-option-index"] == "config"
    assert headers["x-portkey-retry-attempt-count"] == "0"
    assert headers["x-portkey-cache-status"] == "DISABLED"
    assert headers["x-portkey-trace-id"] == "trace 1"


def test_trace_id_is_generated_when_absent(caller: Caller) -> None:
    traces = {caller.complete().headers["x-portkey-trace-id"] for _ in range(2)}

    assert len(traces) == 2 and all(traces)


@pytest.mark.parametrize("value", ["{", "[1]", "5", '{"user": "u"}'])
def test_invalid_metadata_is_ignored(caller: Caller, value: str) -> None:
    assert caller.complete(headers={"x-portkey-metadata": value}).status_code == 200


# GET /v1/models


def test_model_list_is_the_providers(call, script) -> None:
    listed = {"object": "list", "data": [{"id": "m", "object": "model"}]}
    upstream = script(whole(listed))
    response = call(upstream).get("/v1/models")

    assert response.json == listed
    assert (upstream.last.method, upstream.last.path) == ("GET", "/v1/models")
    assert upstream.last.headers["authorization"] == f"Bearer {KEY}"


def test_model_list_without_route_is_refused(caller: Caller) -> None:
    caller.headers = {}

    assert both_shapes(caller.get("/v1/models"))


def test_invalid_model_list_is_upstream_error(call, script) -> None:
    response = call(script(whole({"hello": "world"}))).get("/v1/models")

    assert response.status_code == 502
    assert response.json["provider"] == "openai"


# Health


def test_health_checks_pass_without_engine(caller: Caller) -> None:
    assert caller.get("/healthz").json == {"status": "ok"}
    assert caller.get("/readyz").json == {"status": "ok", "engine": "off"}
    assert "POST /v1/completions" in caller.get("/").get_data(as_text=True)


def test_local_provider_reports_engine_off(caller: Caller) -> None:
    response = caller.complete(
        headers={"x-portkey-provider": "local", "x-portkey-custom-host": ""}
    )

    assert response.status_code == 503
    assert "GATEWAY_ENGINE=1" in response.json["error"]["message"]


def test_local_provider_explains_installation(call, upstream: Upstream) -> None:
    caller = call(upstream, engine=True)
    caller.headers = {}
    response = caller.complete()

    assert response.status_code == 503
    assert "make serve" in response.json["error"]["message"]
    assert caller.get("/readyz").status_code == 503


def test_local_provider_refuses_custom_host(call, upstream: Upstream) -> None:
    caller = call(upstream, engine=True)
    caller.headers["x-portkey-provider"] = "local"

    assert "runs in the gateway" in both_shapes(caller.complete())[0]


def test_host_without_provider_is_refused(call, upstream: Upstream) -> None:
    caller = call(upstream, engine=True)
    del caller.headers["x-portkey-provider"]

    assert both_shapes(caller.complete())


BAD_TRACE_IDS = {
    "long": "t" * 129,
    "longer": "t" * 60_000,
    "Latin-1": "a\u00e9\u00ff",
    "a tab": "a\tb",
}


@pytest.mark.parametrize("path", ["/v1/completions", "/nowhere"])
@pytest.mark.parametrize("name", BAD_TRACE_IDS)
def test_invalid_trace_ids_are_refused(
    caller: Caller, upstream: Upstream, caplog: Any, name: str, path: str
) -> None:
    """The request is refused; the id is neither in the answer nor in the log."""
    caplog.set_level("INFO")
    trace_id = BAD_TRACE_IDS[name]
    response = caller.complete(path, headers={"x-portkey-trace-id": trace_id})

    message, _ = both_shapes(response)
    assert "Invalid x-portkey-trace-id: expected at most 128 " in message
    shown = response.get_data(as_text=True) + str(response.headers) + caplog.text
    assert trace_id not in shown and len(response.headers["x-portkey-trace-id"]) == 36
    assert upstream.requests == []


def test_longest_trace_ids_are_accepted(caller: Caller) -> None:
    trace = "".join(map(chr, range(0x21, 0x7F))) + "-" * 34
    response = caller.complete(headers={"x-portkey-trace-id": trace})

    assert response.headers["x-portkey-trace-id"] == trace
