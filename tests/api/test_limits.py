"""Limits of keys over HTTP, with counters in a file and in a real Valkey."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from app.core.limits import Limits
from app.core.prices import prices
from tests.conftest import Caller, events, read_until
from tests.e2e.server import eventually
from tests.stored_gateway import StoredGateway
from tests.upstream import (
    DONE,
    completion,
    cut_stream,
    data,
    frame,
    repeated,
    reply,
    scored_completion,
    stream,
    wait_for,
    whole,
)

# "Hi" is one token by the gateway's own count.
PROMPT = 1


def limited(gateway: StoredGateway, **limits: Any) -> Caller:
    """A caller whose key has *limits*, with a virtual key without any."""
    gateway.store.put_config("main", {"virtual_key": gateway.virtual_key()})
    return gateway.caller(gateway.key(config="main", limits=Limits.of(limits)))


def limited_twin(gateway: StoredGateway) -> Caller:
    """A second caller with a limited key."""
    twin = gateway.key("twin", config="main", limits=Limits(tokens_per_day=1000))
    return gateway.caller(twin)


def sharing(gateway: StoredGateway, **limits: Any) -> Caller:
    """A caller whose key has no limits, with a virtual key that has."""
    key = gateway.virtual_key(limits=Limits.of(limits))
    gateway.store.put_config("main", {"virtual_key": key})
    return gateway.caller(gateway.key(config="main"))


def left(response: Any, unit: str = "tokens") -> int:
    return int(response.headers[f"x-ratelimit-remaining-{unit}"])


def left_in_the_end(caller: Caller, tokens: int) -> None:
    """Assert that *tokens* remain in the end, by the headers of a refused request.

    Redis counters are settled in the background.
    """
    remaining: list[int] = []

    def is_reached() -> bool:
        remaining.append(left(caller.complete(max_tokens=10**9)))
        return remaining[-1] == tokens

    eventually(is_reached, actual=lambda: remaining)


# Requests


def test_reached_limit_has_retry_after(gateway: StoredGateway) -> None:
    caller = limited(gateway, requests_per_minute=2)
    answers = [caller.complete() for _ in range(3)]
    refused = answers[-1]
    error = refused.json["error"]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert len(gateway.upstream.requests) == 2
    assert error["type"] == "requests" and error["code"] == "rate_limit_exceeded"
    assert "key:job reached on requests_per_minute: Limit 2, Used 2" in error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-portkey-gateway-exception" not in refused.headers


def test_answer_has_remaining_limits(gateway: StoredGateway) -> None:
    """And not the limits of the gateway's account at the provider."""
    gateway.upstream.answers[:] = [
        whole(completion(), 200, "x-ratelimit-remaining-requests: 9999")
    ]
    response = limited(gateway, requests_per_minute=5, tokens_per_minute=500).complete()

    assert response.headers["x-ratelimit-limit-requests"] == "5"
    assert response.headers["x-ratelimit-remaining-requests"] == "4"
    assert response.headers["x-ratelimit-limit-tokens"] == "500"
    assert response.headers["x-ratelimit-reset-tokens"].endswith("s")


