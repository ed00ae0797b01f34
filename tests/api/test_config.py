"""The JSON of x-portkey-config: what is refused, with which message, at which path.

Numbers are those of the cases in docs/contract.md.
"""

import json
from typing import Any

import pytest

from app.api.config.parsing import validate_config
from app.errors import InvalidRoute
from tests.conftest import Caller

PROVIDER = {"provider": "openai", "api_key": "k"}


def refused(caller: Caller, config: Any, **headers: str) -> dict[str, Any]:
    text = config if isinstance(config, str) else json.dumps(config)
    sent = {"x-portkey-config": text, "x-portkey-provider": "", **headers}
    response = caller.complete(headers=sent)
    assert response.status_code == 400, response.get_data(as_text=True)
    body: dict[str, Any] = response.json
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["status"] == "failure"
    return body


DEEP = '{"provider": "openai", "x": ' + "[" * 300 + "]" * 300 + "}"


@pytest.mark.parametrize(
    "text",
    ["pc-abc123", "{", "null", "{'a': 1}", "NaN", DEEP],
    ids=["id", "cut", "null", "quotes", "NaN", "deep"],
)
def test_112_config_must_be_json(caller: Caller, text: str) -> None:
    body = refused(caller, text)

    assert body["message"] == "Invalid config passed. You need to pass a valid json"


@pytest.mark.parametrize(
    "config", [{}, [], {"retry": {"attempts": 1}}, 5, "x"], ids=str
)
def test_config_without_provider_needs_header(caller: Caller, config) -> None:
    body = refused(caller, json.dumps(config))

    assert body["message"] == (
        "Either x-portkey-provider needs to be passed. Or the x-portkey-config header "
        "should have a valid config with provider details in it."
    )


def group(mode: str, *targets: Any, **strategy: Any) -> dict[str, Any]:
    return {"strategy": {"mode": mode, **strategy}, "targets": list(targets)}


def named(name: str) -> dict[str, Any]:
    return PROVIDER | {"name": name}


def query(query: Any, then: Any = "a", default: Any = "a") -> dict[str, Any]:
    conditions = [{"query": query, "then": then}]
    return group("conditional", named("a"), conditions=conditions, default=default)


