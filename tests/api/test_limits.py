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
from tests.house import House
from tests.upstream import (
    DONE,
    completion,
    cut_stream,
    data,
    frame,
    reply,
    stream,
    wait_for,
    whole,
)

# "Hi" is one token by the gateway's own count.
PROMPT = 1


def limited(house: House, **limits: Any) -> Caller:
    """A caller whose key has *limits*, with a virtual key without any."""
    house.store.put_config("main", {"virtual_key": house.virtual_key()})
    return house.caller(house.key(config="main", limits=Limits.of(limits)))


def limited_twin(house: House) -> Caller:
    """A second caller with a limited key."""
    twin = house.key("twin", config="main", limits=Limits(tokens_per_day=1000))
    return house.caller(twin)


def sharing(house: House, **limits: Any) -> Caller:
    """A caller whose key has no limits, with a virtual key that has."""
    key = house.virtual_key(limits=Limits.of(limits))
    house.store.put_config("main", {"virtual_key": key})
    return house.caller(house.key(config="main"))


def left(response: Any, unit: str = "tokens") -> int:
    return int(response.headers[f"x-ratelimit-remaining-{unit}"])


def left_in_the_end(caller: Caller, tokens: int) -> None:
    """Assert that *tokens* remain in the end, as a refused request is told.

    Redis counters are settled in the background.
    """
    remaining: list[int] = []

    def is_reached() -> bool:
        remaining.append(left(caller.complete(max_tokens=10**9)))
        return remaining[-1] == tokens

    eventually(is_reached, left=lambda: remaining)


# Requests


def test_reached_limit_has_retry_after(house: House) -> None:
    caller = limited(house, requests_per_minute=2)
    answers = [caller.complete() for _ in range(3)]
    refused = answers[-1]
    error = refused.json["error"]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert len(house.upstream.requests) == 2
    assert error["type"] == "requests" and error["code"] == "rate_limit_exceeded"
    assert "key:job reached on requests_per_minute: Limit 2, Used 2" in error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-portkey-gateway-exception" not in refused.headers


def test_answer_has_remaining_limits(house: House) -> None:
    """And not the limits of the gateway's account at the provider."""
    house.upstream.answers[:] = [
        whole(completion(), 200, "x-ratelimit-remaining-requests: 9999")
    ]
    response = limited(house, requests_per_minute=5, tokens_per_minute=500).complete()

    assert response.headers["x-ratelimit-limit-requests"] == "5"
    assert response.headers["x-ratelimit-remaining-requests"] == "4"
    assert response.headers["x-ratelimit-limit-tokens"] == "500"
    assert response.headers["x-ratelimit-reset-tokens"].endswith("s")


def test_stream_has_remaining_limits(house: House) -> None:
    house.upstream.answers[:] = [stream(data(frame("a", "stop")), DONE)]
    response = limited(house, requests_per_minute=5).complete(stream=True)

    assert left(response, "requests") == 4


def test_provider_limits_pass_without_own(house: House) -> None:
    house.upstream.answers[:] = [
        whole(completion(), 200, "x-ratelimit-remaining-requests: 9999")
    ]

    assert left(limited(house).complete(), "requests") == 9999


def test_gateways_share_counters(house: House) -> None:
    first = limited(house, requests_per_minute=20)
    second = house.caller(first.headers["Authorization"].removeprefix("Bearer "))

    def complete(number: int) -> int:
        return (first, second)[number % 2].complete().status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(complete, range(60)))

    assert (statuses.count(200), statuses.count(429)) == (20, 40)


def test_invalid_request_costs_nothing(house: House) -> None:
    caller = limited(house, requests_per_minute=2)
    assert caller.complete(temperature=3).status_code == 400
    assert caller.complete(logprobs=99).status_code == 400

    assert left(caller.complete(), "requests") == 1


def test_answer_frees_its_parallel_slot(house: House) -> None:
    caller = limited(house, requests_in_parallel=1)

    assert [caller.complete().status_code for _ in range(5)] == [200] * 5


