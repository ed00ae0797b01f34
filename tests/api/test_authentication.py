"""Authentication and route resolution over HTTP, with both stores."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.api.routing.auth_throttle import AuthThrottle
from app.core.permissions import Alias
from app.errors import TooManyWrongKeys
from app.settings import Settings
from tests.conftest import Caller
from tests.e2e.server import eventually
from tests.stored_gateway import SEALED, StoredGateway
from tests.upstream import Upstream, completion, reply, whole

OWN = "sk-of-the-callers-own"


@pytest.fixture
def gateway(
    call: Callable[..., Caller], upstream: Upstream, stored: Settings
) -> Iterator[StoredGateway]:
    with StoredGateway(call, upstream, stored) as gateway:
        yield gateway


def config(document: Any) -> dict[str, str]:
    return {"x-portkey-config": json.dumps(document)}


# A caller that can set no header but its key


@pytest.mark.parametrize(
    "header, form",
    [
        ("Authorization", "Bearer {}"),
        ("Authorization", "{}"),
        ("x-portkey-api-key", "{}"),
        ("api-key", "{}"),
        ("x-api-key", "{}"),
    ],
)
def test_gateway_key_is_accepted_in_every_header(
    gateway: StoredGateway, header: str, form: str
) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    key = gateway.key(config="main")
    response = gateway.caller().complete(headers={header: form.format(key)})

    assert response.status_code == 200, response.json
    assert gateway.sent_key == f"Bearer {SEALED}"
    assert key not in str(gateway.upstream.last.headers) + str(response.headers)


def test_retired_model_routes_to_its_alias(gateway: StoredGateway) -> None:
    gateway.store.put_alias(
        "text-davinci-003", Alias("gpt-4o-mini", virtual_key=gateway.virtual_key())
    )
    response = gateway.caller(gateway.key()).complete(model="text-davinci-003")

    assert response.status_code == 200
    assert gateway.upstream.last.json["model"] == "gpt-4o-mini"
    assert gateway.sent_key == f"Bearer {SEALED}"
    assert response.headers["x-lastword-model-alias"] == (
        "text-davinci-003 -> gpt-4o-mini"
    )


# Authentication


@pytest.mark.parametrize(
    "change", [{"disabled": True}, {"expires": 1_000_000_000}], ids=str
)
def test_expired_key_is_refused(gateway: StoredGateway, change: Any) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    response = gateway.caller(gateway.key(config="main", **change)).complete()

    assert response.status_code == 401
    assert response.json["error"]["code"] == "invalid_api_key"
    assert gateway.upstream.requests == []


def test_unknown_gateway_key_is_refused(
    gateway: StoredGateway,
) -> None:
    gateway.key()
    headers = {"x-portkey-provider": "openai"}
    response = gateway.caller("lw-" + "x" * 32).complete(headers=headers)

    assert response.status_code == 401 and gateway.upstream.requests == []
    assert "lw-xxx" not in response.get_data(as_text=True)


def test_stored_resources_need_a_gateway_key(gateway: StoredGateway) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    for headers in (
        {"x-portkey-config": "main"},
        {"x-portkey-virtual-key": "openai-1"},
        {"x-portkey-provider": "@openai-1"},
        config({"virtual_key": "openai-1"}),
        config({"provider": "@openai-1"}),
        {},
    ):
        assert gateway.caller().complete(headers=headers).status_code == 401
        own = {"Authorization": f"Bearer {OWN}", **headers}
        assert gateway.caller().complete(headers=own).status_code in (400, 401)
    named = gateway.caller(OWN).complete(model="@openai-1/gpt-4o")
    assert named.status_code == 401 and gateway.upstream.requests == []


def test_first_stored_record_requires_keys(gateway: StoredGateway) -> None:
    headers = {
        "x-portkey-provider": "vllm",
        "x-portkey-custom-host": gateway.upstream.url,
    }
    caller = gateway.caller()
    assert caller.complete(headers=headers).status_code == 200
    gateway.virtual_key()
    time.sleep(0.001)

    assert caller.complete(headers=headers).status_code == 401


def test_reachable_gateway_requires_keys(gateway: StoredGateway) -> None:
    headers = {
        "x-portkey-provider": "vllm",
        "x-portkey-custom-host": gateway.upstream.url,
    }
    outside = gateway.caller(bind="0.0.0.0:8787")
    opened = gateway.caller(bind="0.0.0.0:8787", auth="open")

    assert outside.complete(headers=headers).status_code == 401
    assert opened.complete(headers=headers).status_code == 200


def test_open_gateway_serves_stored_resources(gateway: StoredGateway) -> None:
    headers = {"x-portkey-virtual-key": gateway.virtual_key()}
    response = gateway.caller(auth="open").complete(headers=headers)

    assert response.status_code == 200 and gateway.sent_key == f"Bearer {SEALED}"


# The callers' own provider keys (BYOK)


def test_provider_key_of_the_caller_works(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": gateway.upstream.url,
    }
    assert gateway.caller(OWN).complete(headers=headers).status_code == 200
    assert gateway.sent_key == f"Bearer {OWN}"


@pytest.mark.parametrize("with_ours", [True, False])
def test_provider_key_is_refused_without_byok(
    gateway: StoredGateway, with_ours: bool
) -> None:
    ours = {"x-portkey-api-key": gateway.key()} if with_ours else {}
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": gateway.upstream.url,
        **ours,
    }
    response = gateway.caller(OWN, byok=False).complete(headers=headers)

    assert response.status_code == 403 and gateway.upstream.requests == []


def test_both_keys_may_be_sent_together(gateway: StoredGateway) -> None:
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": gateway.upstream.url,
        "x-portkey-api-key": gateway.key(allowed={"providers": ["openai"]}),
    }
    assert gateway.caller(OWN).complete(headers=headers).status_code == 200
    assert gateway.sent_key == f"Bearer {OWN}"


def test_gateway_key_is_never_forwarded(gateway: StoredGateway) -> None:
    target = {
        "virtual_key": gateway.virtual_key(),
        "forward_headers": ["authorization", "x-portkey-api-key", "x-a"],
    }
    gateway.store.put_config("main", target)
    key = gateway.key(config="main")
    gateway.caller(key).complete(headers={"x-portkey-api-key": key, "x-a": "b"})

    assert key not in str(gateway.upstream.last.headers)
    assert gateway.sent_key == f"Bearer {SEALED}"
    assert gateway.upstream.last.headers["x-a"] == "b"


# Permissions of a gateway key


@pytest.mark.parametrize(
    "allowed, headers, body, status",
    [
        ({"configs": ["main"]}, {"x-portkey-config": "main"}, {}, 200),
        ({"configs": ["other"]}, {"x-portkey-config": "main"}, {}, 403),
        ({"configs": []}, {"x-portkey-config": "main"}, {}, 403),
        ({}, {"x-portkey-config": "absent"}, {}, 403),
        ({"virtual_keys": ["open*"]}, {"x-portkey-virtual-key": "openai-1"}, {}, 200),
        ({"virtual_keys": ["x"]}, {"x-portkey-virtual-key": "openai-1"}, {}, 403),
        ({"virtual_keys": ["x"]}, {"x-portkey-provider": "@openai-1"}, {}, 403),
        ({"virtual_keys": ["x"]}, config({"virtual_key": "openai-1"}), {}, 403),
        ({"virtual_keys": ["x"]}, {}, {"model": "@openai-1/m"}, 403),
        ({"virtual_keys": ["x"]}, {"x-portkey-config": "main"}, {}, 200),
        ({}, {"x-portkey-virtual-key": "absent"}, {}, 403),
        ({"models": ["gpt-*"]}, {"x-portkey-config": "main"}, {"model": "gpt-4"}, 200),
        ({"models": ["gpt-*"]}, {"x-portkey-config": "main"}, {"model": "o3"}, 403),
        ({"providers": ["groq"]}, {"x-portkey-config": "main"}, {}, 403),
        (
            {"models": ["gpt-*"]},
            config({"virtual_key": "openai-1", "override_params": {"model": "dear"}}),
            {"model": "gpt-4"},
            403,
        ),
    ],
)
def test_key_is_limited_to_its_lists(
    gateway: StoredGateway, allowed: Any, headers: Any, body: Any, status: int
) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    response = gateway.caller(gateway.key(allowed=allowed)).complete(
        headers=headers, **body
    )

    assert response.status_code == status, response.json
    assert len(gateway.upstream.requests) == (status == 200)


def test_forbidden_and_missing_look_alike(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    caller = gateway.caller(gateway.key(allowed={"virtual_keys": []}))

    def refusal_text(id: str) -> str:
        response = caller.complete(headers={"x-portkey-virtual-key": id})
        assert response.status_code == 403
        return str(response.json["error"]).replace(id, "ID")

    assert refusal_text("openai-1") == refusal_text("nothing-1")


def test_disabled_virtual_key_is_refused(gateway: StoredGateway) -> None:
    gateway.virtual_key(disabled=True)
    headers = {"x-portkey-virtual-key": "openai-1"}

    assert gateway.caller(gateway.key()).complete(headers=headers).status_code == 403


# Credentials and settings of virtual keys cannot be overridden


@pytest.mark.parametrize(
    "headers",
    [
        {"x-portkey-virtual-key": "openai-1", "x-portkey-custom-host": "HOST"},
        config({"virtual_key": "openai-1", "custom_host": "HOST"}),
        config(
            {
                "strategy": {"mode": "single"},
                "custom_host": "HOST",
                "targets": [{"virtual_key": "openai-1"}],
            }
        ),
    ],
    ids=["header", "config", "config above"],
)
def test_virtual_key_refuses_custom_host(
    gateway: StoredGateway, script: Any, headers: dict[str, str]
) -> None:
    thief = script(whole(completion()))
    gateway.virtual_key()
    sent = {k: v.replace("HOST", thief.url) for k, v in headers.items()}
    response = gateway.caller(gateway.key()).complete(headers=sent)

    assert response.status_code == 403 and thief.requests == []


def test_virtual_key_ignores_callers_settings(
    gateway: StoredGateway, script: Any
) -> None:
    thief = script(whole(reply()))
    gateway.virtual_key(
        "face", provider="huggingface", settings={"api_key": SEALED}, custom_host=None
    )
    stolen = {"virtual_key": "face", "huggingface_base_url": thief.url}
    gateway.caller(gateway.key()).complete(headers=config(stolen))

    assert thief.requests == []


def test_stored_config_sets_virtual_key_host(gateway: StoredGateway) -> None:
    id = gateway.virtual_key(custom_host=None)
    gateway.store.put_config(
        "main", {"virtual_key": id, "custom_host": gateway.upstream.url}
    )

    assert gateway.caller(gateway.key(config="main")).complete().status_code == 200


# Virtual keys


def test_virtual_key_adds_default_params(gateway: StoredGateway) -> None:
    id = gateway.virtual_key(model="gpt-4o", params={"temperature": 0.5, "top_p": 0.1})
    caller = gateway.caller(gateway.key())
    headers = {"x-portkey-virtual-key": id}
    body = {"prompt": "Hi", "temperature": 0.9}
    response = caller.post(json.dumps(body).encode(), headers=headers)

    assert response.status_code == 200, response.json
    assert gateway.upstream.last.json == {
        "model": "gpt-4o",
        "prompt": "Hi",
        "temperature": 0.9,
        "top_p": 0.1,
    }


def test_virtual_key_holds_provider_settings(
    gateway: StoredGateway, script: Any
) -> None:
    answer = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Yes"}]}},
        "stopReason": "end_turn",
    }
    amazon = script(whole(answer))
    gateway.virtual_key(
        "aws",
        provider="bedrock",
        custom_host=amazon.url,
        settings={
            "aws_access_key_id": "AKIDEXAMPLE",
            "aws_secret_access_key": SEALED,
            "aws_region": "eu-west-1",
        },
    )
    response = gateway.caller(gateway.key()).complete(
        model="@aws/amazon.nova-lite-v1:0"
    )

    assert response.status_code == 200, response.json
    assert "AKIDEXAMPLE" in amazon.last.headers["authorization"]
    assert "/eu-west-1/bedrock/" in amazon.last.headers["authorization"]
    assert amazon.last.path.endswith("/model/amazon.nova-lite-v1%3A0/converse")


def test_virtual_key_in_model_name_is_removed(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    gateway.caller(gateway.key()).complete(model="@openai-1/org/model")

    assert gateway.upstream.last.json["model"] == "org/model"
    assert gateway.sent_key == f"Bearer {SEALED}"


# Precedence of route sources


def test_config_id_comes_first(gateway: StoredGateway) -> None:
    id = gateway.virtual_key()
    for name in ("named", "own"):
        override = {"override_params": {"model": name}}
        gateway.store.put_config(name, {"virtual_key": id} | override)
    caller = gateway.caller(gateway.key(config="own"))

    caller.complete(headers={"x-portkey-config": "named"})
    assert gateway.upstream.last.json["model"] == "named"
    caller.complete()
    assert gateway.upstream.last.json["model"] == "own"
    caller.complete(headers={"x-portkey-virtual-key": id}, model="m")
    assert gateway.upstream.last.json["model"] == "m"


def test_default_config_serves_keys_without_one(gateway: StoredGateway) -> None:
    id = gateway.virtual_key()
    target = {"virtual_key": id, "override_params": {"model": "default"}}
    gateway.store.put_config("main", target)
    key = gateway.key()

    for default in ("main", json.dumps(target)):
        response = gateway.caller(key, default_config=default).complete()
        assert response.status_code == 200, response.json
        assert gateway.upstream.last.json["model"] == "default"


def test_request_without_route_is_portkeys_400(gateway: StoredGateway) -> None:
    response = gateway.caller(gateway.key()).complete()

    assert response.status_code == 400
    assert response.json["message"] == (
        "Either x-portkey-config or x-portkey-provider header is required"
    )


def test_engine_needs_a_gateway_key(gateway: StoredGateway) -> None:
    key = gateway.key()
    url = gateway.upstream.url.removesuffix("/v1")
    on = {"engine": True, "engine_url": url}

    assert gateway.caller(key, **on).complete().status_code == 200
    own = gateway.caller(OWN, **on)
    assert own.complete().status_code == 400
    named = own.complete(headers={"x-portkey-provider": "local"})
    assert named.status_code == 401


def test_missing_default_config_is_reported(gateway: StoredGateway) -> None:
    response = gateway.caller(gateway.key(config="gone")).complete()

    assert response.status_code == 403 and "config" in response.json["error"]["message"]


# Aliases


def test_nearest_alias_wins(gateway: StoredGateway) -> None:
    id = gateway.virtual_key()
    near = {"m": {"model": "of-config"}}
    gateway.store.put_config("main", {"virtual_key": id, "model_aliases": near})
    gateway.store.put_config("plain", {"virtual_key": id})
    gateway.store.put_alias("m", Alias("of-all"))
    own = gateway.caller(
        gateway.key("a", config="main", aliases={"m": Alias("of-key")})
    )
    others = gateway.caller(gateway.key("b", config="main"))
    plain = gateway.caller(gateway.key("c", config="plain"))

    for caller, expected in ((own, "key"), (others, "config"), (plain, "all")):
        caller.complete(model="m")
        assert gateway.upstream.last.json["model"] == f"of-{expected}"


def test_alias_before_shutdown_date_warns(gateway: StoredGateway) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    gateway.store.put_alias("m", Alias("n", shutdown_date="9999-12-31"))
    response = gateway.caller(gateway.key(config="main")).complete(model="m")

    assert gateway.upstream.last.json["model"] == "m"
    assert "m will be shut down on 9999-12-31" in response.headers["x-lastword-warning"]
    assert "x-lastword-model-alias" not in response.headers


def test_alias_from_shutdown_date_answers(gateway: StoredGateway) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    gateway.store.put_alias("m", Alias("n", shutdown_date="2026-09-28"))
    gateway.caller(gateway.key(config="main")).complete(model="m")

    assert gateway.upstream.last.json["model"] == "n"


def test_alias_drops_key_of_other_provider(gateway: StoredGateway, script: Any) -> None:
    other = script(whole(reply()))
    gateway.virtual_key("other", provider="groq", custom_host=other.url)
    gateway.store.put_alias("m", Alias("n", virtual_key="other"))
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-api-key": gateway.key(),
    }
    response = gateway.caller(OWN).complete(model="m", headers=headers)

    assert response.status_code == 200, response.json
    assert other.last.headers["authorization"] == f"Bearer {SEALED}"
    assert OWN not in str(other.last.headers)


# Changes of the store, and its failure


def test_store_change_takes_effect_soon(gateway: StoredGateway) -> None:
    id = gateway.virtual_key()
    gateway.store.put_config("main", {"virtual_key": id})
    key = gateway.key(config="main")
    caller = gateway.caller(key)
    assert caller.complete().status_code == 200
    (stored_key,) = gateway.store.contents().keys.values()
    gateway.store.update_key(replace(stored_key, disabled=True))
    time.sleep(0.001)

    assert caller.complete().status_code == 401


def test_cached_records_need_no_query(
    gateway: StoredGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy

    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    caller = gateway.caller(gateway.key(config="main"), store_ttl=60.0)
    caller.complete()
    statements: list[str] = []

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        for _ in range(5):
            assert caller.complete().status_code == 200
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)
    assert statements == []


@pytest.mark.parametrize("auth", ["keys", ""])
def test_provider_key_works_without_store(
    settings: Settings, call, upstream: Upstream, auth: str
) -> None:
    """A request that needs the store gets a 503 that says so."""
    gone = "postgresql://nobody@127.0.0.1:1/none"
    caller = call(upstream, database_url=gone, auth=auth)
    caller.headers.clear()
    own = {
        "Authorization": f"Bearer {OWN}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": upstream.url,
    }
    stored = {"Authorization": "Bearer lw-" + "x" * 32}

    assert caller.complete(headers=own).status_code == 200
    response = caller.complete(headers=stored)
    assert response.status_code == 503
    assert response.json["error"]["code"] == "store_unavailable"
    assert not Path(settings.instance).exists()


# Throttling of wrong keys


def test_delay_of_wrong_keys_grows() -> None:
    now, slept = [0.0], []
    slowdown = AuthThrottle(slept.append, lambda: now[0])
    for _ in range(12):
        slowdown.record_failure("10.0.0.1")

    assert slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    slowdown.record_failure("10.0.0.2")
    now[0] = 61.0
    slowdown.record_failure("10.0.0.1")
    assert len(slept) == 7


class Crowd:
    """Concurrent wrong keys, one thread each; delayed ones wait for `go_on`."""

    def __init__(self) -> None:
        self.go_on, self.waiting = threading.Event(), threading.Semaphore(0)
        self.slowdown = AuthThrottle(self._sleep)
        self.outcomes: list[str] = []

    def _sleep(self, seconds: float) -> None:
        self.waiting.release()
        assert self.go_on.wait(10)

    def come(self, address: str) -> None:
        try:
            self.slowdown.record_failure(address)
            self.outcomes.append("answered")
        except TooManyWrongKeys:
            self.outcomes.append("refused")


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.go_on.set()


def test_wrong_keys_are_counted_atomically(crowd: Crowd) -> None:
    """Of many at once, five are immediate, two are delayed, the rest get a 429."""
    with ThreadPoolExecutor(40) as pool:
        for _ in range(40):
            pool.submit(crowd.come, "10.0.0.1")
        assert all(crowd.waiting.acquire(timeout=10) for _ in range(2))
        eventually(lambda: len(crowd.outcomes) == 38)
        assert Counter(crowd.outcomes) == {"answered": 5, "refused": 33}
        crowd.go_on.set()

    assert Counter(crowd.outcomes) == {"answered": 7, "refused": 33}
    crowd.come("10.0.0.1")
    assert crowd.outcomes[-1] == "answered"


def test_waiting_of_all_addresses_is_bounded(crowd: Crowd) -> None:
    addresses = [f"10.0.0.{number}" for number in range(6)]
    for _ in range(5):
        for address in addresses:
            crowd.slowdown.record_failure(address)
    with ThreadPoolExecutor(12) as pool:
        for address in addresses:
            pool.submit(crowd.come, address)
            pool.submit(crowd.come, address)
        assert all(crowd.waiting.acquire(timeout=10) for _ in range(8))
        eventually(lambda: crowd.outcomes == ["refused"] * 4)
        crowd.slowdown.record_failure("10.0.0.99")
        crowd.go_on.set()


def test_addresses_with_wrong_keys_are_bounded() -> None:
    slowdown = AuthThrottle(lambda seconds: None)
    for number in range(25_000):
        slowdown.record_failure(f"address-{number}")

    assert len(slowdown._failures) <= 10_000 and not slowdown._waiting


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses for which wrong keys were counted."""
    addresses: list[str] = []
    monkeypatch.setattr(
        AuthThrottle, "record_failure", lambda _, address: addresses.append(address)
    )
    return addresses


