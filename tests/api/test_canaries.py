"""Canary keys are set wherever a key can come from, and every code path is run:
no answer, header, log line or repr may contain one.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api.routing import routing_headers
from app.core.limits import Limits
from app.core.permissions import GatewayKey, VirtualKey
from app.providers import PROVIDERS
from app.settings import BadSettings, Settings
from app.store import factory
from tests.conftest import Caller
from tests.forms import FORMS, pieces
from tests.upstream import (
    DONE,
    ReceivedRequest,
    Upstream,
    close,
    completion,
    cut_stream,
    data,
    delta,
    frame,
    head,
    reply,
    stream,
    whole,
)
from tests.valkey import Valkey

CANARY = "canary-0123456789"

# Settings that are secrets, and the names of headers that may hold them.
SECRETS = {
    (name, setting.name): setting.headers[0]
    for name, provider in PROVIDERS.items()
    for setting in provider.settings
    if setting.secret
}
# Other settings that these providers require.
BESIDE = {
    "bedrock": {"aws_access_key_id": "AKIDEXAMPLE", "aws_region": "eu-west-1"},
    "azure-openai": {
        "azure_entra_tenant_id": "t",
        "azure_entra_client_id": "c",
        "azure_entra_authority": "127.0.0.1:1",
    },
    "azure-ai": {
        "azure_entra_tenant_id": "t",
        "azure_entra_client_id": "c",
        "azure_entra_authority": "127.0.0.1:1",
    },
    "vertex-ai": {"vertex_project_id": "p"},
    "oracle": {
        "oracle_tenancy": "t",
        "oracle_user": "u",
        "oracle_fingerprint": "f",
        "oracle_region": "eu-frankfurt-1",
    },
}


def quoting(request: ReceivedRequest) -> Any:
    """An upstream that quotes every header of the request in its error."""
    error = {
        "error": {"message": f"No: {request.headers} {request.body!r}", "code": CANARY}
    }
    return whole(error, 401, f"x-request-id: {CANARY[:6]}")


def encoding(request: ReceivedRequest) -> Any:
    """An upstream that returns the key in every encoding, whole and truncated."""
    forms = [form(CANARY) for form in FORMS.values()]
    text = " ".join([*forms, *(form[: len(form) * 2 // 3] for form in forms)])
    return whole({"error": {"message": text, "type": text, "code": text}}, 403)


PIECES = {piece for name in FORMS for piece in pieces(CANARY, name)}

ANSWERS: dict[str, Any] = {
    "encodes": encoding,
    "completes": whole(completion()),
    "chats": whole(reply()),
    "quotes": quoting,
    "fails": whole({"error": {"message": "busy"}}, 503),
    "is no JSON": whole(b"<html>", 200),
    "hangs up": [head(200), close],
    "streams": stream(data(frame("x", "stop")), data(delta("x", "stop")), DONE),
    "breaks off": cut_stream(data(frame("x"))),
    "says an error": stream(data({"error": {"message": "in the middle"}})),
}


class Watch:
    """Searches answers and logs for canaries."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log = log

    def searched(self, response: Any) -> Any:
        shown = response.get_data(as_text=True) + str(response.headers)
        # Without numbers: the digits of a thread id may equal a piece by chance.
        values = [v for record in self._log.records for v in vars(record).values()]
        records = "".join(str(v) for v in values if not isinstance(v, (int, float)))
        for text in (shown, self._log.text, records):
            leaked = [piece for piece in PIECES if piece in text]
            assert not leaked, (leaked, text)
        return response


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level(logging.DEBUG)
    return Watch(caplog)


@pytest.fixture(params=ANSWERS)
def answering(request: Any, script: Any) -> Upstream:
    upstream: Upstream = script(ANSWERS[request.param])
    return upstream


