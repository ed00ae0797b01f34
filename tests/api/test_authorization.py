"""A gateway key reaches what it is allowed to and nothing else, tested over HTTP.

The key `lim` may use one virtual key, one provider, one config, and models of one
family. The tests check what arrives at the upstream.
"""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.core.credentials import holds_gateway_key
from app.core.limits import Limits
from app.core.parameter_aliases import BUDGET_SPELLINGS, MODEL_ALTERNATIVES
from app.core.permissions import Alias
from app.providers import PROVIDERS
from app.settings import Settings
from tests.conftest import Caller, Script
from tests.stored_gateway import SEALED, StoredGateway
from tests.upstream import Upstream, completion, reply, whole

OWN = "sk-of-the-callers-own"
MODEL = "gpt-3.5-turbo-instruct"
SEALED_B = "sk-sealed-for-others"


@pytest.fixture
def gateway(
    call: Callable[..., Caller], upstream: Upstream, settings: Settings
) -> Iterator[StoredGateway]:
    """A gateway that stores vk-a and vk-b."""
    with StoredGateway(call, upstream, settings) as gateway:
        gateway.virtual_key("vk-a")
        gateway.virtual_key("vk-b", settings={"api_key": SEALED_B})
        yield gateway


LIM = {
    "virtual_keys": ["vk-a"],
    "models": ["gpt-3.5*"],
    "providers": ["openai"],
    "configs": ["cfg-a"],
}


def lim(gateway: StoredGateway, **fields: Any) -> Caller:
    """A caller with the key `lim`."""
    return gateway.caller(gateway.key("lim", allowed=LIM, **fields))


def config(document: Any) -> dict[str, str]:
    return {"x-portkey-config": json.dumps(document)}


def refused(gateway: StoredGateway, response: Any, status: int = 403) -> str:
    """The message of a refusal before any upstream call."""
    assert response.status_code == status, response.json
    assert gateway.upstream.requests == []
    return str(response.json["error"]["message"])


# Aliases and the effective model


def test_sent_alias_grants_no_virtual_key(gateway: StoredGateway) -> None:
    alias = {MODEL: {"model": "gpt-3.5-x", "virtual_key": "vk-b"}}
    sent = {"virtual_key": "vk-a", "model_aliases": alias}
    response = lim(gateway).complete(model=MODEL, headers=config(sent))

    assert "vk-b" in refused(gateway, response)


@pytest.mark.parametrize("where", ["everybody's", "key's", "config's"])
def test_stored_alias_grants_its_virtual_key(
    gateway: StoredGateway, where: str
) -> None:
    alias = Alias("gpt-3.5-new", virtual_key="vk-b")
    fields: dict[str, Any] = {}
    if where == "everybody's":
        gateway.store.put_alias(MODEL, alias)
    elif where == "key's":
        fields["aliases"] = {MODEL: alias}
    else:
        aliases = {MODEL: {"model": alias.model, "virtual_key": "vk-b"}}
        stored = {"virtual_key": "vk-a", "model_aliases": aliases}
        gateway.store.put_config("cfg-a", stored)
        fields["config"] = "cfg-a"
    caller = lim(gateway, **fields)
    assert caller.complete(model=MODEL).status_code == 200
    assert gateway.sent_key == f"Bearer {SEALED_B}"
    assert gateway.upstream.last.json["model"] == "gpt-3.5-new"

    # Neither for another model nor by another route.
    gateway.upstream.requests.clear()
    direct = {"x-portkey-virtual-key": "vk-b"}
    refused(gateway, caller.complete(model="gpt-3.5-new", headers=direct))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_aliases": {MODEL: {"model": "o1-pro"}}},
        {"override_params": {"model": "o1-pro"}},
        {
            "default_params": {"model": "gpt-3.5-x"},
            "drop_params": ["model"],
            "override_params": {"model": "o1-pro"},
        },
    ],
    ids=["alias", "override", "dropped and overridden"],
)
def test_model_after_overrides_must_be_allowed(
    gateway: StoredGateway, changes: Any
) -> None:
    sent = {"virtual_key": "vk-a", **changes}
    response = lim(gateway).complete(model=MODEL, headers=config(sent))

    assert "o1-pro" in refused(gateway, response)