def test_stream_holds_its_slot(house: House) -> None:
    go_on = threading.Event()
    house.upstream.answers[:] = [
        stream(data(frame("a")), wait_for(go_on), data(frame("b", "stop")), DONE)
    ]
    caller = limited(house, requests_in_parallel=1)
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
    house: House,
) -> None:
    response = limited(house, tokens_per_minute=50).complete(max_tokens=50)

    assert response.status_code == 429
    assert "Limit 50, Used 0, Requested 51" in response.json["error"]["message"]
    assert "too large for this limit" in response.json["error"]["message"]
    assert "retry-after" not in response.headers
    assert house.upstream.requests == []


def test_reservation_covers_prompts_and_max_tokens(house: House) -> None:
    caller = limited(house, tokens_per_day=1000)
    response = caller.complete(
        prompt=["Hi", "Hi"], n=2, best_of=3, logprobs=1, max_tokens=10
    )

    assert response.status_code == 200
    assert left(response) == 1000 - 2 * PROMPT - 2 * 3 * 10


def test_charge_is_the_actual_usage(house: House) -> None:
    caller = limited(house, tokens_per_day=1000)
    assert left(caller.complete(max_tokens=500)) == 1000 - 500 - PROMPT

    left_in_the_end(caller, 1000 - 3)


def test_resent_prompts_are_charged_again(house: House) -> None:
    """A chat without `n` is called n times, and each call bills the prompt."""
    house.upstream.answers[:] = [whole(reply())]
    key = house.virtual_key(provider="groq")
    house.store.put_config("main", {"virtual_key": key})
    limits = Limits.of({"tokens_per_day": 1000})
    caller = house.caller(house.key(config="main", limits=limits))
    response = caller.complete(n=3, max_tokens=10)
    usage = response.json["usage"]

    assert len(house.upstream.requests) == 3
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 6)
    assert left(response) == 1000 - 3 * (PROMPT + 10)
    left_in_the_end(caller, 1000 - 3 * 6)


@pytest.mark.parametrize("many", [2**63, 10**30, -5])
def test_absurd_usage_is_not_retried(house: House, many: int) -> None:
    """And affects no other counter."""
    house.upstream.answers[:] = [
        whole(completion(usage={"prompt_tokens": 1, "completion_tokens": many}))
    ]
    own = {"tokens_per_day": 1000, "money_per_day": 10**6}
    caller = limited(house, **own, requests_per_minute=50)
    assert caller.complete(model="gpt-4o", max_tokens=5).status_code == 200
    if many > 0:
        eventually(lambda: caller.complete(max_tokens=5).status_code == 429)
    assert limited_twin(house).complete(max_tokens=5).status_code == 200


def test_stream_is_charged_by_usage(house: House) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    house.upstream.answers[:] = [
        stream(
            *(data(frame(text)) for text in "ab"),
            data(frame("", "stop")),
            data(frame() | {"choices": [], "usage": usage}),
            DONE,
        ),
    ]
    caller = limited(house, tokens_per_day=1000)
    response = caller.complete(stream=True, stream_options={"include_usage": True})
    assert events(response)[-1] == "[DONE]"
    response.close()

    left_in_the_end(caller, 1000 - 7)


def test_truncated_stream_is_charged_partly(house: House) -> None:
    house.upstream.answers[:] = [
        cut_stream(*(data(frame(text)) for text in "abc")),
    ]
    caller = limited(house, tokens_per_day=1000)
    response = caller.complete(stream=True, max_tokens=500)
    assert "error" in events(response)[-1]
    response.close()

    left_in_the_end(caller, 1000 - PROMPT - 3)


def test_hang_up_is_charged_partly(house: House) -> None:
    never = threading.Event()
    house.upstream.answers[:] = [
        stream(data(frame("a")), data(frame("b")), wait_for(never)),
    ]
    caller = limited(house, tokens_per_day=1000)
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
    house: House, answer: Any, headers: dict[str, str], charged: int
) -> None:
    house.upstream.answers[:] = [answer]
    caller = limited(house, tokens_per_day=1000)
    assert caller.complete(max_tokens=500, headers=headers).status_code >= 400

    left_in_the_end(caller, 1000 - charged)


# Money


