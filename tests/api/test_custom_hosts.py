"""Which hosts callers and stored configs may have the gateway call, over HTTP.

A scripted upstream on this machine stands for an internal service.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.core.hosts import LOCALHOST
from app.settings import Settings
from tests.conftest import Caller, upgrade_database
from tests.stored_gateway import StoredGateway
from tests.upstream import Upstream

# Suffixes of a URL that would cut off the path that the gateway appends.
RESTS = ("/x?", "/x?a=b", "/x#", "/x;", "/x%2f", "/x/../y", "/%2E%2e/y", "/x\\y", "?")
KEY = {"Authorization": "Bearer sk-of-the-caller"}


@pytest.fixture
def stored(settings: Settings) -> Settings:
    upgrade_database(settings)
    return replace(settings, secret_key="a secret of the tests", store_ttl=0.0001)


@pytest.fixture
def gateway(call: Any, upstream: Upstream, stored: Settings) -> Iterator[StoredGateway]:
    with StoredGateway(call, upstream, stored) as gateway:
        yield gateway


def complete(caller: Caller, headers: dict[str, str], **environ: str) -> Any:
    return caller.app.test_client().post(
        "/v1/completions",
        json={"model": "m", "prompt": "Hi"},
        headers=headers,
        environ_overrides=environ,
    )


def config(**fields: Any) -> dict[str, str]:
    return {"x-portkey-config": json.dumps(fields)}


HeaderSource = Callable[[str], dict[str, str]]


def nested(name: str, provider: str) -> HeaderSource:
    """The setting *name* in a target of a config."""

    def source(url: str) -> dict[str, str]:
        target = {"provider": provider, "api_key": "k", name: url}
        return config(strategy={"mode": "fallback"}, targets=[target])

    return source


# Every source of a custom host in a caller's request.
HEADER_SOURCES: dict[str, HeaderSource] = {
    "header": lambda url: {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": url,
    },
    "config": lambda url: config(provider="openai", custom_host=url),
    "camelCase": lambda url: config(provider="openai", customHost=url),
    "target": nested("custom_host", "openai"),
    "huggingface header": lambda url: {
        "x-portkey-provider": "huggingface",
        "x-portkey-huggingface-base-url": url,
    },
    "huggingface config": nested("huggingface_base_url", "huggingface"),
    "azure header": lambda url: {
        "x-portkey-provider": "azure-ai",
        "x-portkey-azure-foundry-url": url,
    },
    "azure config": nested("azure_foundry_url", "azure-ai"),
}


@pytest.mark.parametrize("source", HEADER_SOURCES)
def test_plain_base_url_is_called(call, upstream: Upstream, source: str) -> None:
    url = f"http://127.0.0.1:{upstream.port}/base"
    complete(call(upstream), HEADER_SOURCES[source](url) | KEY)

    assert upstream.last.path.startswith("/base/")


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("source", HEADER_SOURCES)
def test_callers_base_url_has_no_query(
    call, upstream: Upstream, source: str, rest: str
) -> None:
    url = f"http://127.0.0.1:{upstream.port}{rest}"
    refused = complete(call(upstream), HEADER_SOURCES[source](url) | KEY)

    assert refused.status_code == 400 and upstream.opened == 0
    assert "must not hold" in refused.get_data(as_text=True)


@pytest.mark.parametrize("rest", RESTS)
def test_stored_base_url_has_no_query(gateway: StoredGateway, rest: str) -> None:
    """Also a URL stored before the check existed: it is validated at the call."""
    url = f"http://127.0.0.1:{gateway.upstream.port}{rest}"
    gateway.virtual_key("by-host", custom_host=url)
    settings = {"api_key": "k", "huggingface_base_url": url}
    gateway.virtual_key(
        "by-setting", provider="huggingface", settings=settings, custom_host=None
    )
    gateway.virtual_key("plain")
    gateway.store.put_config("main", {"virtual_key": "plain", "custom_host": url})
    caller = gateway.caller(gateway.key())
    for source in ("by-host", "by-setting"):
        refused = caller.complete(headers={"x-portkey-virtual-key": source})
        assert refused.status_code == 400, source
        assert "must not hold" in refused.json["error"]["message"]
    refused = caller.complete(headers={"x-portkey-config": "main"})

    assert refused.status_code == 400 and gateway.upstream.opened == 0
    assert refused.json["error"]["code"] == "invalid_custom_host"


@pytest.mark.parametrize("rest", RESTS)
def test_default_config_hosts_are_checked(call, upstream: Upstream, rest: str) -> None:
    url = f"http://127.0.0.1:{upstream.port}{rest}"
    document = json.dumps({"provider": "openai", "custom_host": url})
    refused = complete(call(upstream, default_config=document), KEY)

    assert refused.status_code == 400 and upstream.opened == 0


# Loopback hosts


def local(upstream: Upstream, source: str = "header") -> dict[str, str]:
    return HEADER_SOURCES[source](upstream.url) | KEY


@pytest.mark.parametrize("bind", ["127.0.0.1:8787", "[::1]:80,127.0.0.1:80"])
@pytest.mark.parametrize("auth", ["", "open"])
@pytest.mark.parametrize("source", HEADER_SOURCES)
def test_loopback_is_trusted_in_development(
    call, upstream: Upstream, source: str, auth: str, bind: str
) -> None:
    caller = call(upstream, trusted_custom_hosts=None, auth=auth, bind=bind)
    complete(caller, local(upstream, source))

    assert upstream.opened == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"auth": "keys"},
        {"bind": "0.0.0.0:8787"},
        {"bind": "127.0.0.1:80,0.0.0.0:81"},
        {"bind": "0.0.0.0:8787", "auth": "open"},
        {"trusted_proxies": ("127.0.0.1",)},
        {"trusted_proxies": ("unix",), "auth": "open"},
        {"trusted_custom_hosts": ()},
        {"trusted_custom_hosts": ("vllm", "10.0.0.0/8")},
    ],
    ids=str,
)
@pytest.mark.parametrize("source", HEADER_SOURCES)
def test_loopback_must_be_listed_elsewhere(
    call, upstream: Upstream, source: str, changes: dict[str, Any]
) -> None:
    caller = call(upstream, **{"trusted_custom_hosts": None} | changes)
    refused = complete(caller, local(upstream, source))

    assert refused.status_code == 400 and upstream.opened == 0
    message = refused.get_data(as_text=True)
    assert "GATEWAY_TRUSTED_CUSTOM_HOSTS lists 127.0.0.1" in message
    named = call(upstream, **changes | {"trusted_custom_hosts": ("127.0.0.1",)})
    complete(named, local(upstream, source))
    assert upstream.opened == 1


@pytest.mark.parametrize(
    "header",
    ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via", "X-Forwarded-Proto"],
)
def test_proxied_request_cannot_reach_loopback(
    call, upstream: Upstream, header: str
) -> None:
    caller = call(upstream, trusted_custom_hosts=None)

    assert complete(caller, local(upstream) | {header: "127.0.0.1"}).status_code == 400
    assert upstream.opened == 0


@pytest.mark.parametrize("peer", ["192.0.2.1", "", "fe80::1", "x"])
def test_remote_client_cannot_reach_loopback(
    call, upstream: Upstream, peer: str
) -> None:
    """As with `flask run --host`, an address that the gateway does not know."""
    caller = call(upstream, trusted_custom_hosts=None)

    assert complete(caller, local(upstream), REMOTE_ADDR=peer).status_code == 400
    assert upstream.opened == 0


def test_stored_keys_end_trust_in_loopback(gateway: StoredGateway) -> None:
    key = gateway.key()
    caller = gateway.caller(key, trusted_custom_hosts=None)
    for source in HEADER_SOURCES:
        headers = HEADER_SOURCES[source](gateway.upstream.url) | {"x-api-key": "sk-own"}
        assert caller.complete(headers=headers).status_code == 400, source

    assert gateway.upstream.opened == 0


def test_stored_loopback_host_must_be_listed(gateway: StoredGateway) -> None:
    """Also where a caller could name it; and the error does not show the stored URL."""
    url = gateway.upstream.url
    gateway.virtual_key()
    gateway.store.put_config("main", {"provider": "openai", "custom_host": url})
    open_ = {"trusted_custom_hosts": None, "auth": "open"}
    by_key = {"x-portkey-virtual-key": "openai-1"}
    by_id = {"x-portkey-config": "main"} | KEY
    for headers in (by_key, by_id):
        refused = complete(gateway.caller(**open_), headers)
        assert refused.status_code == 400
        assert refused.json["error"]["code"] == "invalid_custom_host"
        message = refused.json["error"]["message"]
        assert "GATEWAY_TRUSTED_CUSTOM_HOSTS" in message and "127.0.0" not in message
    assert gateway.upstream.opened == 0
    complete(gateway.caller(**open_), local(gateway.upstream))
    assert gateway.upstream.opened == 1
    named = open_ | {"trusted_custom_hosts": ("127.0.0.1",)}
    assert complete(gateway.caller(**named), by_key).status_code == 200
    assert complete(gateway.caller(**named), by_id).status_code == 200


def test_default_config_loopback_must_be_listed(call, upstream) -> None:
    document = json.dumps({"provider": "openai", "custom_host": upstream.url})
    options = {"default_config": document, "trusted_custom_hosts": None}
    refused = complete(call(upstream, **options), KEY)

    assert refused.status_code == 400 and upstream.opened == 0
    assert "GATEWAY_TRUSTED_CUSTOM_HOSTS" in refused.json["errors"][0]
    named = options | {"trusted_custom_hosts": LOCALHOST}
    assert complete(call(upstream, **named), KEY).status_code == 200


def test_refused_stored_host_fails_its_target(gateway: StoredGateway, script) -> None:
    """The other targets of the route are tried."""
    fine = script(*gateway.upstream.answers)
    gateway.virtual_key("bad", custom_host="http://10.0.0.1:8000/v1")
    gateway.virtual_key("good", custom_host=fine.url)
    targets = [{"virtual_key": "bad"}, {"virtual_key": "good"}]
    document = {"strategy": {"mode": "fallback"}, "targets": targets}
    gateway.store.put_config("main", document)
    answered = gateway.caller(gateway.key(config="main")).complete()

    assert answered.status_code == 200 and fine.opened == 1


def test_ipv6_loopback_is_trusted_in_development(call, upstream: Upstream) -> None:
    """Nothing listens there: the call fails, and is not refused."""
    caller = call(upstream, trusted_custom_hosts=None)
    headers = HEADER_SOURCES["header"](f"http://[::1]:{upstream.port}/v1") | KEY

    assert complete(caller, headers).status_code == 502