def test_stored_alias_grants_only_its_model(gateway: StoredGateway) -> None:
    gateway.store.put_alias(MODEL, Alias("gpt-4o", virtual_key="vk-b"))
    response = lim(gateway).complete(
        model=MODEL, headers={"x-portkey-virtual-key": "vk-a"}
    )

    assert "gpt-4o" in refused(gateway, response)


def test_virtual_keys_model_must_be_allowed(gateway: StoredGateway) -> None:
    gateway.virtual_key("vk-a", model="gpt-4o")
    body = json.dumps({"prompt": "Hi"}).encode()
    response = lim(gateway).post(body, headers={"x-portkey-virtual-key": "vk-a"})

    assert "gpt-4o" in refused(gateway, response)


def test_default_params_model_must_be_allowed(gateway: StoredGateway) -> None:
    sent = {"virtual_key": "vk-a", "default_params": {"model": "gpt-4o"}}
    body = json.dumps({"prompt": "Hi"}).encode()

    assert "gpt-4o" in refused(gateway, lim(gateway).post(body, headers=config(sent)))


@pytest.mark.parametrize("how", ["header", "config", "alias name", "sealed"])
def test_deployment_counts_as_a_model(gateway: StoredGateway, how: str) -> None:
    """Azure takes the model from the deployment, whatever the body names."""
    allowed = {"models": ["gpt-3.5*"]}
    host = {"x-portkey-custom-host": gateway.upstream.url}
    azure = {"x-portkey-provider": "azure-openai", **host}
    headers = {
        "header": {**azure, "x-portkey-azure-deployment-id": "gpt-4o"},
        "config": config({"provider": "azure-openai", "azure_deployment_id": "gpt-4o"}),
        "alias name": config({"provider": "azure-openai", "deployment_id": "gpt-4o"}),
        "sealed": {"x-portkey-virtual-key": "azure"},
    }[how]
    sealed = {"api_key": SEALED, "azure_deployment_id": "gpt-4o"}
    gateway.virtual_key("azure", provider="azure-openai", settings=sealed)
    caller = gateway.caller(gateway.key(allowed=allowed))
    own = {"x-portkey-api-key": OWN}
    response = caller.complete(model=MODEL, headers=host | headers | own)

    if how == "sealed":
        response = caller.complete(model=MODEL, headers=headers | own)
    assert "gpt-4o" in refused(gateway, response)


# Forwarded headers with a virtual key

CREDENTIALS = (
    "authorization",
    "Cookie",
    "API-Key",
    "x-api-key",
    "X-Goog-Api-Key",
    "x-auth-token",
    "X-Amz-Security-Token",
    "x-vendor-secret",
)


@pytest.mark.parametrize("where", ["header", "sent config", "stored config"])
@pytest.mark.parametrize("name", [*CREDENTIALS, "openai-project", "OpenAI-BETA"])
def test_virtual_key_refuses_forwarded_credentials(
    gateway: StoredGateway, name: str, where: str
) -> None:
    sealed = {"api_key": SEALED, "openai_project": "project-of-the-operator"}
    gateway.virtual_key("vk-a", settings=sealed)
    listed = {"virtual_key": "vk-a", "forward_headers": [name, "x-tenant"]}
    gateway.store.put_config("cfg-a", listed)
    headers = {
        "header": {
            "x-portkey-virtual-key": "vk-a",
            "x-portkey-forward-headers": f"{name}, x-tenant",
        },
        "sent config": config(listed),
        "stored config": {"x-portkey-config": "cfg-a"},
    }[where]
    caller = lim(gateway)
    if name == "authorization":
        caller.headers = {"x-portkey-api-key": caller.headers["Authorization"]}
    sent = {**headers, name: "of the caller", "x-tenant": "t"}
    response = caller.complete(model=MODEL, headers=sent)

    assert response.status_code == 200, response.json
    arrived = gateway.upstream.last.headers
    assert "of the caller" not in str(arrived)
    assert arrived["authorization"] == f"Bearer {SEALED}"
    assert arrived["openai-project"] == "project-of-the-operator"
    assert arrived["x-tenant"] == "t"