def test_only_wrong_keys_are_counted(
    gateway: StoredGateway, counted: list[str]
) -> None:
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    allowed = {"configs": [], "models": ["gpt-*"]}
    key = gateway.key(config="main", allowed=allowed)
    caller = gateway.caller(key, metrics_token="a token of the tests")

    assert caller.complete(model="gpt-4o").status_code == 200
    forbidden = [caller.complete(model="o1"), with_config(caller, "main")]
    assert {response.status_code for response in forbidden} == {403}
    caller.headers.clear()
    assert caller.complete().status_code == 401
    assert caller.get("/metrics").status_code == 401
    assert counted == []


def with_config(caller: Caller, id: str) -> Any:
    return caller.complete(headers={"x-portkey-config": id})


def test_each_wrong_key_is_counted(gateway: StoredGateway, counted: list[str]) -> None:
    disabled = gateway.key("old", disabled=True)
    expired = gateway.key("older", expires=1)
    caller = gateway.caller(metrics_token="a token of the tests")
    for key in ("lw-wrong", disabled, expired):
        caller.headers["Authorization"] = f"Bearer {key}"
        assert caller.complete().status_code == 401
        assert caller.get("/v1/models").status_code == 401
    caller.headers["Authorization"] = "Bearer a wrong token"
    assert caller.get("/metrics").status_code == 401

    assert counted == ["127.0.0.1"] * 7