def test_stream_has_remaining_limits(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [stream(data(frame("a", "stop")), DONE)]
    response = limited(gateway, requests_per_minute=5).complete(stream=True)

    assert left(response, "requests") == 4


def test_provider_limits_pass_without_own(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [
        whole(completion(), 200, "x-ratelimit-remaining-requests: 9999")
    ]

    assert left(limited(gateway).complete(), "requests") == 9999


def test_gateways_share_counters(gateway: StoredGateway) -> None:
    first = limited(gateway, requests_per_minute=20)
    second = gateway.caller(first.headers["Authorization"].removeprefix("Bearer "))

    def complete(number: int) -> int:
        return (first, second)[number % 2].complete().status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(complete, range(60)))

    assert (statuses.count(200), statuses.count(429)) == (20, 40)


def test_invalid_request_costs_nothing(gateway: StoredGateway) -> None:
    caller = limited(gateway, requests_per_minute=2)
    assert caller.complete(temperature=3).status_code == 400
    assert caller.complete(logprobs=99).status_code == 400

    assert left(caller.complete(), "requests") == 1


def test_answer_frees_its_parallel_slot(gateway: StoredGateway) -> None:
    caller = limited(gateway, requests_in_parallel=1)

    assert [caller.complete().status_code for _ in range(5)] == [200] * 5


def test_stream_holds_its_slot(gateway: StoredGateway) -> None:
    go_on = threading.Event()
    gateway.upstream.answers[:] = [
        stream(data(frame("a")), wait_for(go_on), data(frame("b", "stop")), DONE)
    ]
    caller = limited(gateway, requests_in_parallel=1)
    first = caller.complete(stream=True)
    second = caller.complete(stream=True)
    go_on.set()
    assert events(first)[-1] == "[DONE]"
    first.close()
    third = caller.complete(stream=True)

    assert (second.status_code, third.status_code) == (429, 200)
    assert second.headers["retry-after"] == "1"


# Tokens


def test_oversized_request_is_refused_for_free(
    gateway: StoredGateway,
) -> None:
    response = limited(gateway, tokens_per_minute=50).complete(max_tokens=50)

    assert response.status_code == 429
    assert "Limit 50, Used 0, Requested 51" in response.json["error"]["message"]
    assert "too large for this limit" in response.json["error"]["message"]
    assert "retry-after" not in response.headers
    assert gateway.upstream.requests == []


def test_reservation_covers_prompts_and_max_tokens(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [whole(repeated(scored_completion(), 4))]
    caller = limited(gateway, tokens_per_day=1000)
    response = caller.complete(
        prompt=["Hi", "Hi"], n=2, best_of=3, logprobs=1, max_tokens=10
    )

    assert response.status_code == 200
    assert left(response) == 1000 - 2 * PROMPT - 2 * 3 * 10


def test_charge_is_the_actual_usage(gateway: StoredGateway) -> None:
    caller = limited(gateway, tokens_per_day=1000)
    assert left(caller.complete(max_tokens=500)) == 1000 - 500 - PROMPT

    left_in_the_end(caller, 1000 - 3)


def test_resent_prompts_are_charged_again(gateway: StoredGateway) -> None:
    """A chat without `n` is called n times, and each call bills the prompt."""
    gateway.upstream.answers[:] = [whole(reply())]
    key = gateway.virtual_key(provider="groq")
    gateway.store.put_config("main", {"virtual_key": key})
    limits = Limits.of({"tokens_per_day": 1000})
    caller = gateway.caller(gateway.key(config="main", limits=limits))
    response = caller.complete(n=3, max_tokens=10)
    usage = response.json["usage"]

    assert len(gateway.upstream.requests) == 3
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 6)
    assert left(response) == 1000 - 3 * (PROMPT + 10)
    left_in_the_end(caller, 1000 - 3 * 6)


@pytest.mark.parametrize("many", [2**63, 10**30, -5])
def test_absurd_usage_is_not_retried(gateway: StoredGateway, many: int) -> None:
    """And affects no other counter."""
    gateway.upstream.answers[:] = [
        whole(completion(usage={"prompt_tokens": 1, "completion_tokens": many}))
    ]
    own = {"tokens_per_day": 1000, "money_per_day": 10**6}
    caller = limited(gateway, **own, requests_per_minute=50)
    assert caller.complete(model="gpt-4o", max_tokens=5).status_code == 200
    if many > 0:
        eventually(lambda: caller.complete(max_tokens=5).status_code == 429)
    assert limited_twin(gateway).complete(max_tokens=5).status_code == 200


def test_stream_is_charged_by_usage(gateway: StoredGateway) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    gateway.upstream.answers[:] = [
        stream(
            *(data(frame(text)) for text in "ab"),
            data(frame("", "stop")),
            data(frame() | {"choices": [], "usage": usage}),
            DONE,
        ),
    ]
    caller = limited(gateway, tokens_per_day=1000)
    response = caller.complete(stream=True, stream_options={"include_usage": True})
    assert events(response)[-1] == "[DONE]"
    response.close()

    left_in_the_end(caller, 1000 - 7)


def test_truncated_stream_is_charged_partly(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [
        cut_stream(*(data(frame(text)) for text in "abc")),
    ]
    caller = limited(gateway, tokens_per_day=1000)
    response = caller.complete(stream=True, max_tokens=500)
    assert "error" in events(response)[-1]
    response.close()

    left_in_the_end(caller, 1000 - PROMPT - 3)


def test_hang_up_is_charged_partly(gateway: StoredGateway) -> None:
    never = threading.Event()
    gateway.upstream.answers[:] = [
        stream(data(frame("a")), data(frame("b")), wait_for(never)),
    ]
    caller = limited(gateway, tokens_per_day=1000)
    response = caller.complete(stream=True, max_tokens=500)
    read_until(response, marker=b'"b"')
    response.close()
    never.set()

    left_in_the_end(caller, 1000 - PROMPT - 2)


@pytest.mark.parametrize(
    "answer, headers, charged",
    [
        (whole({"error": {"message": "busy"}}, 503), {}, 0),
        (whole({"error": {"message": "no"}}, 400), {}, 0),
        ([0.3], {"x-portkey-request-timeout": "100"}, PROMPT + 500),
    ],
    ids=["busy", "refused", "too slow"],
)
def test_billable_failure_is_charged(
    gateway: StoredGateway, answer: Any, headers: dict[str, str], charged: int
) -> None:
    gateway.upstream.answers[:] = [answer]
    caller = limited(gateway, tokens_per_day=1000)
    assert caller.complete(max_tokens=500, headers=headers).status_code >= 400

    left_in_the_end(caller, 1000 - charged)


# Money


def test_money_budget_refuses_when_spent(gateway: StoredGateway) -> None:
    """A dollar per token, by the operator's own prices."""
    row = {"provider": "openai", "model": "m", "input": 999_999, "output": 999_999}
    gateway.settings = replace(gateway.settings, prices=prices([row]))
    caller = limited(gateway, money_per_month="12.50")
    assert caller.complete(max_tokens=2).status_code == 200
    eventually(lambda: caller.complete(max_tokens=2).status_code == 429)
    refused = caller.complete(max_tokens=2)
    error = refused.json["error"]

    assert error["code"] == error["type"] == "insufficient_quota"
    assert "money_per_month: Limit $12.5" in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    # Each request uses three tokens, and the next would reserve three more.
    assert 3 <= len(gateway.upstream.requests) <= 4


def test_unpriced_model_counts_tokens_only(gateway: StoredGateway) -> None:
    caller = limited(gateway, money_per_day=0, tokens_per_day=1000)
    response = caller.complete(model="nobody-knows", max_tokens=10)

    assert response.status_code == 200
    assert left(response) == 1000 - PROMPT - 10


# Virtual keys


def test_virtual_key_limit_is_shared(gateway: StoredGateway) -> None:
    first = sharing(gateway, requests_per_minute=2)
    second = gateway.caller(gateway.key("another", config="main"))
    statuses = [each.complete().status_code for each in (first, second, first, second)]

    assert statuses == [200, 200, 429, 429]


def test_retry_counts_for_virtual_key_only(
    gateway: StoredGateway,
) -> None:
    gateway.upstream.answers[:] = [
        *[whole({"error": {"message": "busy"}}, 503)] * 2,
        whole(completion()),
    ]
    key = gateway.virtual_key(limits=Limits.of({"requests_per_minute": 10}))
    retry = {"attempts": 2, "on_status_codes": [503]}
    gateway.store.put_config("main", {"virtual_key": key, "retry": retry})
    minute = Limits.of({"requests_per_minute": 10})
    caller = gateway.caller(gateway.key(config="main", limits=minute))
    own = caller.complete()
    unlimited = gateway.caller(gateway.key("another", config="main")).complete()

    assert left(own, "requests") == 9
    assert left(unlimited, "requests") == 10 - 3 - 1


def test_fallback_passes_limited_target(gateway: StoredGateway) -> None:
    first = gateway.virtual_key("a", limits=Limits.of({"requests_per_minute": 1}))
    targets = [{"virtual_key": first}, {"virtual_key": gateway.virtual_key("b")}]
    gateway.store.put_config(
        "main", {"strategy": {"mode": "fallback"}, "targets": targets}
    )
    caller = gateway.caller(gateway.key(config="main"))
    used = [
        caller.complete().headers["x-portkey-last-used-option-index"] for _ in range(3)
    ]

    assert used == ["config.targets[0]", "config.targets[1]", "config.targets[1]"]


def test_limited_fallback_has_retry_after(gateway: StoredGateway) -> None:
    targets = [{"virtual_key": gateway.virtual_key(name)} for name in ("a", "b")]
    gateway.store.put_config(
        "main", {"strategy": {"mode": "fallback"}, "targets": targets}
    )
    minute, never = Limits(requests_per_minute=1), Limits(tokens_per_day=1)
    caller = gateway.caller(gateway.key(config="main", limits=minute))
    assert caller.complete().status_code == 200
    later = caller.complete()
    spent = gateway.caller(gateway.key("spent", config="main", limits=never)).complete()

    assert later.status_code == spent.status_code == 429
    assert "retry-after" in later.headers and "x-should-retry" not in later.headers
    assert spent.headers["x-should-retry"] == "false"


def test_limit_does_not_open_breaker(gateway: StoredGateway) -> None:
    """No circuit opens, and there is no retry."""
    key = gateway.virtual_key(limits=Limits.of({"requests_in_parallel": 1}))
    breaker = {"failure_threshold": 1, "failure_status_codes": [429]}
    target = {"virtual_key": key, "retry": {"attempts": 3, "on_status_codes": [429]}}
    gateway.store.put_config(
        "main",
        {"strategy": {"mode": "single", "cb_config": breaker}, "targets": [target]},
    )
    go_on = threading.Event()
    gateway.upstream.answers[:] = [
        stream(data(frame("a")), wait_for(go_on), data(frame("b", "stop")), DONE)
    ]
    caller = gateway.caller(gateway.key(config="main"))
    first = caller.complete(stream=True)
    refused = caller.complete(stream=True)
    go_on.set()
    events(first)
    first.close()

    assert refused.status_code == 429
    assert refused.headers["x-portkey-retry-attempt-count"] == "0"
    assert caller.complete(stream=True).status_code == 200


def test_each_retry_settles_its_reservation(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [
        whole({"error": {"message": "busy"}}, 503),
        whole(completion()),
    ]
    key = gateway.virtual_key(
        limits=Limits.of({"tokens_per_day": 600, "requests_in_parallel": 1})
    )
    retry = {"attempts": 1, "on_status_codes": [503]}
    gateway.store.put_config("main", {"virtual_key": key, "retry": retry})
    caller = gateway.caller(gateway.key(config="main"))

    assert caller.complete(max_tokens=500).status_code == 200
    left_in_the_end(caller, 600 - 3)


# Several targets

# Dollars per million tokens: a token of the second is a dollar.
ROWS = [
    {"provider": "openai", "model": model, "input": price, "output": price}
    for model, price in (("cheap", 16_666), ("dear", 999_999))
]
BUSY = whole({"error": {"message": "busy"}}, 503)


def falling_back(gateway: StoredGateway, *models: str, **limits: Any) -> Caller:
    """A caller with *limits* and a fallback through *models*."""
    gateway.settings = replace(gateway.settings, prices=prices(ROWS))
    key = gateway.virtual_key()
    targets = [
        {"virtual_key": key, "override_params": {"model": model}} for model in models
    ]
    gateway.store.put_config(
        "main", {"strategy": {"mode": "fallback"}, "targets": targets}
    )
    return gateway.caller(gateway.key(config="main", limits=Limits.of(limits)))


def requested_models(gateway: StoredGateway) -> list[str]:
    return [request.json["model"] for request in gateway.upstream.requests]


@pytest.mark.parametrize("first", ["nobody-knows", "cheap"])
def test_fallback_beyond_the_budget_is_refused(
    gateway: StoredGateway, first: str
) -> None:
    gateway.upstream.answers[:] = [BUSY, whole(completion())]
    caller = falling_back(gateway, first, "dear", money_per_day=1)
    response = caller.complete(max_tokens=59)

    assert response.status_code == 429
    assert response.json["error"]["code"] == "insufficient_quota"
    assert requested_models(gateway) == [first]


def test_fallback_skips_unaffordable_target(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [BUSY, whole(completion())]
    caller = falling_back(gateway, "nobody-knows", "dear", "cheap", money_per_day=2)
    response = caller.complete(max_tokens=59)

    assert response.status_code == 200
    assert requested_models(gateway) == ["nobody-knows", "cheap"]


def test_retries_add_up_in_budget(gateway: StoredGateway) -> None:
    """Unreadable answers are charged in full; the third attempt exceeds the budget."""
    gateway.upstream.answers[:] = [whole(b"<html>")]
    caller = falling_back(gateway, "m", "m", "m", tokens_per_day=250)
    refused = caller.complete(max_tokens=99)

    assert refused.status_code == 429
    assert "Used 200, Requested 100" in refused.json["error"]["message"]
    left_in_the_end(caller, 50)


def test_retried_request_counts_once(gateway: StoredGateway) -> None:
    gateway.upstream.answers[:] = [BUSY, BUSY, whole(completion())]
    counted = {"requests_per_minute": 5, "requests_in_parallel": 1}
    caller = falling_back(gateway, "m", "m", "m", **counted, tokens_per_day=1000)
    assert left(caller.complete(max_tokens=5), "requests") == 4

    assert left(caller.complete(max_tokens=5), "requests") == 3
    left_in_the_end(caller, 1000 - 2 * 3)


@pytest.mark.parametrize("whose", ["key", "virtual key"])
def test_second_plan_is_reserved_before_it_is_sent(
    gateway: StoredGateway, whose: str
) -> None:
    """The chat of a reasoning model gets a thousand tokens at least."""
    chats = {"error": {"message": "This is a chat model, use /chat/completions"}}
    gateway.upstream.answers[:] = [whole(chats, 404), whole(reply())]
    make = limited if whose == "key" else sharing
    caller = make(gateway, tokens_per_day=900, requests_per_minute=5)
    refused = caller.complete(model="o9-mini", max_tokens=10)
    assert refused.status_code == 429
    assert "Requested 1014" in refused.json["error"]["message"]
    gateway.upstream.answers[:] = [whole(chats, 404), whole(reply())]
    answered = caller.complete(model="m", max_tokens=10)

    paths = [request.path for request in gateway.upstream.requests]
    assert paths == ["/v1/completions"] * 2 + ["/v1/chat/completions"]
    assert answered.status_code == 200 and left(answered, "requests") == 3
    left_in_the_end(caller, 900 - 6)


def test_refused_second_plan_opens_no_breaker(gateway: StoredGateway) -> None:
    chats = {"error": {"message": "This is a chat model, use /chat/completions"}}
    gateway.upstream.answers[:] = [whole(chats, 404)]
    breaker = {"failure_threshold": 1, "failure_status_codes": [429]}
    key = gateway.virtual_key()
    gateway.store.put_config(
        "main",
        {
            "strategy": {"mode": "single", "cb_config": breaker},
            "targets": [{"virtual_key": key}],
        },
    )
    limits = Limits(tokens_per_day=900)
    caller = gateway.caller(gateway.key(config="main", limits=limits))
    for _ in range(2):
        assert caller.complete(model="o9-mini", max_tokens=10).status_code == 429

    assert len(gateway.upstream.requests) == 2


def test_text_beside_the_prompt_is_reserved(gateway: StoredGateway) -> None:
    bridge = {"system": "s" * 400, "template": "{prompt} {prompt}" + "t" * 395}
    key = gateway.virtual_key(provider="groq")
    gateway.store.put_config("main", {"virtual_key": key, "bridge": bridge})
    limits = Limits(tokens_per_day=10**6)
    caller = gateway.caller(gateway.key(config="main", limits=limits))
    gateway.upstream.answers[:] = [whole(reply())]
    response = caller.complete(max_tokens=5, tools=[{"description": "d" * 380}])

    assert left(response) == 10**6 - 100 - 100 - 100 - 5


# Requests without max_tokens


@pytest.mark.parametrize("make", [limited, sharing])
@pytest.mark.parametrize("limit", ["tokens_per_day", "money_per_month"])
def test_limited_key_gets_default_max_tokens(
    gateway: StoredGateway, make: Any, limit: str
) -> None:
    response = make(gateway, **{limit: 1000}).complete()

    assert gateway.upstream.last.json["max_tokens"] == 16
    assert response.headers["x-lastword-applied-defaults"] == "max_tokens=16"


def test_endpoints_default_length_is_reserved(gateway: StoredGateway) -> None:
    key = gateway.virtual_key(provider="anthropic")
    gateway.store.put_config("main", {"virtual_key": key})
    limits = Limits(tokens_per_day=4000)
    caller = gateway.caller(gateway.key(config="main", limits=limits))
    refused = caller.complete()

    assert refused.status_code == 429 and gateway.upstream.requests == []
    assert f"Requested {PROMPT + 4096}" in refused.json["error"]["message"]


def test_request_limit_sets_no_max_tokens(gateway: StoredGateway) -> None:
    limited(gateway, requests_per_minute=10).complete()

    assert "max_tokens" not in gateway.upstream.last.json


def test_unbounded_model_is_refused_to_limited_keys(gateway: StoredGateway) -> None:
    key = gateway.virtual_key()
    config = {"virtual_key": key, "model_info": {"lacks": ["max_tokens"]}}
    gateway.store.put_config("main", config)
    limits = Limits(tokens_per_day=4000)
    caller = gateway.caller(gateway.key(config="main", limits=limits))
    refused = caller.complete(max_tokens=5)

    assert (refused.status_code, refused.json["error"]["param"]) == (400, "max_tokens")
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    "info", [{"max_tokens": "user"}, {"lacks": ["max_tokens"]}], ids=str
)
def test_sent_config_cannot_respell_max_tokens(
    gateway: StoredGateway, info: dict[str, Any]
) -> None:
    key = gateway.virtual_key(limits=Limits(tokens_per_day=4000))
    caller = gateway.caller(gateway.key())
    config = {"virtual_key": key, "via": "chat", "model_info": info}
    sent = {"x-portkey-config": json.dumps(config)}
    refused = caller.complete(headers=sent, max_tokens=5)

    assert refused.status_code == 403 and gateway.upstream.requests == []
    assert "max_tokens" in refused.json["error"]["message"]


# Without a store


def test_provider_key_has_no_limits(caller: Caller) -> None:
    response = caller.complete(
        headers={"x-portkey-config": json.dumps({"provider": "openai"})}
    )

    assert response.status_code == 200
    assert "x-ratelimit-limit-requests" not in response.headers
