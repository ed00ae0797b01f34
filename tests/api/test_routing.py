"""Routes over HTTP: which upstream is called, how often, and what the caller gets.

The clock is a fake: no test sleeps. Numbers are those of the cases in
docs/contract.md.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app import create_app
from app.gateway.retries import Clock
from app.settings import Settings
from tests.conftest import Caller, events
from tests.upstream import (
    DONE,
    Upstream,
    close,
    completion,
    cut_stream,
    data,
    frame,
    stream,
    whole,
)

HELLO = [data(frame("Hel")), data(frame("lo")), data(frame("!", "stop"))]


@dataclass
class FakeTime:
    """A clock that only sleeping advances, and a fixed random number."""

    passed: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    @property
    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: self.passed,
            now=lambda: 1_800_000_000 + self.passed,
            sleep=self.sleep,
            chance=lambda: 1 - 2**-53,
        )


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def plan(settings: Settings, fake_time: FakeTime) -> Iterator[Callable[..., Caller]]:
    """Creates callers that send a config with every request."""
    callers: list[Caller] = []

    def make(config: Any, **changes: Any) -> Caller:
        app = create_app(replace(settings, **changes), fake_time.clock)
        headers = {"x-portkey-config": json.dumps(config), "Authorization": "Bearer k0"}
        callers.append(Caller(app, headers))
        return callers[-1]

    yield make
    for caller in callers:
        caller.leave()


def at(upstream: Upstream, **more: Any) -> dict[str, Any]:
    """A target that leads to *upstream*."""
    return {"provider": "openai", "custom_host": upstream.url, **more}


def group(mode: str, *targets: Any, **strategy: Any) -> dict[str, Any]:
    return {"strategy": {"mode": mode, **strategy}, "targets": list(targets)}


def failing(status: int, **headers: str) -> Any:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return whole({"error": {"message": f"boom {status}"}}, status, *lines)


GOOD = whole(completion())


def target_and_retries(response: Any) -> tuple[str, str]:
    headers = response.headers
    return (
        headers["x-portkey-last-used-option-index"],
        headers["x-portkey-retry-attempt-count"],
    )


# Retries: cases 86-89


def test_89_failure_is_retried_until_success(plan, script, fake_time) -> None:
    upstream = script(failing(503), failing(503), GOOD)
    response = plan(at(upstream, retry={"attempts": 3})).complete()

    assert response.status_code == 200
    assert target_and_retries(response) == ("config", "2")
    assert fake_time.slept == pytest.approx([1, 2])
    assert response.headers["x-lastword-attempts"].count("config 503") == 2
    assert "x-should-retry" not in response.headers


def test_87_client_should_not_retry_after_retries(plan, script) -> None:
    upstream = script(failing(503))
    response = plan(at(upstream, retry={"attempts": 2})).complete()

    assert response.status_code == 503
    assert target_and_retries(response) == ("config", "-1")
    assert response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 3
    assert "attempts" not in response.json["error"]


@pytest.mark.parametrize(
    "retry, status, calls, count",
    [
        ({"attempts": 2}, 400, 1, "0"),
        ({"attempts": 2, "on_status_codes": [418]}, 418, 3, "-1"),
        ({"attempts": 2, "on_status_codes": [418]}, 503, 1, "0"),
        ({"attempts": 2, "on_status_codes": []}, 503, 1, "0"),
        ({"attempts": 0}, 503, 1, "0"),
        ({"attempts": 2}, 529, 3, "-1"),
        ({"attempts": 50}, 500, 6, "-1"),
    ],
    ids=str,
)
def test_89_retry_codes_and_attempts_are_configurable(
    plan, script, retry, status, calls, count
) -> None:
    upstream = script(failing(status))
    response = plan(at(upstream, retry=retry)).complete()

    assert response.status_code == status
    assert (len(upstream.requests), target_and_retries(response)[1]) == (calls, count)


@pytest.mark.parametrize("key", ["use_retry_after_header", "use_retry_after_headers"])
def test_86_retry_after_is_respected(plan, script, fake_time, key) -> None:
    upstream = script(failing(429, retry_after_ms="200"), GOOD)
    response = plan(at(upstream, retry={"attempts": 1, key: True})).complete()

    assert response.status_code == 200
    assert fake_time.slept == [0.2]


def test_86_long_retry_after_fails_at_once(plan, script, fake_time) -> None:
    upstream = script(failing(429, retry_after="70"))
    retry = {"attempts": 3, "use_retry_after_header": True}
    response = plan(at(upstream, retry=retry)).complete()

    assert (response.status_code, target_and_retries(response)[1]) == (429, "-1")
    assert response.headers["retry-after"] == "70"
    assert fake_time.slept == [] and len(upstream.requests) == 1


def test_88_exhausted_quota_falls_back_at_once(plan, script) -> None:
    quota = {"error": {"message": "no money", "code": "insufficient_quota"}}
    poor, rich = script(whole(quota, 429)), script(GOOD)
    config = group("fallback", at(poor), at(rich)) | {"retry": {"attempts": 3}}
    response = plan(config).complete()

    assert response.status_code == 200
    assert (len(poor.requests), len(rich.requests)) == (1, 1)


def test_83_wrong_key_is_never_retried(plan, script) -> None:
    upstream = script(failing(401))
    plan(at(upstream, retry={"attempts": 3})).complete()

    assert len(upstream.requests) == 1


def test_stream_is_retried_before_first_event(plan, script) -> None:
    upstream = script(
        stream(data({"error": {"message": "x", "code": 503}})), failing(500)
    )
    upstream.answers.append(stream(*HELLO, DONE))
    response = plan(at(upstream, retry={"attempts": 2})).complete(stream=True)

    assert response.get_data() == b"".join([*HELLO, DONE])
    assert target_and_retries(response)[1] == "2"


# Fallback: cases 96, 98, 99


def test_96_fallback_answers_for_failed_target(plan, script) -> None:
    first, second = script(failing(500)), script(GOOD)
    config = group("fallback", at(first, retry={"attempts": 1}), at(second))
    response = plan(config).complete()

    assert response.status_code == 200
    assert target_and_retries(response) == ("config.targets[1]", "0")
    assert (len(first.requests), len(second.requests)) == (2, 1)
    items = response.headers["x-lastword-attempts"].split(", ")
    assert [item.rsplit(" ", 1)[0] for item in items] == [
        "config.targets[0] 500",
        "config.targets[0] 500",
        "config.targets[1] 200",
    ]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500])
def test_fallback_follows_any_failure_by_default(plan, script, status: int) -> None:
    config = group("fallback", at(script(failing(status))), at(script(GOOD)))

    assert plan(config).complete().status_code == 200


@pytest.mark.parametrize(
    "listed, status, moves",
    [
        ([429, 500], 429, True),
        ([429], 500, False),
        ([], 500, False),
        ([200], 200, False),
    ],
)
def test_fallback_follows_listed_statuses(plan, script, listed, status, moves) -> None:
    first = script(GOOD if status == 200 else failing(status))
    second = script(GOOD)
    config = group("fallback", at(first), at(second), on_status_codes=listed)
    plan(config).complete()

    assert len(second.requests) == moves


def test_last_failure_lists_all_attempts(plan, script) -> None:
    first, second = script(failing(500)), script(failing(429, retry_after="3"))
    response = plan(group("fallback", at(first), at(second))).complete()

    assert response.status_code == 429
    assert response.json["error"]["message"] == "boom 429"
    assert response.json["error"]["attempts"] == [
        {
            "path": "config.targets[0]",
            "provider": "openai",
            "status": 500,
            "message": "boom 500",
        },
        {
            "path": "config.targets[1]",
            "provider": "openai",
            "status": 429,
            "message": "boom 429",
        },
    ]
    assert response.headers["retry-after"] == "3"
    assert response.headers["x-should-retry"] == "false"


def unusable(kind: str, script: Any) -> dict[str, Any]:
    """A target that fails without a status of its own."""
    targets: dict[str, Callable[[], dict[str, Any]]] = {
        "unknown to this version": lambda: {"provider": "anthropic", "api_key": "k"},
        "engine off": lambda: {"provider": "local"},
        "no key": lambda: {"provider": "openai", "custom_host": "http://127.0.0.1:9"},
        "refused": lambda: {
            "provider": "openai",
            "api_key": "k",
            "custom_host": "http://127.0.0.1:9",
        },
        "broken json": lambda: at(script(whole(b"{")), api_key="k"),
        "html": lambda: at(
            script(whole(b"<p>", content_type="text/html")), api_key="k"
        ),
        "hangs up": lambda: at(script([close]), api_key="k"),
    }
    return targets[kind]()


KINDS = [
    "unknown to this version",
    "engine off",
    "no key",
    "refused",
    "broken json",
] + ["html", "hangs up"]


@pytest.mark.parametrize("listed", [None, []], ids=["no list", "empty list"])
@pytest.mark.parametrize("kind", KINDS)
def test_unsuitable_target_is_skipped(plan, script, kind, listed) -> None:
    strategy = {} if listed is None else {"on_status_codes": listed}
    good = at(script(GOOD), api_key="k")
    caller = plan(group("fallback", unusable(kind, script), good, **strategy))
    del caller.headers["Authorization"]
    response = caller.complete()

    assert response.status_code == 200
    assert target_and_retries(response)[0] == "config.targets[1]"


def test_gateways_own_failure_is_marked(plan, script) -> None:
    lonely = plan({"provider": "jina", "api_key": "k"}).complete()
    upstreams = plan(at(script(failing(500)))).complete()

    assert lonely.status_code == 400
    assert lonely.json["error"]["code"] == "unsupported_provider"
    assert lonely.headers["x-portkey-gateway-exception"] == "true"
    assert "x-portkey-gateway-exception" not in upstreams.headers


BROKEN_STREAMS = {
    "error first": stream(data({"error": {"message": "no"}}), DONE),
    "nothing": stream(),
    "cut before the first event": cut_stream(b": ping\n\n"),
    "done first": stream(DONE),
}


@pytest.mark.parametrize("kind", BROKEN_STREAMS)
def test_98_early_stream_failure_falls_back(plan, script, kind: str) -> None:
    broken, good = script(BROKEN_STREAMS[kind]), script(stream(*HELLO, DONE))
    caller = plan(group("fallback", at(broken), at(good), on_status_codes=[429]))
    response = caller.complete(stream=True)

    assert response.get_data() == b"".join([*HELLO, DONE])
    assert target_and_retries(response)[0] == "config.targets[1]"
    # The connection of a finished answer may be reused.
    caller.leave()
    assert broken.wait_closed()


def test_99_late_stream_failure_is_not_spliced(plan, script) -> None:
    broken, other = script(cut_stream(HELLO[0])), script(stream(*HELLO, DONE))
    response = plan(group("fallback", at(broken), at(other))).complete(stream=True)
    first, last = events(response)

    assert first["choices"][0]["text"] == "Hel"
    assert "error" in last
    assert other.requests == []


def test_groups_can_be_nested(plan, script) -> None:
    first, second, third = script(failing(500)), script(failing(500)), script(GOOD)
    inner = group("fallback", at(first), at(second))
    response = plan(group("fallback", inner, group("single", at(third)))).complete()

    assert target_and_retries(response)[0] == "config.targets[1].targets[0]"
    assert response.headers["x-lastword-attempts"].startswith(
        "config.targets[0].targets[0] 500"
    )


# Load balancing: case 97


def test_97_weights_decide_and_zero_is_skipped(plan, script) -> None:
    never, always = script(GOOD), script(GOOD)
    config = group("loadbalance", at(never, weight=0), at(always, weight=0.3))
    caller = plan(config)
    for _ in range(5):
        assert target_and_retries(caller.complete())[0] == "config.targets[1]"

    assert never.requests == []


def test_sticky_caller_keeps_its_target(plan, script) -> None:
    upstreams = [script(GOOD) for _ in range(3)]
    strategy = {"sticky": "metadata.user"}
    caller = plan(group("loadbalance", *map(at, upstreams), **strategy))

    def target_of(user: str) -> str:
        metadata = {"x-portkey-metadata": json.dumps({"user": user})}
        return target_and_retries(caller.complete(headers=metadata))[0]

    chosen = {f"u{i}": target_of(f"u{i}") for i in range(40)}
    assert chosen == {user: target_of(user) for user in chosen}
    assert len(set(chosen.values())) == 3


# Conditions: row 22 of Portkey's list


def conditional(script: Any, query: Any) -> tuple[Any, Upstream, Upstream]:
    yes, no = script(GOOD), script(GOOD)
    conditions = [{"query": query, "then": "yes"}]
    targets = [at(no, name="no"), at(yes, name="yes")]
    config = group("conditional", *targets, conditions=conditions, default="no")
    return config, yes, no


@pytest.mark.parametrize(
    "query, holds",
    [
        ({}, True),
        ({"metadata.plan": "paid"}, True),
        ({"metadata.plan": "free"}, False),
        ({"metadata.user.team": {"$in": ["a", "b"]}}, True),
        ({"metadata.level": {"$gte": 3, "$lt": "5"}}, True),
        ({"metadata.level": "4"}, False),
        ({"metadata.nothing": None}, True),
        ({"metadata.plan": {"$regex": "^p", "$ne": "paid"}}, False),
        ({"params.model": {"$regex": "^gpt-3\\.5"}}, True),
        ({"params.prompt": {"$regex": "(?i)hello"}}, True),
        ({"params.temperature": {"$exists": False}}, True),
        ({"params.stop.0": "x"}, True),
        ({"url.pathname": "/v1/completions"}, True),
        (
            {"$or": [{"metadata.plan": "x"}, {"params.n": 1}], "metadata.plan": "y"},
            False,
        ),
        ({"$and": [{"metadata.plan": "paid"}, {"params.n": 1}]}, True),
        ({"$not": {"metadata.plan": "paid"}}, False),
    ],
    ids=str,
)
def test_condition_chooses_by_request(plan, script, query: Any, holds: bool) -> None:
    config, yes, no = conditional(script, query)
    metadata = {"plan": "paid", "level": 4, "user": {"team": "a"}}
    response = plan(config).complete(
        headers={"x-portkey-metadata": json.dumps(metadata)},
        model="gpt-3.5-turbo-instruct",
        prompt="Say Hello",
        n=1,
        stop=["x"],
    )

    assert target_and_retries(response)[0] == f"config.targets[{int(holds)}]"
    assert (len(yes.requests), len(no.requests)) == (int(holds), int(not holds))


def test_invalid_metadata_matches_nothing(plan, script) -> None:
    config, yes, _ = conditional(script, {"metadata.a": {"$exists": True}})
    plan(config).complete(headers={"x-portkey-metadata": "{"})

    assert yes.requests == []


def test_pattern_cannot_block_the_gateway(plan, script) -> None:
    config, yes, _ = conditional(script, {"params.prompt": {"$regex": "^(a+)+$"}})
    plan(config).complete(prompt="a" * 100_000 + "b")

    assert yes.requests == []


# Inherited settings


def test_params_get_defaults_drops_and_overrides(plan, script) -> None:
    upstream = script(GOOD)
    inner = at(upstream, override_params={"temperature": 0, "top_k": 5})
    config = group("single", inner) | {
        "override_params": {"max_tokens": 5, "top_k": 1},
        "default_params": {"user": "nobody", "stop": ["a"], "seed": 1},
        "drop_params": ["logprobs", "user"],
    }
    plan(config).complete(temperature=1, stop=["mine"], logprobs=3, seed=None)

    assert upstream.last.json == {
        "model": "m",
        "prompt": "Hi",
        "temperature": 0,
        "max_tokens": 5,
        "top_k": 5,
        "stop": ["mine"],
        "seed": 1,
    }


def test_114_override_params_replace_the_body(plan, script) -> None:
    upstream = script(GOOD)
    plan(at(upstream, overrideParams={"max_tokens": 5})).complete(max_tokens=9)

    assert upstream.last.json["max_tokens"] == 5


def test_override_params_may_enable_streaming(plan, script) -> None:
    upstream = script(stream(*HELLO, DONE))
    response = plan(at(upstream, override_params={"stream": True})).complete()

    assert response.get_data().endswith(DONE)


def test_override_params_are_validated(plan, script) -> None:
    upstream = script(GOOD)
    response = plan(at(upstream, override_params={"temperature": 9})).complete()

    assert response.json["error"]["param"] == "temperature"
    assert upstream.requests == []


def test_target_without_key_uses_the_requests(plan, script) -> None:
    own, others = script(failing(500)), script(GOOD)
    config = group("fallback", at(own, api_key="k1"), at(others))
    plan(config).complete()

    assert own.last.headers["authorization"] == "Bearer k1"
    assert others.last.headers["authorization"] == "Bearer k0"


def test_request_key_stays_with_its_provider(plan, script) -> None:
    """The key belongs to the provider that the header names."""
    upstream = script(GOOD)
    caller = plan(group("single", at(upstream)))
    response = caller.complete(headers={"x-portkey-provider": "anthropic"})

    assert response.status_code == 401
    assert upstream.requests == []


def test_sdk_placeholder_key_is_ignored(plan, script) -> None:
    upstream = script(GOOD)
    sdk = {"Authorization": "Bearer OPENAI_API_KEY", "x-portkey-api-key": "pk"}
    sdk["x-portkey-package-version"] = "portkey-2.3.4"
    plan(at(upstream, api_key="k1")).complete(headers=sdk)

    assert upstream.last.headers["authorization"] == "Bearer k1"


def test_retry_and_timeouts_are_inherited(plan, script) -> None:
    first, second = script(failing(500)), script(failing(500))
    config = group("fallback", at(first), at(second, retry={"attempts": 0}))
    plan(config | {"retry": {"attempts": 2}}).complete()

    assert (len(first.requests), len(second.requests)) == (3, 1)


def test_nearest_forward_headers_win(plan, script) -> None:
    first, second = script(failing(500)), script(GOOD)
    config = group("fallback", at(first), at(second, forward_headers=["x-b"]))
    caller = plan(config | {"forward_headers": ["X-A"]})
    caller.complete(headers={"X-A": "1", "X-B": "2"})

    assert "x-a" in first.last.headers and "x-b" not in first.last.headers
    assert "x-b" in second.last.headers and "x-a" not in second.last.headers


def test_organization_of_config_is_sent(plan, script) -> None:
    upstream = script(GOOD)
    plan(at(upstream, openai_organization="org-1")).complete()

    assert upstream.last.headers["openai-organization"] == "org-1"


def test_config_may_use_provider_of_header(plan, script) -> None:
    upstream = script(failing(500), GOOD)
    caller = plan({"retry": {"attempts": 1}, "custom_host": upstream.url})
    response = caller.complete(headers={"x-portkey-provider": "openai"})

    assert response.status_code == 200
    assert target_and_retries(response) == ("config", "1")


# Timeouts


def test_header_timeout_overrides_nearest_one(plan, script) -> None:
    config = group("single", at(script([10.0]), request_timeout=50))
    config["request_timeout"] = 5000
    message = "Request exceeded the timeout sent in the request: "
    caller = plan(config)
    nearest = caller.complete()
    header = caller.complete(headers={"x-portkey-request-timeout": "70"})

    assert (nearest.status_code, header.status_code) == (408, 408)
    assert nearest.json["error"]["message"] == message + "50ms"
    assert header.json["error"]["message"] == message + "70ms"


def test_timeout_falls_back(plan, script) -> None:
    slow, quick = script([10.0]), script(GOOD)
    config = group("fallback", at(slow, request_timeout=50), at(quick))
    response = plan(config).complete()

    assert response.status_code == 200
    assert response.headers["x-lastword-attempts"].startswith("config.targets[0] 408")


def test_deadline_bounds_the_whole_route(plan, script, fake_time: FakeTime) -> None:
    first, second = script(failing(503)), script(GOOD)
    config = group("fallback", at(first, retry={"attempts": 5}), at(second))
    response = plan(config | {"deadline_ms": 2500}).complete()

    assert response.status_code == 200
    assert fake_time.slept == pytest.approx([1])
    assert len(first.requests) == 2


def test_nothing_is_called_after_deadline(plan, script, fake_time: FakeTime) -> None:
    first, second = script(failing(503)), script(GOOD)
    config = group("fallback", at(first), at(second)) | {"deadline_ms": 100}
    caller = plan(config)
    fake_time.passed = 50.0

    def late(connection: Any) -> None:
        fake_time.passed += 1

    first.answers = [[late, *failing(503)]]
    response = caller.complete()

    assert response.status_code == 408
    assert "deadline" in response.json["error"]["message"]
    assert second.requests == []


# The breaker


def test_failing_target_is_skipped(plan, script, fake_time) -> None:
    sick, well = script(failing(503)), script(GOOD)
    breaker = {"failure_threshold": 2, "cooldown_interval": 30_000}
    caller = plan(group("fallback", at(sick), at(well), cb_config=breaker))
    for _ in range(5):
        assert caller.complete().status_code == 200
    assert len(sick.requests) == 2

    fake_time.passed += 31
    caller.complete()
    caller.complete()
    assert len(sick.requests) == 3


def test_all_open_breakers_are_ignored(plan, script) -> None:
    one, other = script(failing(503)), script(failing(503))
    breaker = {"failure_threshold": 1}
    caller = plan(group("fallback", at(one), at(other), cb_config=breaker))
    for _ in range(3):
        assert caller.complete().status_code == 503

    assert (len(one.requests), len(other.requests)) == (3, 3)