def test_too_many_wrong_keys_are_429(
    gateway: StoredGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(slowdown: AuthThrottle, address: str) -> None:
        raise TooManyWrongKeys

    gateway.virtual_key()
    key = gateway.key()
    monkeypatch.setattr(AuthThrottle, "record_failure", full)
    caller = gateway.caller("lw-wrong")
    refused = caller.complete()

    assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
    assert refused.json["error"]["code"] == "too_many_wrong_keys"
    caller.headers["Authorization"] = f"Bearer {key}"
    named = {"x-portkey-virtual-key": "openai-1"}
    assert caller.complete(headers=named).status_code == 200


@pytest.mark.parametrize(
    "peer, forwarded, address",
    [
        ("192.0.2.1", "203.0.113.5", "203.0.113.5"),
        ("192.0.2.1", "1.1.1.1, 203.0.113.5", "203.0.113.5"),
        ("192.0.2.1", "2001:db8:0:1:2::3", "2001:db8:0:1::/64"),
        ("192.0.2.9", "203.0.113.5", "192.0.2.9"),
        ("", "203.0.113.5", ""),
    ],
)
def test_wrong_keys_count_by_client_behind_proxy(
    gateway: StoredGateway, counted: list[str], peer: str, forwarded: str, address: str
) -> None:
    caller = gateway.caller(trusted_proxies=("192.0.2.1",))
    caller.app.test_client().post(
        "/v1/completions",
        json={"model": "m", "prompt": "Hi"},
        headers={"Authorization": "Bearer lw-wrong", "X-Forwarded-For": forwarded},
        environ_overrides={"REMOTE_ADDR": peer},
    )

    assert counted == [address]


def test_trusted_proxy_requires_keys(gateway: StoredGateway) -> None:
    """Behind a proxy, callers on other machines can reach the gateway."""
    assert gateway.caller(auth="").complete().json["error"]["code"] == "invalid_route"
    proxied = gateway.caller(auth="", trusted_proxies=("unix",)).complete()
    assert proxied.json["error"]["code"] == "missing_api_key"