@pytest.mark.parametrize(
    "header", ["Authorization", "x-portkey-api-key", "x-api-key", "api-key"]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_key_in_header_is_not_shown(
    call: Callable[..., Caller],
    answering: Upstream,
    watch: Watch,
    header: str,
    streamed: bool,
) -> None:
    caller = call(answering)
    del caller.headers["Authorization"]
    for provider in ("openai", "anthropic", "groq", "azure-openai"):
        sent = {header: CANARY, "x-portkey-provider": provider}
        watch.searched(caller.complete(headers=sent, stream=streamed))
        watch.searched(caller.complete(headers=sent, best_of=50))


@pytest.mark.parametrize("setting", SECRETS, ids="-".join)
@pytest.mark.parametrize("form", ["config", "headers"])
def test_secret_setting_is_not_shown(
    call: Callable[..., Caller],
    answering: Upstream,
    watch: Watch,
    setting: tuple[str, str],
    form: str,
) -> None:
    provider, name = setting
    credentials = BESIDE[provider] | {name: CANARY}
    caller = call(answering)
    caller.headers.clear()
    if form == "config":
        target = {"provider": provider, "custom_host": answering.url, **credentials}
        caller.headers["x-portkey-config"] = json.dumps(target)
    else:
        header_names = {s.name: s.headers[0] for s in PROVIDERS[provider].settings}
        caller.headers |= {
            header_names[key]: value for key, value in credentials.items()
        }
        caller.headers["x-portkey-provider"] = provider
        caller.headers["x-portkey-custom-host"] = answering.url

    watch.searched(caller.complete())
    watch.searched(caller.complete(logprobs=1))
    watch.searched(caller.get("/v1/models"))


@pytest.mark.parametrize(
    "config",
    [
        '{"provider": "openai", "api_key": "CANARY"',
        '{"provider": "openai", "api_key": ["CANARY"]}',
        '{"provider": "nobody", "api_key": "CANARY"}',
        '{"provider": "openai", "api_key": "CANARY", "retry": {"attempts": "x"}}',
        '{"provider": "openai", "api_key": "CANARY", "custom_host": "http://10.0.0.1"}',
        '{"api_key": "CANARY"}',
        '"CANARY"',
        "CANARY",
    ],
)
def test_invalid_config_is_not_quoted(
    call: Callable[..., Caller], upstream: Upstream, watch: Watch, config: str
) -> None:
    caller = call(upstream)
    sent = {"x-portkey-config": config.replace("CANARY", CANARY)}
    response = caller.complete(headers=sent)

    if config != "CANARY":  # This is a config id, and the error says so.
        watch.searched(response)


@pytest.fixture
def stored_canary(settings: Settings) -> Iterator[tuple[Settings, str]]:
    """A store with a canary in a virtual key; and a gateway key that may use it."""
    chosen = replace(settings, secret_key=CANARY)
    store = factory.repository(chosen)
    key = store.create_key(GatewayKey("job"))
    yield chosen, key
    store.engine.dispose()


@pytest.mark.parametrize("provider", ["openai", "groq", "anthropic", "bedrock"])
def test_sealed_secret_is_not_shown(
    call: Callable[..., Caller],
    answering: Upstream,
    stored_canary: tuple[Settings, str],
    watch: Watch,
    provider: str,
) -> None:
    settings, key = stored_canary
    names = {"bedrock": {"aws_access_key_id": "AK", "aws_secret_access_key": CANARY}}
    held = names.get(provider, {"api_key": CANARY})
    store = factory.repository(settings)
    limits = Limits.of({"requests_per_minute": 3, "money_per_day": 1})
    store.put_virtual_key(VirtualKey("v", provider, held, answering.url, limits=limits))
    store.engine.dispose()
    own = {"instance": settings.instance, "secret_key": CANARY, "store_ttl": 0.0001}
    caller = call(answering, **own, ledger=True)
    cache = json.dumps({"virtual_key": "v", "cache": {"mode": "simple"}})
    caller.headers = {"Authorization": f"Bearer {key}", "x-portkey-config": cache}

    for body in ({}, {"stream": True}, {"logprobs": 30}, {"prompt": "Ho"}, {}):
        response = watch.searched(caller.complete(**body))
        assert key not in response.get_data(as_text=True) + str(response.headers)
        # Identical requests wait for this one.
        response.close()
    caller.leave()
    for path in Path(settings.instance).iterdir():
        kept = path.read_bytes()
        assert CANARY.encode() not in kept and key.encode() not in kept, path


@pytest.mark.parametrize("address", ["127.0.0.1:1", "VALKEY", "127.0.0.1:x"])
def test_redis_password_is_not_shown(
    call: Callable[..., Caller],
    upstream: Upstream,
    stored_canary: tuple[Settings, str],
    watch: Watch,
    valkey: Valkey,
    address: str,
) -> None:
    """A server that is down, one without a password, and an invalid address."""
    settings, _ = stored_canary
    host = valkey.url.removeprefix("redis://") if address == "VALKEY" else address
    url = f"redis://:{CANARY}@{host}"
    store = factory.repository(settings)
    limits = Limits.of({"requests_per_minute": 3})
    key = store.create_key(GatewayKey("limited", limits=limits))
    store.put_virtual_key(
        VirtualKey("v", "openai", {"api_key": "sk-1"}, upstream.url, limits=limits)
    )
    store.engine.dispose()
    own = {"instance": settings.instance, "secret_key": CANARY, "store_ttl": 0.0001}
    try:
        caller = call(upstream, **own, redis_url=url)
    except BadSettings as e:
        assert "GATEWAY_REDIS_URL" in str(e) and CANARY not in str(e)
        return
    caller.headers = {"Authorization": f"Bearer {key}", "x-portkey-virtual-key": "v"}

    assert watch.searched(caller.complete()).status_code == 200


def test_reprs_show_no_secret(stored_canary: tuple[Settings, str]) -> None:
    settings, key = stored_canary
    store = factory.repository(settings)
    sealed = VirtualKey("v", "openai", {"api_key": CANARY})
    store.put_virtual_key(sealed)
    shown = repr(
        [settings, sealed, store.contents(), store, routing_headers.RoutingHeaders]
    )
    store.engine.dispose()

    assert CANARY not in shown and key not in shown
