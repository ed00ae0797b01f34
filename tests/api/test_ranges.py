"""Ranges are those of the target: OpenAI's for OpenAI, an engine's for an engine."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.limits import Limits
from app.core.parameter_aliases import unify_budget
from app.core.stop_sequences import StopMatcher
from app.providers import PROVIDERS, openai_rules
from tests.conftest import Caller, Script, events
from tests.providers import harness
from tests.stored_gateway import StoredGateway
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Upstream,
    completion,
    data,
    delta,
    frame,
    reply,
    stream,
    whole,
)

OPENAI = ("openai", "azure-openai")
MANY_STOPS = [f"<stop {i}>" for i in range(12)]
TEXT = "before <stop 11> behind it"


def to(upstream: Upstream, provider: str, **more: Any) -> dict[str, str]:
    """Headers of a config with one target."""
    target = {"provider": provider, "custom_host": upstream.url, "api_key": "key"}
    return {"x-portkey-config": json.dumps(target | more)}


def answer(text: str, pieces: int = 1) -> Callable[[ReceivedRequest], Answer]:
    """Answers each way of each engine with *text*; a stream has it in *pieces*."""
    size = -(-len(text) // pieces)
    parts = [text[i : i + size] for i in range(0, len(text), size)]

    def script(request: ReceivedRequest) -> Answer:
        body = request.json
        is_chat = "/chat/" in request.path
        if not body.get("stream"):
            return whole(reply(text) if is_chat else completion(text))
        piece: Callable[..., Any] = delta if is_chat else frame
        ends = [data(piece("", "length")), DONE]
        return stream(*(data(piece(part)) for part in parts), *ends)

    return script


def sent_stops(upstream: Upstream) -> Any:
    body = upstream.last.json
    return body.get("stop") or body.get("options", {}).get("stop")


# Stop sequences


# How many sequences the native endpoint takes, and the chat.
STOP_LIMITS: dict[str, dict[str, int]] = {
    "vllm": {"native": 12, "chat": 12},
    "sglang": {"native": 12, "chat": 12},
    "llama-cpp": {"native": 12, "chat": 12},
    "lm-studio": {"native": 12, "chat": 12},
    "tgi": {"native": 4, "chat": 4},
    "together-ai": {"native": 4, "chat": 4},
    "fireworks-ai": {"native": 4, "chat": 4},
    "openrouter": {"native": 4, "chat": 4},
    "x-ai": {"native": 4, "chat": 0},
    "groq": {"chat": 4},
    "moonshot": {"chat": 5},
    "perplexity-ai": {"chat": 0},
}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "provider, via, limit",
    [(name, *each) for name, modes in STOP_LIMITS.items() for each in modes.items()],
)
def test_gateway_enforces_stops_beyond_limit(
    call: Any, script: Script, provider: str, via: str, limit: int, streams: bool
) -> None:
    # The upstream knows none of the sequences: the text runs on behind the last one.
    upstream = script(answer(TEXT, pieces=9))
    response = call(upstream).complete(
        headers=to(upstream, provider, via=via), stop=MANY_STOPS, stream=streams
    )

    assert response.status_code == 200, response.json
    chunks = events(response) if streams else [response.json, "[DONE]"]
    assert (sent_stops(upstream) or []) == MANY_STOPS[:limit]
    assert chunks.pop() == "[DONE]"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["text"] for choice in choices)
    # Where the target takes all of them, it is the one that keeps them.
    is_enforced = limit < len(MANY_STOPS)
    assert text == ("before " if is_enforced else TEXT)
    assert not is_enforced or choices[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("provider", OPENAI)
@pytest.mark.parametrize("via", ["native", "chat"])
def test_five_stops_are_refused_by_openai(
    caller: Caller, upstream: Upstream, provider: str, via: str
) -> None:
    response = caller.complete(
        headers=to(upstream, provider, via=via), stop=MANY_STOPS[:5]
    )

    error = response.json["error"]
    assert (error["param"], error["code"]) == ("stop", "array_above_max_length")
    assert "maximum length 4, but got an array with length 5" in error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "stop, code",
    [
        (["x"] * 257, "array_above_max_length"),
        (["x" * 16_385], "string_above_max_length"),
        ("x" * 16_385, "string_above_max_length"),
        (["x" * 8_192, "y" * 8_193], "string_above_max_length"),
    ],
    ids=["many", "long", "long text", "long together"],
)
def test_number_and_length_of_stops_are_bounded(
    caller: Caller, upstream: Upstream, stop: Any, code: str
) -> None:
    error = caller.complete(headers=to(upstream, "vllm"), stop=stop).json["error"]

    assert (error["param"], error["code"]) == ("stop", code)
    assert upstream.requests == []


def test_longest_stops_are_found_in_linear_time() -> None:
    """Each is a long run of one letter, and the text is such a run without an end."""
    stops = ["a" * 60 + str(i) for i in range(256)] + ["a" * 1000 + "b"]
    matcher, length = StopMatcher(stops), 200_000
    for _ in range(length // 4):
        matcher.feed("aaaa")

    # With the work of all sequences at each piece it would be minutes.
    assert matcher.length is None and matcher.held == 1000


@given(
    st.text("ab<", max_size=30),
    st.lists(st.text("ab<", min_size=1, max_size=5), min_size=1, max_size=8),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_matcher_finds_first_complete_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher, read = StopMatcher(stops), ""
    bounds = sorted({0, *cuts, len(text)})
    for start, end in zip(bounds, bounds[1:], strict=False):
        matcher.feed(text[start:end])
        read = text[:end]
        if matcher.length is not None:
            break
        beginnings = (stop[:i] for stop in stops for i in range(len(stop)))
        held = max(len(b) for b in beginnings if read.endswith(b))
        assert matcher.held == held
    ends = [i for i in range(len(read) + 1) if any(map(read[:i].endswith, stops))]
    if ends:
        longest = max(len(s) for s in stops if read[: ends[0]].endswith(s))
        assert matcher.length == ends[0] - longest
    else:
        assert matcher.length is None


# No limit of tokens


@pytest.mark.parametrize(
    "provider, via, expected",
    [
        ("llama-cpp", "native", {"max_tokens": -1}),
        ("lm-studio", "native", {"max_tokens": -1}),
        ("ollama", "native", {"num_predict": -1}),
        ("vllm", "native", {"max_tokens": None}),
        ("modal", "native", {"max_tokens": None}),
        ("sglang", "native", {}),
        ("together-ai", "native", {}),
        ("vllm", "chat", {}),
        ("groq", "chat", {}),
        ("openrouter", "chat", {}),
        ("google", "chat", {}),
    ],
)
@pytest.mark.parametrize("spelling", ["max_tokens", "n_predict", "max_new_tokens"])
@pytest.mark.parametrize("value", [-1, -1.0])
def test_no_limit_of_tokens_is_said_as_target_knows(
    provider: str, via: str, expected: dict[str, Any], spelling: str, value: float
) -> None:
    params = dict(unify_budget({spelling: int(value)}))
    body = harness.body(provider, to={"via": via}, **params)
    options = body.get("options", body.get("generationConfig", body))

    found = {k: v for k, v in options.items() if k in ("max_tokens", "num_predict")}
    assert found == expected
    assert "maxOutputTokens" not in options
    plan = harness.plan(provider, to={"via": via}, **params)
    # A chat has no limit without one; a completion has the server's own.
    is_lost = not expected and via == "native"
    assert list(plan.dropped) == (["max_tokens"] if is_lost else [])


def test_required_max_tokens_replaces_no_limit() -> None:
    plan = harness.plan("anthropic", max_tokens=-1)

    assert harness.body("anthropic", max_tokens=-1)["max_tokens"] > 0
    assert plan.request.defaults["max_tokens"] > 0


def test_no_limit_takes_no_default(caller: Caller, call: Any, upstream: Any) -> None:
    other = call(upstream, default_max_tokens=100)
    response = other.complete(headers=to(upstream, "llama-cpp"), max_tokens=-1)

    assert upstream.last.json["max_tokens"] == -1
    assert "x-lastword-applied-defaults" not in response.headers


def test_no_limit_is_absent_where_unknown(
    caller: Caller, call: Any, upstream: Upstream
) -> None:
    """So the default of the gateway applies, and is named as for any other body."""
    other = call(upstream, default_max_tokens=100)
    response = other.complete(headers=to(upstream, "together-ai"), max_tokens=-1)

    assert upstream.last.json["max_tokens"] == 100
    assert response.headers["x-lastword-applied-defaults"] == "max_tokens=100"
    assert "x-lastword-dropped-params" not in response.headers


@pytest.mark.parametrize("name", ["n_predict", "max_completion_tokens"])
def test_openai_goes_without_other_servers_no_limit(
    caller: Caller, upstream: Upstream, name: str
) -> None:
    response = caller.complete(**{name: -1})

    assert response.status_code == 200, response.json
    assert upstream.last.json == {"model": "m", "prompt": "Hi"}
    assert response.headers["x-lastword-dropped-params"] == "max_tokens"


def test_openai_refuses_no_limit(caller: Caller, upstream: Upstream) -> None:
    error = caller.complete(max_tokens=-1).json["error"]

    assert (error["param"], error["code"]) == ("max_tokens", "integer_below_min_value")
    assert "Expected a value >= 0, but got -1 instead" in error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize("value", [-2, -100, -1.5])
def test_other_negative_budgets_are_refused(
    caller: Caller, upstream: Upstream, value: float
) -> None:
    headers = to(upstream, "llama-cpp")
    error = caller.complete(headers=headers, max_tokens=value).json["error"]

    assert error["param"] == "max_tokens" and upstream.requests == []


@pytest.mark.parametrize("default, expected", [(None, 16), (100, 100)])
@pytest.mark.parametrize("spelling", ["max_tokens", "n_predict"])
def test_limited_key_has_bounded_budget(
    gateway: StoredGateway, spelling: str, default: int | None, expected: int
) -> None:
    gateway.virtual_key("engine", provider="llama-cpp")
    limits = {"tokens_per_day": 1000}
    key = gateway.key(limits=Limits.of(limits))
    caller = gateway.caller(key, default_max_tokens=default)
    headers = {"x-portkey-virtual-key": "engine"}
    response = caller.complete(headers=headers, **{spelling: -1})

    assert response.status_code == 200, response.json
    assert gateway.upstream.last.json["max_tokens"] == expected
    applied = response.headers["x-lastword-applied-defaults"]
    assert applied == f"max_tokens={expected}"


# Budgets under other names


@pytest.mark.parametrize(
    "params, expected",
    [
        ({"max_completion_tokens": 50}, 50),
        ({"max_completion_tokens": 50.0}, 50.0),
        ({"max_completion_tokens": 50, "max_tokens": None}, 50),
        ({"max_completion_tokens": 50, "n_predict": -1}, 50),
        ({"max_new_tokens": -1, "n_predict": -1}, -1),
        ({"max_completion_tokens": None}, None),
        ({"max_completion_tokens": -5}, None),
        ({"max_completion_tokens": "50"}, None),
        ({"max_completion_tokens": True}, None),
        ({"max_completion_tokens": float("inf")}, None),
    ],
    ids=str,
)
def test_budget_is_read_from_its_other_names(params: Any, expected: Any) -> None:
    assert unify_budget(params).get("max_tokens") == expected


@pytest.mark.parametrize(
    "provider, via",
    [(name, via) for name in ("openai", "vllm") for via in ("native", "chat")]
    + [("groq", "chat")],
)
def test_max_completion_tokens_is_the_only_budget(
    call: Any, script: Script, provider: str, via: str
) -> None:
    upstream = script(answer("Hi"))
    headers, caller = to(upstream, provider, via=via), call(upstream)
    assert caller.complete(headers=headers, max_completion_tokens=7).status_code == 200
    names = {"max_tokens", "max_completion_tokens"}
    sent = [{k: v for k, v in upstream.last.json.items() if k in names}]
    response = caller.complete(headers=headers, max_completion_tokens=7, max_tokens=3)
    sent += [{k: v for k, v in upstream.last.json.items() if k in names}]

    assert [list(each.values()) for each in sent] == [[7], [3]]
    assert "max_completion_tokens" in response.headers["x-lastword-dropped-params"]


# Numbers


@pytest.mark.parametrize("param", ["logprobs", "max_tokens", "n", "seed"])
def test_whole_decimal_is_an_integer_for_others(
    caller: Caller, upstream: Upstream, param: str
) -> None:
    caller.complete(headers=to(upstream, "vllm"), **{param: 4.0})

    sent = upstream.last.json[param]
    assert sent == 4 and type(sent) is int


@pytest.mark.parametrize("value", ["4", "4.0", 4.5, True, [4]], ids=repr)
@pytest.mark.parametrize("param", ["best_of", "logprobs", "max_tokens", "n", "seed"])
def test_other_types_are_integers_nowhere(
    caller: Caller, upstream: Upstream, param: str, value: Any
) -> None:
    error = caller.complete(headers=to(upstream, "vllm"), **{param: value}).json[
        "error"
    ]

    assert (error["param"], error["code"]) == (param, "invalid_type")


@pytest.mark.parametrize("provider", OPENAI)
@pytest.mark.parametrize(
    "param, value, code",
    [
        ("best_of", 21, "integer_above_max_value"),
        ("frequency_penalty", 2.5, "decimal_above_max_value"),
        ("logit_bias", {"1": 101}, "decimal_above_max_value"),
        ("logit_bias", [], "invalid_type"),
        ("logit_bias", [[1, 5]], "invalid_type"),
        ("logprobs", 21, "integer_above_max_value"),
        ("max_tokens", 4.0, "invalid_type"),
        ("n", 129, "integer_above_max_value"),
        ("n", 1.0, "invalid_type"),
        ("presence_penalty", -2.1, "decimal_below_min_value"),
        ("seed", 3.0, "invalid_type"),
        ("temperature", 2.1, "decimal_above_max_value"),
    ],
    ids=str,
)
def test_openai_keeps_its_own_rules(
    caller: Caller, upstream: Upstream, provider: str, param: str, value: Any, code: str
) -> None:
    response = caller.complete(headers=to(upstream, provider), **{param: value})

    assert response.status_code == 400
    assert response.json["error"]["param"].split(".")[0] == param
    assert response.json["error"]["code"] == code
    assert response.json["error"]["type"] == "invalid_request_error"
    assert upstream.requests == []


BEYOND: list[tuple[str, Any]] = [
    ("temperature", 2.5),
    ("temperature", 5),
    ("logprobs", 50),
    ("logit_bias", {"1": 200}),
]


@pytest.mark.parametrize("provider", ["vllm", "sglang", "modal"])
@pytest.mark.parametrize("param, value", BEYOND, ids=str)
def test_engine_gets_values_beyond_openais(
    provider: str, param: str, value: Any
) -> None:
    assert harness.body(provider, **{param: value})[param] == value


@pytest.mark.parametrize("param", ["frequency_penalty", "presence_penalty"])
def test_llama_cpp_bounds_no_penalty(param: str) -> None:
    for provider in ("llama-cpp", "lm-studio"):
        for via in ("native", "chat"):
            sent = harness.body(provider, to={"via": via}, **{param: -3})
            assert sent[param] == -3
    assert harness.body("ollama", **{param: 3})["options"][param] == 3


@pytest.mark.parametrize("provider", ["together-ai", "groq", "google", "anthropic"])
@pytest.mark.parametrize(
    "param, value",
    [
        ("temperature", 2.5),
        ("frequency_penalty", -3),
        ("presence_penalty", 3),
        ("logit_bias", {"1": 200}),
    ],
    ids=str,
)
def test_hosts_go_without_values_beyond_range(
    provider: str, param: str, value: Any
) -> None:
    plan = harness.plan(provider, **{param: value})

    assert list(plan.dropped) == [param]
    assert param not in harness.body(provider, **{param: value})


def test_embedded_engine_keeps_openais_numbers() -> None:
    """It is one process for all callers, and has no reason to take more."""
    for param, value in [("temperature", 3), ("logprobs", 21), ("n", 129)]:
        with pytest.raises(Exception, match=f"Invalid '{param}'"):
            harness.plan("local", **{param: value})
    plan = harness.plan("local", stop=MANY_STOPS, max_tokens=-1)

    assert plan.stops == () and plan.dropped == []


def test_more_choices_than_128_take_several_calls() -> None:
    calls = harness.calls("vllm", n=300)

    assert [json.loads(call.body or b"")["n"] for call in calls] == [128, 128, 44]
    with pytest.raises(Exception, match="Too many parallel completions"):
        harness.calls("vllm", n=2**31 - 1)


@pytest.mark.parametrize(
    "bias, expected",
    [
        ([[15043, 1.5], [2, -3]], {"15043": 1.5, "2": -3}),
        ([[15043, False]], {"15043": -100}),
        ([["15043", 1]], {"15043": 1}),
        ([], None),
    ],
    ids=str,
)
def test_bias_in_pairs_is_an_object(
    caller: Caller, upstream: Upstream, bias: Any, expected: Any
) -> None:
    response = caller.complete(headers=to(upstream, "llama-cpp"), logit_bias=bias)

    assert response.status_code == 200, response.json
    assert (upstream.last.json.get("logit_bias") or None) == expected


@pytest.mark.parametrize(
    "bias", [[1], [[1]], [[1, 2, 3]], [[1, "x"]], [[1, True]], [[1.5, 2]], [["a", 1]]]
)
def test_other_arrays_are_no_bias(caller: Caller, upstream: Upstream, bias) -> None:
    response = caller.complete(headers=to(upstream, "llama-cpp"), logit_bias=bias)

    assert response.status_code == 400
    assert response.json["error"]["param"].startswith("logit_bias")


# Routes with several targets


@pytest.mark.parametrize(
    "body",
    [
        {"stop": MANY_STOPS},
        {"max_tokens": -1},
        {"max_tokens": 4.0},
        {"temperature": 3},
        {"n": 200, "stop": MANY_STOPS},
        {"presence_penalty": 2.5, "logit_bias": []},
    ],
    ids=str,
)
def test_next_target_takes_what_openai_refuses(
    caller: Caller, upstream: Upstream, body: dict[str, Any]
) -> None:
    targets = [
        {"provider": name, "custom_host": upstream.url, "api_key": "key"}
        for name in ("openai", "llama-cpp")
    ]
    config = {"strategy": {"mode": "fallback"}, "targets": targets}
    headers = {"x-portkey-config": json.dumps(config)}
    both = caller.complete(headers=headers, **body)
    calls = body.get("n", 1)
    alone = caller.complete(headers=to(upstream, "openai"), **body)

    assert both.headers["x-portkey-provider"] == "llama-cpp"
    assert both.status_code == 200 and len(upstream.requests) == calls
    assert alone.status_code == 400


def test_rules_belong_to_openai_alone() -> None:
    ruled = {
        provider.name
        for provider in PROVIDERS.values()
        for mode in provider.modes
        for endpoint in provider.endpoints(mode).values()
        if endpoint.rules is openai_rules.check
    }

    assert ruled == set(OPENAI)