NEVER = (
    "proxy-connection accept-encoding content-encoding content-length host te "
    "connection keep-alive upgrade trailer proxy-authorization expect"
).split()


@pytest.mark.parametrize("name", NEVER)
def test_connection_headers_are_never_forwarded(
    caller: Caller, upstream: Upstream, name: str
) -> None:
    caller.complete(headers={"x-portkey-forward-headers": "TE"})
    usual = upstream.last.headers.get(name)
    sent = {"x-portkey-forward-headers": name.upper(), "x-sent": "1"}
    if name not in ("content-length", "host", "expect", "content-encoding"):
        sent[name] = "sent-by-the-test"
    caller.complete(headers=sent)

    assert upstream.last.headers.get(name) == usual or name == "host"
    assert "sent-by-the-test" not in str(upstream.last.headers)


def test_forwarded_header_replaces_a_setting_once(
    caller: Caller, upstream: Upstream
) -> None:
    """Without a virtual key the caller's header replaces the setting."""
    headers = {
        "x-portkey-openai-project": "of the setting",
        "OpenAI-Project": "of the header",
        "x-portkey-forward-headers": "OPENAI-project",
    }
    caller.complete(headers=headers)

    assert upstream.last.headers["openai-project"] == "of the header"


# GATEWAY_BYOK=0

SECRETS = sorted(
    {
        (provider.name, setting.name, setting.headers[0])
        for provider in PROVIDERS.values()
        for setting in provider.settings
        if setting.secret
    }
)


@pytest.mark.parametrize("location", ["config", "header"])
@pytest.mark.parametrize(
    "provider, name, header", SECRETS, ids=[f"{p}-{n}" for p, n, _ in SECRETS]
)
def test_byok_off_refuses_credential_settings(
    gateway: StoredGateway, provider: str, name: str, header: str, location: str
) -> None:
    host = {"x-portkey-custom-host": gateway.upstream.url}
    headers = (
        config({"provider": provider, name: "secret-of-the-caller"})
        if location == "config"
        else {"x-portkey-provider": provider, header: "secret-of-the-caller"}
    )
    caller = gateway.caller(gateway.key(), byok=False)
    response = caller.complete(headers=host | headers)

    message = refused(gateway, response)
    assert "GATEWAY_BYOK" in message and name in message
    assert "secret-of-the-caller" not in message


def own_credentials(gateway: StoredGateway) -> dict[str, dict[str, str]]:
    host = {"x-portkey-custom-host": gateway.upstream.url}
    openai = {"x-portkey-provider": "openai", **host}
    forward = {"x-portkey-forward-headers": "api-key, cookie"}
    return {
        "key beside": {**openai, "api-key": OWN},
        "api_key": config({"provider": "openai", "api_key": OWN}) | host,
        "nested api_key": config(
            {
                "strategy": {"mode": "fallback"},
                "targets": [
                    {"virtual_key": "vk-a"},
                    {"provider": "groq", "api_key": OWN},
                ],
            }
        ),
        "forwarded cookie": {**openai, **forward, "cookie": OWN},
        "keyless provider": {
            "x-portkey-provider": "vllm",
            **host,
            "x-portkey-forward-headers": "x-auth-token",
            "x-auth-token": OWN,
        },
    }


@pytest.mark.parametrize(
    "how",
    "key beside,api_key,nested api_key,forwarded cookie,keyless provider".split(","),
)
def test_byok_off_refuses_callers_credentials(gateway: StoredGateway, how: str) -> None:
    caller = gateway.caller(gateway.key(), byok=False)
    caller.headers = {"x-portkey-api-key": caller.headers["Authorization"]}
    response = caller.complete(headers=own_credentials(gateway)[how])

    assert "GATEWAY_BYOK" in refused(gateway, response)