def test_money_budget_refuses_when_spent(house: House) -> None:
    """A dollar per token, by the operator's own prices."""
    row = {"provider": "openai", "model": "m", "input": 999_999, "output": 999_999}
    house.settings = replace(house.settings, prices=prices([row]))
    caller = limited(house, money_per_month="12.50")
    assert caller.complete(max_tokens=2).status_code == 200
    eventually(lambda: caller.complete(max_tokens=2).status_code == 429)
    refused = caller.complete(max_tokens=2)
    error = refused.json["error"]

    assert error["code"] == error["type"] == "insufficient_quota"
    assert "money_per_month: Limit $12.5" in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    # Each request uses three tokens, and the next would reserve three more.
    assert 3 <= len(house.upstream.requests) <= 4


def test_unpriced_model_counts_tokens_only(house: House) -> None:
    caller = limited(house, money_per_day=0, tokens_per_day=1000)
    response = caller.complete(model="nobody-knows", max_tokens=10)

    assert response.status_code == 200
    assert left(response) == 1000 - PROMPT - 10


# Virtual keys


def test_virtual_key_limit_is_shared(house: House) -> None:
    first = sharing(house, requests_per_minute=2)
    second = house.caller(house.key("another", config="main"))
    statuses = [each.complete().status_code for each in (first, second, first, second)]

    assert statuses == [200, 200, 429, 429]


def test_retry_counts_for_virtual_key_only(
    house: House,
) -> None:
    house.upstream.answers[:] = [
        *[whole({"error": {"message": "busy"}}, 503)] * 2,
        whole(completion()),
    ]
    key = house.virtual_key(limits=Limits.of({"requests_per_minute": 10}))
    retry = {"attempts": 2, "on_status_codes": [503]}
    house.store.put_config("main", {"virtual_key": key, "retry": retry})
    minute = Limits.of({"requests_per_minute": 10})
    caller = house.caller(house.key(config="main", limits=minute))
    own = caller.complete()
    unlimited = house.caller(house.key("another", config="main")).complete()

    assert left(own, "requests") == 9
    assert left(unlimited, "requests") == 10 - 3 - 1


def test_fallback_passes_limited_target(house: House) -> None:
    first = house.virtual_key("a", limits=Limits.of({"requests_per_minute": 1}))
    targets = [{"virtual_key": first}, {"virtual_key": house.virtual_key("b")}]
    house.store.put_config(
        "main", {"strategy": {"mode": "fallback"}, "targets": targets}
    )
    caller = house.caller(house.key(config="main"))
    used = [
        caller.complete().headers["x-portkey-last-used-option-index"] for _ in range(3)
    ]

    assert used == ["config.targets[0]", "config.targets[1]", "config.targets[1]"]


def test_limited_fallback_has_retry_after(house: House) -> None:
    targets = [{"virtual_key": house.virtual_key(name)} for name in ("a", "b")]
    house.store.put_config(
        "main", {"strategy": {"mode": "fallback"}, "targets": targets}
    )
    minute, never = Limits(requests_per_minute=1), Limits(tokens_per_day=1)
    caller = house.caller(house.key(config="main", limits=minute))
    assert caller.complete().status_code == 200
    later = caller.complete()
    spent = house.caller(house.key("spent", config="main", limits=never)).complete()

    assert later.status_code == spent.status_code == 429
    assert "retry-after" in later.headers and "x-should-retry" not in later.headers
    assert spent.headers["x-should-retry"] == "false"


def test_limit_does_not_open_breaker(house: House) -> None:
    """No circuit opens, and there is no retry."""
    key = house.virtual_key(limits=Limits.of({"requests_in_parallel": 1}))
    breaker = {"failure_threshold": 1, "failure_status_codes": [429]}
    target = {"virtual_key": key, "retry": {"attempts": 3, "on_status_codes": [429]}}
    house.store.put_config(
        "main",
        {"strategy": {"mode": "single", "cb_config": breaker}, "targets": [target]},
    )
    go_on = threading.Event()
    house.upstream.answers[:] = [
        stream(data(frame("a")), wait_for(go_on), data(frame("b", "stop")), DONE)
    ]
    caller = house.caller(house.key(config="main"))
    first = caller.complete(stream=True)
    refused = caller.complete(stream=True)
    go_on.set()
    events(first)
    first.close()

    assert refused.status_code == 429
    assert refused.headers["x-portkey-retry-attempt-count"] == "0"
    assert caller.complete(stream=True).status_code == 200


