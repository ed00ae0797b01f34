"""What refusals of upstreams mean, as they were seen on the wire."""

from dataclasses import replace

import pytest

from app.core.routing import CompletionMode
from app.errors import UpstreamStatus
from app.planning.learned_facts import (
    NO_FACTS,
    OTHER_LIMIT,
    facts_key,
    refuses_parameter,
)
from app.providers.parsing import error_bodies

from ..providers import harness

OLD, NEW = OTHER_LIMIT


def refusal(message: str, **fields: str) -> UpstreamStatus:
    return UpstreamStatus(message, status=400, **fields)


@pytest.mark.parametrize(
    "message, name",
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            OLD,
        ),
        ("Unsupported parameter(s): `max_tokens`", OLD),
        ("max_tokens is not supported, use max_completion_tokens instead.", OLD),
        ("This model does not support the parameter max_tokens", OLD),
        ("Unrecognized request argument supplied: max_tokens", OLD),
        ("Unrecognized request argument supplied: max_completion_tokens", NEW),
        ("Unknown parameter: 'max_completion_tokens'.", NEW),
        ("property 'max_completion_tokens' is unsupported", NEW),
        ('Unknown name "max_completion_tokens": Cannot find field.', NEW),
        ("unexpected keyword argument 'max_completion_tokens'", NEW),
        (
            "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), "
            "'msg': 'Extra inputs are not permitted', 'input': 8192}]",
            NEW,
        ),
    ],
)
def test_refused_limit_is_named(message: str, name: str) -> None:
    error = refusal(message)

    assert refuses_parameter(error, name)
    assert not refuses_parameter(error, OTHER_LIMIT[name])


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail":[{"type":"extra_forbidden","loc":["body","max_completion_tokens"],'
        b'"msg":"Extra inputs are not permitted","input":32000}]}',
        b'{"object":"error","message":{"detail":[{"type":"extra_forbidden",'
        b'"loc":["body","max_completion_tokens"],'
        b'"msg":"Extra inputs are not permitted"}]},'
        b'"type":"invalid_request_error","param":null,"code":null}',
        b'{"error":{"message":"no","param":"max_completion_tokens",'
        b'"code":"unsupported_parameter"}}',
    ],
)
def test_refused_limit_in_error_body(body: bytes) -> None:
    error = error_bodies.error(422, body)

    assert refuses_parameter(error, NEW) and not refuses_parameter(error, OLD)


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 5000. This model supports at most 4096 completion "
        "tokens, whereas you provided 5000.",
        "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1.",
        "Could not finish the message because max_tokens or model output limit was "
        "reached. Please try again with higher max_tokens.",
        "This model does not support max_tokens above 4096",
        "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not "
        "supported.",
        "'max_tokens' or 'max_completion_tokens' must be an integer",
        "This model's maximum context length is 4096 tokens",
        "Unsupported parameter: 'temperature'",
        "",
    ],
)
@pytest.mark.parametrize("name", [OLD, NEW])
def test_refused_value_is_no_refusal(message: str, name: str) -> None:
    error = refusal(message, param=name, code="invalid_value")

    assert not refuses_parameter(error, name)


def test_limit_has_one_of_two_names() -> None:
    chat, native = CompletionMode.CHAT, CompletionMode.NATIVE
    facts = NO_FACTS.refusing(chat, OLD)
    turned = facts.refusing(chat, NEW)

    assert facts.limit_name(chat, OLD) == facts.limit_name(chat, NEW) == NEW
    assert turned.limit_name(chat, OLD) == turned.limit_name(chat, NEW) == OLD
    assert facts.limit_name(native, OLD) == OLD
    assert facts.limit_name(chat, "n_predict") == "n_predict"


def test_facts_key_holds_no_secret_and_no_prompt() -> None:
    base = harness.target("openai", request=harness.completion_request())
    other_prompt = harness.completion_request("Another", max_tokens=7)
    key = facts_key(base)

    assert harness.KEY not in key and len(key) == 64
    assert facts_key(replace(base, request=other_prompt)) == key
    assert facts_key(replace(base, request_timeout=5.0, strict=False)) == key
    for changes in (
        {"base_url": "http://elsewhere"},
        {"base_url": None},
        {"api_key": "sk-of-another"},
        {"virtual_key": "v"},
        {"options": {"azure_deployment_id": "d"}},
        {"headers": {"x-tenant": "t"}},
        {"request": harness.completion_request(model="another")},
    ):
        assert facts_key(replace(base, **changes)) != key, changes