def test_byok_off_allows_virtual_keys(gateway: StoredGateway) -> None:
    caller = gateway.caller(gateway.key(), byok=False)
    headers = {"x-portkey-virtual-key": "vk-a"}

    assert caller.complete(headers=headers).status_code == 200


def test_byok_off_allows_default_config(gateway: StoredGateway) -> None:
    """A key in GATEWAY_DEFAULT_CONFIG is the operator's; a caller's own is refused."""
    target = {"provider": "openai", "custom_host": gateway.upstream.url}
    own = json.dumps(target | {"api_key": SEALED})
    key = gateway.key()
    assert (
        gateway.caller(key, byok=False, default_config=own).complete().status_code
        == 200
    )
    assert gateway.sent_key == f"Bearer {SEALED}"

    gateway.upstream.requests.clear()
    caller = gateway.caller(key, byok=False, default_config=json.dumps(target))
    refused(gateway, caller.complete(headers={"x-portkey-api-key": OWN}))


# Provider-specific names of max_tokens and model


@pytest.mark.parametrize("word", sorted(BUDGET_SPELLINGS))
def test_only_one_token_budget_is_sent(
    caller: Caller, upstream: Upstream, word: str
) -> None:
    """Under the target's own name; max_tokens if the caller sends both."""
    caller.complete(**{word: 7})
    assert _budgets(upstream.last.json) == {"max_tokens": 7}
    response = caller.complete(max_tokens=3, **{word: 60})

    assert _budgets(upstream.last.json) == {"max_tokens": 3}
    assert word in response.headers["x-lastword-dropped-params"]


def _budgets(body: dict[str, Any]) -> dict[str, Any]:
    words = {*BUDGET_SPELLINGS, "max_tokens"}
    return {name: value for name, value in body.items() if name in words}


@pytest.mark.parametrize("value", [-1, "60", 1.5, None, True, [], 10**12])
def test_unusable_token_budget_is_dropped(
    caller: Caller, upstream: Upstream, value: Any
) -> None:
    caller.complete(n_predict=value)

    assert _budgets(upstream.last.json) == {}


@pytest.mark.parametrize("outer", ["options", "parameters", "extra_body"])
def test_nested_token_budget_is_dropped(
    caller: Caller, upstream: Upstream, outer: str
) -> None:
    response = caller.complete(max_tokens=3, **{outer: {"num_predict": 60, "x": 1}})

    assert upstream.last.json[outer] == {"x": 1}
    dropped = response.headers["x-lastword-dropped-params"]
    assert dropped == f"{outer}.num_predict"


def test_override_budget_wins_under_any_name(
    call: Callable[..., Caller], upstream: Upstream
) -> None:
    caller = call(upstream)
    override = {"override_params": {"max_completion_tokens": 5}}
    headers = config({"provider": "openai", "api_key": OWN} | override)
    caller.complete(headers=headers, n_predict=500)

    assert _budgets(upstream.last.json) == {"max_tokens": 5}


def test_chat_budget_uses_its_own_name(
    call: Callable[..., Caller], script: Script
) -> None:
    upstream = script(whole(reply()))
    headers = config({"provider": "openai", "api_key": OWN, "via": "chat"})
    body = {"model": "gpt-5", "max_new_tokens": 2000, "n_predict": 3000}
    call(upstream).complete(headers=headers, **body)

    assert _budgets(upstream.last.json) == {"max_completion_tokens": 2000}


@pytest.mark.parametrize("via", ["native", "chat"])
def test_messages_do_not_replace_the_prompt(
    call: Callable[..., Caller], script: Script, via: str
) -> None:
    upstream = script(whole(reply() if via == "chat" else completion()))
    headers = config({"provider": "openai", "api_key": OWN, "via": via})
    other = [{"role": "user", "content": "Another prompt."}]
    response = call(upstream).complete(headers=headers, messages=other)

    assert "Another prompt." not in upstream.last.body.decode()
    assert response.headers["x-lastword-dropped-params"] == "messages"