def test_each_retry_settles_its_reservation(house: House) -> None:
    house.upstream.answers[:] = [
        whole({"error": {"message": "busy"}}, 503),
        whole(completion()),
    ]
    key = house.virtual_key(
        limits=Limits.of({"tokens_per_day": 600, "requests_in_parallel": 1})
    )
    retry = {"attempts": 1, "on_status_codes": [503]}
    house.store.put_config("main", {"virtual_key": key, "retry": retry})
    caller = house.caller(house.key(config="main"))

    assert caller.complete(max_tokens=500).status_code == 200
    left_in_the_end(caller, 600 - 3)


# Several targets

# Dollars per million tokens: a token of the second is a dollar.
ROWS = [
    {"provider": "openai", "model": model, "input": price, "output": price}
    for model, price in (("cheap", 16_666), ("dear", 999_999))
]
BUSY = whole({"error": {"message": "busy"}}, 503)


def falling_back(house: House, *models: str, **limits: Any) -> Caller:
    """A caller with *limits* and a fallback through *models*."""
    house.settings = replace(house.settings, prices=prices(ROWS))
    key = house.virtual_key()
    targets = [
        {"virtual_key": key, "override_params": {"model": model}} for model in models
    ]
    house.store.put_config(
        "main", {"strategy": {"mode": "fallback"}, "targets": targets}
    )
    return house.caller(house.key(config="main", limits=Limits.of(limits)))


def requested_models(house: House) -> list[str]:
    return [request.json["model"] for request in house.upstream.requests]


@pytest.mark.parametrize("first", ["nobody-knows", "cheap"])
def test_fallback_beyond_the_budget_is_refused(house: House, first: str) -> None:
    house.upstream.answers[:] = [BUSY, whole(completion())]
    caller = falling_back(house, first, "dear", money_per_day=1)
    response = caller.complete(max_tokens=59)

    assert response.status_code == 429
    assert response.json["error"]["code"] == "insufficient_quota"
    assert requested_models(house) == [first]


def test_fallback_skips_unaffordable_target(house: House) -> None:
    house.upstream.answers[:] = [BUSY, whole(completion())]
    caller = falling_back(house, "nobody-knows", "dear", "cheap", money_per_day=2)
    response = caller.complete(max_tokens=59)

    assert response.status_code == 200
    assert requested_models(house) == ["nobody-knows", "cheap"]


def test_retries_add_up_in_budget(house: House) -> None:
    """Unreadable answers are charged in full; the third attempt exceeds the budget."""
    house.upstream.answers[:] = [whole(b"<html>")]
    caller = falling_back(house, "m", "m", "m", tokens_per_day=250)
    refused = caller.complete(max_tokens=99)

    assert refused.status_code == 429
    assert "Used 200, Requested 100" in refused.json["error"]["message"]
    left_in_the_end(caller, 50)


def test_retried_request_counts_once(house: House) -> None:
    house.upstream.answers[:] = [BUSY, BUSY, whole(completion())]
    counted = {"requests_per_minute": 5, "requests_in_parallel": 1}
    caller = falling_back(house, "m", "m", "m", **counted, tokens_per_day=1000)
    assert left(caller.complete(max_tokens=5), "requests") == 4

    assert left(caller.complete(max_tokens=5), "requests") == 3
    left_in_the_end(caller, 1000 - 2 * 3)


@pytest.mark.parametrize("whose", ["key", "virtual key"])
def test_second_plan_is_reserved_before_it_is_sent(house: House, whose: str) -> None:
    """The chat of a reasoning model gets a thousand tokens at least."""
    chats = {"error": {"message": "This is a chat model, use /chat/completions"}}
    house.upstream.answers[:] = [whole(chats, 404), whole(reply())]
    make = limited if whose == "key" else sharing
    caller = make(house, tokens_per_day=900, requests_per_minute=5)
    refused = caller.complete(model="o9-mini", max_tokens=10)
    assert refused.status_code == 429
    assert "Requested 1014" in refused.json["error"]["message"]
    house.upstream.answers[:] = [whole(chats, 404), whole(reply())]
    answered = caller.complete(model="m", max_tokens=10)

    paths = [request.path for request in house.upstream.requests]
    assert paths == ["/v1/completions"] * 2 + ["/v1/chat/completions"]
    assert answered.status_code == 200 and left(answered, "requests") == 3
    left_in_the_end(caller, 900 - 6)


