"""`@` in the name of a model: a virtual key only if there is one, and nothing else
names the provider.

Models of Workers AI (`@cf/meta/llama-3-8b`) and presets of OpenRouter (`@preset/name`)
have such names. One rule holds wherever the name comes from.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.api.config.nodes import ConfigNode
from app.api.config.parsing import validate_config
from app.console.dry_run import DryRunRequest, dry_run
from app.console.services import ConsoleServices
from app.core.permissions import Alias, split_model
from app.settings import Settings
from tests.conftest import Absent, Caller, Script
from tests.stored_gateway import SEALED, StoredGateway
from tests.upstream import Upstream, whole

CLOUDFLARE = "@cf/meta/llama-3-8b"
PRESET = "@preset/a-name"
OWN = "sk-the-callers-own"


@pytest.fixture
def gateway(
    call: Callable[..., Caller], upstream: Upstream, settings: Settings
) -> Iterator[StoredGateway]:
    """A gateway with a store."""
    sealed = replace(settings, secret_key="a secret of the tests", store_ttl=0.0001)
    with StoredGateway(call, upstream, sealed) as gateway:
        yield gateway


def config(value: dict[str, Any]) -> dict[str, str]:
    return {"x-portkey-config": json.dumps(value)}


@pytest.mark.parametrize(
    "name, parts",
    [
        ("@openai-1/gpt-4o", ("openai-1", "gpt-4o")),
        ("@openai-1/org/model", ("openai-1", "org/model")),
        (CLOUDFLARE, ("cf", "meta/llama-3-8b")),
        ("@openai-1/@cf/meta/llama", ("openai-1", "@cf/meta/llama")),
        ("@openai-1", None),
        ("@/model", None),
        ("@1/model", None),
        ("@a b/model", None),
        ("gpt-4o", None),
        ("org/model@preset/name", None),
        ("", None),
        (None, None),
        (["@a/b"], None),
    ],
    ids=str,
)
def test_model_name_is_split_at_first_slash(name: Any, parts: Any) -> None:
    assert split_model(name) == parts


# A route that names its provider: the whole name goes upstream


def _headers(gateway: StoredGateway) -> dict[str, str]:
    return {
        "x-portkey-provider": "openrouter",
        "x-portkey-custom-host": gateway.upstream.url,
        "Authorization": f"Bearer {OWN}",
    }


def _leaf(gateway: StoredGateway) -> dict[str, Any]:
    host = gateway.upstream.url
    return {"provider": "openrouter", "custom_host": host, "api_key": OWN}


# Headers and body of each; MODEL stands for the name.
ROUTES: dict[str, Callable[[StoredGateway], tuple[dict[str, str], dict[str, Any]]]] = {
    "header": lambda g: (_headers(g), {}),
    "config": lambda g: (config(_leaf(g)), {}),
    "config and header": lambda g: (
        _headers(g) | config({"retry": {"attempts": 0}}),
        {},
    ),
    "virtual key": lambda g: ({"x-portkey-virtual-key": "preset"}, {}),
    "virtual key as provider": lambda g: ({"x-portkey-provider": "@preset"}, {}),
    "virtual key in config": lambda g: (config({"virtual_key": "preset"}), {}),
    "stored config": lambda g: ({"x-portkey-config": "main"}, {}),
    "nested": lambda g: (
        config({"strategy": {"mode": "fallback"}, "targets": [_leaf(g)]}),
        {},
    ),
    "override": lambda g: (
        config(_leaf(g) | {"override_params": {"model": "MODEL"}}),
        {"model": "other"},
    ),
    "default": lambda g: (
        config(_leaf(g) | {"default_params": {"model": "MODEL"}}),
        {"model": None},
    ),
    "alias": lambda g: (
        config(_leaf(g) | {"model_aliases": {"short": {"model": "MODEL"}}}),
        {"model": "short"},
    ),
    "older path": lambda g: (_headers(g), {"path": "/v1/engines/MODEL/completions"}),
}


@pytest.mark.parametrize("exists", [False, True], ids=["no such key", "such a key"])
@pytest.mark.parametrize("name", [CLOUDFLARE, PRESET])
@pytest.mark.parametrize("route", ROUTES)
def test_named_provider_gets_whole_model_name(
    gateway: StoredGateway, route: str, name: str, exists: bool
) -> None:
    host = {"provider": "vllm", "custom_host": gateway.upstream.url}
    # A key by this name is in some routes, and `preset` may begin the model's name.
    gateway.virtual_key("preset", **host)
    if exists:
        gateway.virtual_key("cf", **host)
    gateway.store.put_config("main", {"virtual_key": "preset"})
    key = gateway.key()
    route_of = json.loads(json.dumps(ROUTES[route](gateway)).replace("MODEL", name))
    headers, body = route_of
    if "Authorization" in headers:
        headers["x-portkey-api-key"] = key
    body = {"model": Absent if "path" in body else name} | body
    response = gateway.caller(key).complete(headers=headers, **body)

    assert response.status_code == 200, response.json
    assert gateway.upstream.last.json["model"] == name


@pytest.mark.parametrize("via", ["native", "chat"])
def test_workers_ai_model_is_called_by_its_whole_name(
    gateway: StoredGateway, script: Script, via: str
) -> None:
    answer = {"result": {"response": "Hi"}, "success": True, "errors": []}
    chat = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}
    cloudflare = script(whole(answer if via == "native" else chat))
    target = {"provider": "workers-ai", "custom_host": cloudflare.url, "api_key": OWN}
    response = gateway.caller().complete(
        headers=config(target | {"via": via}), model=CLOUDFLARE
    )

    assert response.status_code == 200, response.json
    if via == "native":
        assert cloudflare.last.path.endswith(f"/run/{CLOUDFLARE}")
    else:
        assert cloudflare.last.json["model"] == CLOUDFLARE


def test_sealed_model_is_whole(gateway: StoredGateway) -> None:
    gateway.virtual_key("cf", model=CLOUDFLARE)
    gateway.caller(gateway.key()).complete(
        headers={"x-portkey-virtual-key": "cf"}, model=None
    )

    assert gateway.upstream.last.json["model"] == CLOUDFLARE


# Nothing else names a provider, and there is such a key


NAMED = "@openai-1/org/model"

SOURCES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "body": ({}, {"model": NAMED}),
    "config without provider": ({"retry": {"attempts": 0}}, {"model": NAMED}),
    "override": ({"override_params": {"model": NAMED}}, {"model": "other"}),
    "camel case": ({"overrideParams": {"model": NAMED}}, {"model": "other"}),
    "default": ({"default_params": {"model": NAMED}}, {"model": None}),
    "override above": (
        {
            "override_params": {"model": NAMED},
            "strategy": {"mode": "fallback"},
            "targets": [{"retry": {"attempts": 0}}],
        },
        {"model": "other"},
    ),
    "targets": (
        {
            "strategy": {"mode": "loadbalance"},
            "targets": [{"override_params": {"model": NAMED}}],
        },
        {"model": "other"},
    ),
    "alias": (
        {"retry": {"attempts": 0}, "model_aliases": {"short": {"model": NAMED}}},
        {"model": "short"},
    ),
}


# A config that is sent names a provider somewhere, unless a header does.
ONLY_STORED = ("config without provider", "alias")


@pytest.mark.parametrize(
    "source, is_stored",
    [(source, True) for source in SOURCES]
    + [(source, False) for source in SOURCES if source not in ONLY_STORED],
)
def test_existing_virtual_key_is_split_off(
    gateway: StoredGateway, source: str, is_stored: bool
) -> None:
    gateway.virtual_key()
    document, body = SOURCES[source]
    headers = config(document) if document else {}
    if is_stored and document:
        gateway.store.put_config("main", validate_config(document, ()))
        headers = {"x-portkey-config": "main"}
    response = gateway.caller(gateway.key()).complete(headers=headers, **body)

    assert response.status_code == 200, response.json
    assert gateway.upstream.last.json["model"] == "org/model"
    assert gateway.sent_key == f"Bearer {SEALED}"


def test_stored_alias_may_name_virtual_key(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    gateway.store.put_alias("short", Alias(NAMED))
    key = gateway.key(allowed={"virtual_keys": []})
    response = gateway.caller(key).complete(model="short")

    assert response.status_code == 200, response.json
    assert gateway.upstream.last.json["model"] == "org/model"
    assert gateway.caller(key).complete(model=NAMED).status_code == 403


def test_defaults_of_named_virtual_key_apply(gateway: StoredGateway) -> None:
    gateway.virtual_key(params={"top_p": 0.5}, model="never")
    gateway.caller(gateway.key()).complete(model=NAMED)

    assert gateway.upstream.last.json["top_p"] == 0.5
    assert gateway.upstream.last.json["model"] == "org/model"


# Nothing names a provider, and there is no such key


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize(
    "document", [{}, {"override_params": {"model": PRESET}}], ids=["body", "config"]
)
def test_missing_virtual_key_is_named_in_error(
    gateway: StoredGateway, document: dict[str, Any], is_open: bool
) -> None:
    caller = gateway.caller(*() if is_open else (gateway.key(),), engine=True)
    headers = config(document) if document else {}
    response = caller.complete(headers=headers, model=PRESET)

    assert response.status_code == (400 if is_open else 403)
    assert "'preset'" in response.json["error"]["message"]
    assert gateway.upstream.requests == []


def test_missing_virtual_key_leaves_default_config(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    gateway.store.put_config("main", {"virtual_key": "openai-1"})
    of_key = gateway.caller(gateway.key(config="main"))
    of_all = gateway.caller(gateway.key("other"), default_config="main")

    for caller in (of_key, of_all):
        assert caller.complete(model=CLOUDFLARE).status_code == 200
        assert gateway.upstream.last.json["model"] == CLOUDFLARE


def test_disabled_virtual_key_is_not_passed_over(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    gateway.virtual_key("off", disabled=True)
    gateway.store.put_config("main", {"virtual_key": "openai-1"})
    key = gateway.key(config="main")
    response = gateway.caller(key).complete(model="@off/m")

    assert response.status_code == 403 and gateway.upstream.requests == []


# Authority


def test_virtual_keys_of_others_cannot_be_probed(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    gateway.virtual_key("secret")
    gateway.store.put_config("main", {"virtual_key": "openai-1"})
    key = gateway.key(allowed={"virtual_keys": ["openai-1"]})
    both = [f"@{id}/m" for id in ("secret", "absent")]
    without = [gateway.caller(key).complete(model=name) for name in both]
    routed = [
        gateway.caller(key).complete(headers={"x-portkey-config": "main"}, model=name)
        for name in both
    ]

    assert [r.status_code for r in without] == [403, 403]
    texts = [r.get_data(as_text=True) for r in without]
    assert texts[0].replace("secret", "absent") == texts[1]
    assert [r.status_code for r in routed] == [200, 200]
    assert [r.json["model"] for r in gateway.upstream.requests] == both


@pytest.mark.parametrize(
    "allowed, status",
    [
        (["@cf/meta/*"], 200),
        (["meta/*"], 403),
        ([CLOUDFLARE], 200),
        (["meta/llama-3-8b"], 403),
    ],
    ids=str,
)
def test_allowed_models_are_judged_by_whole_name(
    gateway: StoredGateway, allowed: list[str], status: int
) -> None:
    gateway.virtual_key("one")
    key = gateway.key(allowed={"models": allowed})
    headers = {"x-portkey-virtual-key": "one"}
    response = gateway.caller(key).complete(headers=headers, model=CLOUDFLARE)

    assert response.status_code == status
    assert bool(gateway.upstream.requests) == (status == 200)


@pytest.mark.parametrize("allowed, status", [(["org/*"], 200), (["@openai-1/*"], 403)])
def test_allowed_models_are_judged_after_split(
    gateway: StoredGateway, allowed: list[str], status: int
) -> None:
    gateway.virtual_key()
    key = gateway.key(allowed={"models": allowed})

    assert gateway.caller(key).complete(model=NAMED).status_code == status


def test_stored_config_grants_virtual_key_in_its_model(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    document = {"retry": {"attempts": 0}, "default_params": {"model": NAMED}}
    gateway.store.put_config("main", document)
    key = gateway.key(allowed={"virtual_keys": []})
    headers = {"x-portkey-config": "main"}
    granted = gateway.caller(key).complete(headers=headers, model=None)
    others = [
        gateway.caller(key).complete(headers=headers, model=NAMED),
        gateway.caller(key).complete(headers=config(document), model=None),
        gateway.caller(key).complete(model=NAMED),
    ]

    assert granted.status_code == 200, granted.json
    assert [r.status_code for r in others] == [403, 403, 403]


def test_config_node_lists_virtual_keys_in_models() -> None:
    document = {
        "strategy": {"mode": "fallback"},
        "override_params": {"model": "@a/m"},
        "targets": [
            {"retry": {"attempts": 0}},
            {"provider": "openai", "override_params": {"model": "@b/m"}},
            {"virtual_key": "c", "default_params": {"model": "@d/m"}},
            {"retry": {"attempts": 0}, "model_aliases": {"x": {"model": "@e/m"}}},
            {
                "provider": "openai",
                "model_aliases": {"x": {"model": "@f/m", "provider": "groq"}},
            },
        ],
    }
    node = ConfigNode.of(validate_config(document, ()), strict=True)

    assert node.virtual_keys == {"a", "c", "e"}


def test_unknown_caller_learns_nothing(gateway: StoredGateway) -> None:
    gateway.virtual_key()
    named = [gateway.caller(OWN).complete(model=name) for name in (NAMED, PRESET)]

    assert [r.status_code for r in named] == [401, 401]
    assert named[0].json == named[1].json


@pytest.mark.parametrize("name, expected", [(NAMED, "org/model"), (CLOUDFLARE, None)])
def test_dry_run_follows_the_same_rule(
    gateway: StoredGateway, name: str, expected: str | None
) -> None:
    gateway.virtual_key()
    extensions = gateway.caller().app.extensions
    services = ConsoleServices(
        extensions["lastword"],
        extensions["lastword.directory"],
        extensions["lastword.ledger"],
        None,
        gateway.settings,
    )
    result = dry_run(DryRunRequest(model=name), services)
    leaf = {"provider": "workers-ai", "api_key": OWN, "workers_ai_account_id": "a"}
    named = dry_run(DryRunRequest(config=json.dumps(leaf), model=name), services)

    if expected is None:
        assert "'cf'" in result.problems[0]
    else:
        assert result.first and result.first.plan
        assert result.first.plan.request.model == expected
    assert named.first and named.first.plan
    assert named.first.plan.request.model == name