COMPLAINTS: dict[str, tuple[Any, str]] = {
    "provider": (
        {"provider": "nobody"},
        "path: provider, message: Invalid 'provider' value. Must be one of: anthropic, "
        "anyscale, azure-openai",
    ),
    "mode": (
        group("random", PROVIDER),
        "path: strategy,mode, message: Invalid 'mode' value. Must be one of: single, "
        "fallback, loadbalance, conditional",
    ),
    "no mode": (
        {"strategy": {}, "targets": [PROVIDER]},
        "path: strategy,mode, message: Required",
    ),
    "cache mode": (
        PROVIDER | {"cache": {"mode": "x"}},
        "path: cache,mode, message: Invalid 'cache.mode' value. Must be one of: simple",
    ),
    "cache that understands": (
        PROVIDER | {"cache": {"mode": "semantic"}},
        "path: cache,mode, message: Invalid 'cache.mode' value. Must be one of: simple",
    ),
    "cache as text": (
        PROVIDER | {"cache": "simple"},
        "path: cache, message: Expected object, received string",
    ),
    "attempts missing": (
        PROVIDER | {"retry": {}},
        "path: retry,attempts, message: Required",
    ),
    "attempts as text": (
        PROVIDER | {"retry": {"attempts": "3"}},
        "path: retry,attempts, message: Expected number, received string",
    ),
    "weight as text": (
        group("loadbalance", PROVIDER, PROVIDER | {"weight": "1"}),
        "path: targets,1,weight, message: Expected number, received string",
    ),
    "weight null": (
        group("loadbalance", PROVIDER | {"weight": None}),
        "path: targets,0,weight, message: Expected number, received null",
    ),
    "target as number": (
        group("single", 5),
        "path: targets,0, message: Expected object, received number",
    ),
    "typo in strategy": (
        group("fallback", PROVIDER, on_status_code=[429]),
        "path: strategy,on_status_code, message: Unknown key 'on_status_code'; did you "
        "mean 'on_status_codes'?",
    ),
    "typo in retry": (
        PROVIDER | {"retry": {"attempts": 1, "use_retry_after": True}},
        "path: retry,use_retry_after, message: Unknown key 'use_retry_after'; did you "
        "mean 'use_retry_after_header'?",
    ),
    "typo in cache": (
        PROVIDER | {"cache": {"mode": "simple", "maxage": 1}},
        "path: cache,maxage, message: Unknown key 'maxage'; did you mean 'max_age'?",
    ),
    "no targets": (
        group("fallback"),
        "path: targets, message: A strategy needs at least one target",
    ),
    "targets without strategy": (
        {"targets": [PROVIDER]},
        "path: strategy, message: Required: targets need a strategy",
    ),
    "weights of 0": (
        group("loadbalance", PROVIDER | {"weight": 0}, PROVIDER | {"weight": 0}),
        "path: targets, message: The weights of the targets sum up to 0",
    ),
    "negative weight": (
        group("loadbalance", PROVIDER, PROVIDER | {"weight": -0.5}),
        "path: targets,1,weight, message: A weight must not be negative, received -0.5",
    ),
    "no default": (
        query({}, default=None),
        "path: strategy,default, message: Expected string, received null",
    ),
    "absent default": (
        group("conditional", named("a"), conditions=[{"query": {}, "then": "a"}]),
        "path: strategy,default, message: Required: where to go if no condition holds",
    ),
    "unknown default": (
        query({}, default="b"),
        "path: strategy,default, message: Invalid target name found in the query "
        "router: b",
    ),
    "unknown then": (
        query({}, then="b"),
        "path: strategy,conditions,0,then, message: Invalid target name found in the "
        "query router: b",
    ),
    "no conditions": (
        group("conditional", named("a"), conditions=[], default="a"),
        "path: strategy,conditions, message: No conditions passed in the query router",
    ),
    "operator": (
        query({"metadata.a": {"$like": 1}}),
        "path: strategy,conditions,0,query,metadata.a,$like, message: Unsupported "
        "operator used in the query router: $like",
    ),
    "custom host": (
        group("single", PROVIDER | {"custom_host": "http://10.0.0.1"}),
        "path: targets,0, message: Invalid custom host: it is an address of a private",
    ),
    "forward headers": (
        PROVIDER | {"forward_headers": ["X-Portkey-Forward-Headers"]},
        "path: forward_headers, message: forward_headers must not contain the "
        "'x-portkey-forward-headers' header",
    ),
    "guardrails": (
        PROVIDER | {"input_guardrails": [{"default.contains": {}}]},
        "path: input_guardrails, message: 'input_guardrails' is not supported by this "
        "version",
    ),
    "no provider in a target": (
        group("single", {"retry": {"attempts": 1}}),
        "path: targets[0], message: Required: provider, or a strategy",
    ),
    "empty target": (
        group("single", {"api_key": "k"}),
        "path: targets,0, message: Invalid configuration. It must have either",
    ),
    "cooldown": (
        group("fallback", PROVIDER, cb_config={"cooldown_interval": 5}),
        "path: strategy,cb_config,cooldown_interval, message: Expected a number from "
        "30000",
    ),
    "deadline below": (
        group("single", PROVIDER | {"deadline_ms": 5}),
        "path: targets,0,deadline_ms, message: A deadline is for the whole plan",
    ),
    "deadline": (
        PROVIDER | {"deadline_ms": -1},
        "path: deadline_ms, message: Expected a number from 1 ",
    ),
    "via": (
        PROVIDER | {"via": "telephone"},
        "path: via, message: Invalid 'via' value. Must be one of: native, fim, chat",
    ),
    "typo in bridge": (
        PROVIDER | {"bridge": {"sytem": "x"}},
        "path: bridge,sytem, message: Unknown key 'sytem'; did you mean 'system'?",
    ),
    "template": (
        PROVIDER | {"bridge": {"template": "Say: prompt"}},
        "path: bridge,template, message: A template must contain '{prompt}'",
    ),
    "model info": (
        PROVIDER | {"model_info": {"token_floor": 1.5}},
        "path: model_info,token_floor, message: Expected integer, received number",
    ),
    "setting": (
        {"provider": "bedrock", "aws_region": 5},
        "path: aws_region, message: Expected string, received number",
    ),
    "setting by its other name": (
        {"provider": "azure-openai", "resource_name": ["x"]},
        "path: resource_name, message: Expected string, received array",
    ),
    "key of two lines": (
        {"provider": "openai", "api_key": "k\r\nX-Injected: 1"},
        "path: api_key, message: Expected text that can be sent in a header: on one "
        "line, in Latin-1",
    ),
    "setting in another script": (
        {"provider": "azure-openai", "azure_ad_token": "模型"},
        "path: azure_ad_token, message: Expected text that can be sent in a header",
    ),
    "setting of a provider that a header names": (
        group("single", {"request_timeout": 9, "vertex_service_account_json": [1]}),
        "path: targets,0,vertex_service_account_json, message: Expected string, "
        "received array",
    ),
    "provider of an alias": (
        PROVIDER | {"model_aliases": {"m": {"model": "n", "provider": ["x"]}}},
        "path: model_aliases,m,provider, message: Expected string, received array",
    ),
    "date of an alias": (
        PROVIDER | {"model_aliases": {"m": {"model": "n", "shutdown_date": 5}}},
        "path: model_aliases,m,shutdown_date, message: Expected string, received num",
    ),
    "open pattern": (
        query({"metadata.a": {"$regex": "(" * 400}}),
        "path: strategy,conditions,0,query,metadata.a,$regex, message: $regex needs a "
        "pattern: missing )",
    ),
    "long pattern": (
        query({"metadata.a": {"$regex": "a" * 501}}),
        "path: strategy,conditions,0,query,metadata.a,$regex, message: $regex needs a "
        "pattern: it has 501 characters, and at most 500 are allowed",
    ),
    "large pattern": (
        query({"metadata.a": {"$regex": ".{1000}"}}),
        "path: strategy,conditions,0,query,metadata.a,$regex, message: $regex needs a "
        "pattern: its program has 8004 instructions, and at most 2000 are allowed",
    ),
    "many patterns": (
        query({"$and": [{"metadata.a": {"$regex": "a"}}] * 33}),
        "path: strategy,conditions, message: At most 32 patterns are allowed, and "
        "there are 33",
    ),
    "much of patterns": (
        query({"$and": [{"metadata.a": {"$regex": "a" * 401}}] * 10}),
        "path: strategy,conditions, message: At most 4000 characters of patterns are "
        "allowed, and there are 4010",
    ),
    "long path": (
        query({"metadata" + ".a" * 16: 1}),
        "path: strategy,conditions,0,query,metadata" + ".a" * 16 + ", message: A path "
        "may have 16 steps, not 17",
    ),
    "many targets": (
        group("fallback", *[PROVIDER] * 65),
        "path: targets, message: At most 64 targets are allowed, and there are 65",
    ),
    "many targets in groups": (
        group("fallback", *[group("single", *[PROVIDER] * 33)] * 2),
        "path: targets, message: At most 64 targets are allowed, and there are 66",
    ),
    "many groups": (
        group("fallback", *[group("single", PROVIDER)] * 64),
        "path: targets, message: At most 64 groups of targets are allowed, and there "
        "are 65",
    ),
    "many conditions": (
        group(
            "conditional",
            named("a"),
            conditions=[{"query": {}, "then": "a"}] * 257,
            default="a",
        ),
        "path: strategy,conditions, message: At most 256 conditions are allowed, and "
        "there are 257",
    ),
    "many aliases": (
        PROVIDER | {"model_aliases": {f"m{i}": {"model": "x"} for i in range(257)}},
        "path: model_aliases, message: At most 256 aliases are allowed, and there are",
    ),
    "many headers": (
        PROVIDER | {"forward_headers": ["x"] * 257},
        "path: forward_headers, message: At most 256 entries are allowed, and there",
    ),
    "many names": (
        group("single", PROVIDER | {"drop_params": ["x"] * 257}),
        "path: targets,0,drop_params, message: At most 256 entries are allowed, and",
    ),
    "many parameters": (
        PROVIDER | {"override_params": {f"x{i}": 1 for i in range(257)}},
        "path: override_params, message: At most 256 entries are allowed, and there",
    ),
    "many statuses": (
        PROVIDER | {"retry": {"attempts": 1, "on_status_codes": [500] * 257}},
        "path: retry,on_status_codes, message: At most 256 entries are allowed, and",
    ),
    "many keys": (
        group("single", PROVIDER, **{f"x{i}": 1 for i in range(257)}),
        "path: strategy, message: At most 256 entries are allowed, and there are 258",
    ),
    "strict params": (
        PROVIDER | {"strict_params": 1},
        "path: strict_params, message: Expected boolean, received number",
    ),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_112_config_faults_are_named_by_path(caller: Caller, name: str) -> None:
    config, complaint = COMPLAINTS[name]
    body = refused(caller, config)

    assert body["message"] == "Invalid config passed"
    assert any(line.startswith(complaint) for line in body["errors"]), body["errors"]
    assert body["error"]["code"] == "invalid_config"


def test_complaints_are_cut(caller: Caller) -> None:
    strategy = {"mode": "single", "x" * 9000: 1}
    body = refused(caller, {"strategy": strategy, "targets": [{"weight": ""}] * 900})

    assert len(json.dumps(body)) < 20_000


def test_targets_are_bounded_before_any_call(caller: Caller, upstream) -> None:
    most = group("fallback", *[PROVIDER] * 64)
    fits = {"x-portkey-config": json.dumps(most), "x-portkey-provider": ""}

    assert caller.complete(headers=fits).status_code == 200
    calls = len(upstream.requests)
    body = refused(caller, group("fallback", *[PROVIDER] * 700))
    assert "targets: At most 64 targets are allowed, and there are 700" in (
        body["error"]["message"]
    )
    assert len(upstream.requests) == calls


def test_long_configs_are_refused_unread(caller: Caller) -> None:
    body = refused(caller, PROVIDER | {"x": "a" * 70_000})

    assert "70047 characters, and at most 65536" in body["error"]["message"]


def test_stored_configs_have_larger_bounds() -> None:
    most = group("fallback", *[PROVIDER] * 1024)

    assert len(validate_config(most, ())["targets"]) == 1024
    with pytest.raises(InvalidRoute, match="At most 1024 targets"):
        validate_config(group("fallback", *[PROVIDER] * 1025), ())


def test_every_complaint_is_listed(caller: Caller) -> None:
    both = group("fallback", {"provider": "x"}, {"retry": {}}, typo=1)

    assert len(refused(caller, both)["errors"]) == 3


def test_old_config_form_is_refused(caller: Caller) -> None:
    body = refused(caller, PROVIDER | {"options": [1]})

    assert body["message"].startswith("This version of config is not supported")


def nested(levels: int) -> dict[str, Any]:
    config: dict[str, Any] = PROVIDER
    for _ in range(levels):
        config = group("single", config)
    return config


def test_nesting_of_targets_is_bounded(caller: Caller) -> None:
    fits = {"x-portkey-config": json.dumps(nested(16)), "x-portkey-provider": ""}

    assert caller.complete(headers=fits).status_code == 200
    assert "16 levels" in refused(caller, nested(17))["errors"][0]
    assert "16 levels" in refused(caller, nested(100))["errors"][0]


@pytest.mark.parametrize(
    "config",
    [
        PROVIDER | {"unknown_key": 1, "id": "x"},
        {"provider": "openai", "apiKey": "k", "requestTimeout": 5000},
        {
            "strategy": {"mode": "fallback", "onStatusCodes": [429]},
            "targets": [PROVIDER],
        },
        PROVIDER | {"retry": {"attempts": 1, "useRetryAfterHeaders": True}},
        PROVIDER | {"cache": {"mode": "simple", "max_age": 60}},
        group("single", {"provider": "openai"}),
        group("loadbalance", PROVIDER | {"weight": 0}, PROVIDER | {"weight": 0.1}),
    ],
    ids=str,
)
def test_portkeys_configs_work(caller: Caller, config: Any) -> None:
    sent = {"x-portkey-config": json.dumps(config), "x-portkey-provider": ""}

    assert caller.complete(headers=sent).status_code == 200