def test_reservation_covers_renamed_budget(gateway: StoredGateway) -> None:
    limits = Limits.of({"tokens_per_day": 30})
    caller = lim(gateway, limits=limits)
    headers = {"x-portkey-virtual-key": "vk-a"}
    response = caller.complete(model=MODEL, headers=headers, n_predict=60)

    assert "tokens_per_day" in refused(gateway, response, 429)


@pytest.mark.parametrize("name", sorted(MODEL_ALTERNATIVES))
def test_alternative_models_are_refused(gateway: StoredGateway, name: str) -> None:
    headers = {"x-portkey-virtual-key": "vk-a"}
    response = lim(gateway).complete(model=MODEL, headers=headers, **{name: ["gpt-4o"]})

    assert name in refused(gateway, response)


@pytest.mark.parametrize("whose", ["gateway key", "virtual key"])
def test_money_limit_refuses_alternative_models(
    gateway: StoredGateway, whose: str
) -> None:
    limits = Limits.of({"money_per_day": 1})
    if whose == "virtual key":
        gateway.virtual_key("vk-a", limits=limits)
        limits = Limits()
    caller = gateway.caller(gateway.key(limits=limits))
    headers = {"x-portkey-virtual-key": "vk-a"}
    response = caller.complete(model=MODEL, headers=headers, models=["o1-pro"])

    assert "models" in refused(gateway, response)


def test_unlimited_key_may_send_alternatives(
    caller: Caller, upstream: Upstream
) -> None:
    caller.complete(models=["a", "b"])

    assert upstream.last.json["models"] == ["a", "b"]


# Gateway keys never travel


def forms(key: str) -> dict[str, str]:
    """The spellings of a key that clients and attackers send."""
    return {
        "bearer": f"Bearer {key}",
        "basic": f"Basic {key}",
        "token": f"Token {key}",
        "tab": f"bearer\t{key}",
        "bare": key,
        "within": f"a={key}; b",
        "quoted": f'Digest user="{key}"',
        "percent": quote(key, safe="").replace("-", "%2D"),
        "base64": "Basic " + base64.b64encode(key.encode()).decode(),
        "base64 user": "Basic " + base64.b64encode(f"{key}:".encode()).decode(),
        "base64 password": "Basic " + base64.b64encode(f"u:{key}".encode()).decode(),
        "base64 url": base64.urlsafe_b64encode(f"ab:{key}".encode()).decode(),
    }


@pytest.mark.parametrize("form", forms("lw-x"))
def test_gateway_key_is_never_sent_upstream(gateway: StoredGateway, form: str) -> None:
    key = gateway.key()
    caller = gateway.caller(key)
    value = forms(key)[form]
    headers = {
        "x-portkey-provider": "vllm",
        "x-portkey-custom-host": gateway.upstream.url,
        "x-portkey-forward-headers": "x-copy, x-auth-token",
        "x-copy": value,
        "x-auth-token": value,
    }
    response = caller.complete(headers=headers)

    assert response.status_code == 200, response.json
    assert not {"x-copy", "x-auth-token"} & set(gateway.upstream.last.headers)
    assert not any(map(holds_gateway_key, gateway.upstream.last.headers.values()))


@pytest.mark.parametrize("form", ["bearer", "token", "basic", "tab", "bare"])
def test_gateway_key_works_with_any_scheme(gateway: StoredGateway, form: str) -> None:
    caller = gateway.caller()
    headers = {
        "Authorization": forms(gateway.key())[form],
        "x-portkey-provider": "@vk-a",
    }

    assert caller.complete(headers=headers).status_code == 200
    assert gateway.sent_key == f"Bearer {SEALED}"