def test_refused_second_plan_opens_no_breaker(house: House) -> None:
    chats = {"error": {"message": "This is a chat model, use /chat/completions"}}
    house.upstream.answers[:] = [whole(chats, 404)]
    breaker = {"failure_threshold": 1, "failure_status_codes": [429]}
    key = house.virtual_key()
    house.store.put_config(
        "main",
        {
            "strategy": {"mode": "single", "cb_config": breaker},
            "targets": [{"virtual_key": key}],
        },
    )
    limits = Limits(tokens_per_day=900)
    caller = house.caller(house.key(config="main", limits=limits))
    for _ in range(2):
        assert caller.complete(model="o9-mini", max_tokens=10).status_code == 429

    assert len(house.upstream.requests) == 2


def test_text_beside_the_prompt_is_reserved(house: House) -> None:
    bridge = {"system": "s" * 400, "template": "{prompt} {prompt}" + "t" * 395}
    key = house.virtual_key(provider="groq")
    house.store.put_config("main", {"virtual_key": key, "bridge": bridge})
    limits = Limits(tokens_per_day=10**6)
    caller = house.caller(house.key(config="main", limits=limits))
    house.upstream.answers[:] = [whole(reply())]
    response = caller.complete(max_tokens=5, tools=[{"description": "d" * 380}])

    assert left(response) == 10**6 - 100 - 100 - 100 - 5


# Requests without max_tokens


@pytest.mark.parametrize("make", [limited, sharing])
@pytest.mark.parametrize("limit", ["tokens_per_day", "money_per_month"])
def test_limited_key_gets_default_max_tokens(
    house: House, make: Any, limit: str
) -> None:
    response = make(house, **{limit: 1000}).complete()

    assert house.upstream.last.json["max_tokens"] == 16
    assert response.headers["x-lastword-applied-defaults"] == "max_tokens=16"


def test_endpoints_default_length_is_reserved(house: House) -> None:
    key = house.virtual_key(provider="anthropic")
    house.store.put_config("main", {"virtual_key": key})
    limits = Limits(tokens_per_day=4000)
    caller = house.caller(house.key(config="main", limits=limits))
    refused = caller.complete()

    assert refused.status_code == 429 and house.upstream.requests == []
    assert f"Requested {PROMPT + 4096}" in refused.json["error"]["message"]


def test_request_limit_sets_no_max_tokens(house: House) -> None:
    limited(house, requests_per_minute=10).complete()

    assert "max_tokens" not in house.upstream.last.json


def test_unbounded_model_is_refused_to_limited_keys(house: House) -> None:
    key = house.virtual_key()
    config = {"virtual_key": key, "model_info": {"lacks": ["max_tokens"]}}
    house.store.put_config("main", config)
    limits = Limits(tokens_per_day=4000)
    caller = house.caller(house.key(config="main", limits=limits))
    refused = caller.complete(max_tokens=5)

    assert (refused.status_code, refused.json["error"]["param"]) == (400, "max_tokens")
    assert house.upstream.requests == []


@pytest.mark.parametrize(
    "info", [{"max_tokens": "user"}, {"lacks": ["max_tokens"]}], ids=str
)
def test_sent_config_cannot_respell_max_tokens(
    house: House, info: dict[str, Any]
) -> None:
    key = house.virtual_key(limits=Limits(tokens_per_day=4000))
    caller = house.caller(house.key())
    config = {"virtual_key": key, "via": "chat", "model_info": info}
    sent = {"x-portkey-config": json.dumps(config)}
    refused = caller.complete(headers=sent, max_tokens=5)

    assert refused.status_code == 403 and house.upstream.requests == []
    assert "max_tokens" in refused.json["error"]["message"]


# Without a store


def test_provider_key_has_no_limits(caller: Caller) -> None:
    response = caller.complete(
        headers={"x-portkey-config": json.dumps({"provider": "openai"})}
    )

    assert response.status_code == 200
    assert "x-ratelimit-limit-requests" not in response.headers