def test_gateway_key_as_provider_key_is_refused(gateway: StoredGateway) -> None:
    key = gateway.key()
    host = {"x-portkey-custom-host": gateway.upstream.url}
    for document in (
        {"provider": "openai", "api_key": f"Token {key}"},
        {"provider": "azure-openai", "azure_ad_token": key},
        {"provider": "openai", "api_key": "x", "openai_organization": f"o {key}"},
    ):
        response = gateway.caller(key).complete(headers=host | config(document))
        message = refused(gateway, response, 400)
        assert key not in message and "key of this gateway" in message


# Cache scopes


def cached(gateway: StoredGateway, key: str, **target: Any) -> Any:
    """The answer to a request with *key* that uses the shared cache."""
    document = {"provider": "openai", "cache": {"mode": "simple", "scope": "config"}}
    headers = config(document | target)
    headers["x-portkey-custom-host"] = gateway.upstream.url
    return gateway.caller(key).complete(headers=headers)


def test_sent_config_without_key_shares_no_cache(gateway: StoredGateway) -> None:
    for key in (OWN, "sk-wrong"):
        response = cached(gateway, key)
        assert response.headers["x-portkey-cache-status"] == "MISS"
    assert cached(gateway, OWN).headers["x-portkey-cache-status"] == "HIT"


def test_provider_key_cannot_poison_shared_cache(gateway: StoredGateway) -> None:
    """An answer to a caller's own credentials is cached for these alone."""
    shared = {"provider": "openai", "cache": {"mode": "simple", "scope": "config"}}
    gateway.store.put_config("shared", shared | {"custom_host": gateway.upstream.url})

    def status(name: str, own: str) -> str:
        headers = {"x-portkey-config": "shared", "x-portkey-api-key": gateway.key(name)}
        response = gateway.caller(own).complete(headers=headers)
        return str(response.headers["x-portkey-cache-status"])

    assert [status("one", OWN), status("two", "sk-other")] == ["MISS", "MISS"]


@pytest.mark.parametrize("scope", ["config", "credentials"])
def test_forwarded_credential_disables_cache(
    gateway: StoredGateway, scope: str
) -> None:
    shared = {"provider": "vllm", "cache": {"mode": "simple", "scope": scope}}
    gateway.store.put_config("shared", shared | {"custom_host": gateway.upstream.url})
    caller = gateway.caller(gateway.key())
    headers = {
        "x-portkey-config": "shared",
        "x-portkey-forward-headers": "x-auth-token",
    }
    for _ in range(2):
        response = caller.complete(headers=headers | {"x-auth-token": "mine"})
        assert response.headers["x-portkey-cache-status"] == "DISABLED"
    assert len(gateway.upstream.requests) == 2

    response = caller.complete(headers={"x-portkey-config": "shared"})
    assert response.headers["x-portkey-cache-status"] == "MISS"


# The list of models


def test_model_list_is_filtered(gateway: StoredGateway, script: Script) -> None:
    data = [{"id": id, "object": "model"} for id in (MODEL, "gpt-4o", "gpt-3.5-x")]
    lists = script(whole({"object": "list", "data": data}))
    gateway.virtual_key("vk-a", custom_host=lists.url)
    caller = lim(gateway)
    caller.headers["x-portkey-virtual-key"] = "vk-a"
    response = caller.get("/v1/models")

    assert response.status_code == 200, response.json
    assert [m["id"] for m in response.json["data"]] == [MODEL, "gpt-3.5-x"]


def test_model_list_needs_the_provider(gateway: StoredGateway) -> None:
    allowed = {"providers": ["groq"], "models": ["*"]}
    caller = gateway.caller(gateway.key(allowed=allowed))
    caller.headers["x-portkey-virtual-key"] = "vk-a"
    response = caller.get("/v1/models")

    assert "openai" in refused(gateway, response)


def test_whole_answer_keeps_its_bytes(caller: Caller, upstream: Upstream) -> None:
    """The check does not change an answer: its bytes are passed on as received."""
    body = caller.complete().data

    assert json.loads(body) == completion()
