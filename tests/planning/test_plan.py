"""How a request is fitted to a target: by which way, and with what."""

from typing import Any

import pytest

from app.core.routing import CompletionMode
from app.errors import UnsupportedParameter, UpstreamStatus
from app.planning import plan

from ..providers import harness

OWN = {"base_url": None}


def way(provider: str, model: str, to: Any = OWN, **params: Any) -> CompletionMode:
    return harness.plan(provider, to=to, model=model, **params).mode


# Ways


@pytest.mark.parametrize(
    "provider, model, expected",
    [
        ("openai", "gpt-3.5-turbo-instruct", "native"),
        ("openai", "davinci-002", "native"),
        ("openai", "ft:babbage-002:org::id", "native"),
        ("openai", "gpt-4o-mini", "chat"),
        ("openai", "gpt-5-mini", "chat"),
        ("openai", "o3", "chat"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::id", "chat"),
        ("openai", "a-model-of-tomorrow", "native"),
        ("openrouter", "openai/gpt-4o", "chat"),
        ("openrouter", "mistralai/mistral-nemo-base", "native"),
        ("mistral-ai", "mistral-large-latest", "chat"),
        ("mistral-ai", "codestral-latest", "fim"),
        ("deepseek", "deepseek-chat", "native"),
        ("deepseek", "deepseek-reasoner", "chat"),
        ("dashscope", "qwen-plus", "chat"),
        ("dashscope", "qwen2.5-coder-32b-instruct", "chat"),
        ("x-ai", "grok-4", "chat"),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "chat"),
        ("bedrock", "us.meta.llama3-1-8b-instruct-v1:0", "native"),
        ("bedrock", "amazon.nova-lite-v1:0", "chat"),
    ],
)
def test_the_model_says_which_way_it_goes(
    provider: str, model: str, expected: str
) -> None:
    assert way(provider, model) == expected


def test_on_a_host_of_ones_own_a_name_may_stand_for_any_model() -> None:
    assert way("openai", "gpt-4o", to={"base_url": "http://vllm:8000/v1"}) == "native"


def test_a_target_has_the_last_word() -> None:
    assert way("openai", "gpt-4o", to=OWN | {"via": CompletionMode.NATIVE}) == "native"
    assert way("deepseek", "deepseek-chat", to={"via": CompletionMode.CHAT}) == "chat"


@pytest.mark.parametrize(
    "provider, model, expected",
    [
        ("openai", "m", "native"),
        ("deepseek", "deepseek-chat", "native"),
        ("mistral-ai", "mistral-large-latest", "fim"),
        ("codestral", "codestral-latest", "fim"),
        ("inception", "mercury", "fim"),
        ("dashscope", "qwen2.5-coder-32b-instruct", "fim"),
        ("llama-cpp", "m", "fim"),
        ("ollama", "m", "fim"),
    ],
)
def test_a_suffix_takes_the_way_that_knows_one(
    provider: str, model: str, expected: str
) -> None:
    made = harness.plan(provider, to={}, model=model, suffix="end")

    assert made.mode == expected and "suffix" in made.params


# What models refuse


def test_what_is_known_of_a_model_holds_for_its_chat_alone() -> None:
    native = harness.plan("openai", to={}, model="o1", temperature=0.5)
    chat = harness.plan(
        "openai", to={"via": CompletionMode.CHAT}, model="o1", temperature=0.5
    )

    assert (native.dropped, chat.dropped) == ([], ["temperature"])


def test_the_completions_endpoint_calls_a_budget_by_its_own_name() -> None:
    host = {"base_url": "http://vllm"}
    native = harness.body("openai", to=host, model="gpt-4o", max_tokens=5)
    chat = harness.body(
        "openai", to=host | {"via": CompletionMode.CHAT}, model="gpt-4o", max_tokens=5
    )

    assert (native["max_tokens"], chat["max_completion_tokens"]) == (5, 5)


def test_a_target_knows_its_model_best() -> None:
    info = {"lacks": ["top_p", "min_p"], "token_floor": 50, "max_tokens": "budget"}
    to = {"via": CompletionMode.CHAT, "model_info": info}
    made = harness.plan("openai", to=to, top_p=0.5, min_p=0.1, max_tokens=5)

    assert made.dropped == ["top_p", "min_p"]
    assert harness.body("openai", to=to, max_tokens=5)["budget"] == 50
    assert "50" in made.warnings[0]
    assert harness.plan("openai", to={"model_info": info}, top_p=0.5).dropped == [
        "top_p"
    ]


def test_a_budget_above_the_floor_is_left_alone() -> None:
    to = {"via": CompletionMode.CHAT}
    made = harness.plan("openai", to=to, model="o3", max_tokens=2000)

    assert made.warnings == []
    body = harness.body("openai", to=to, model="o3", max_tokens=2000)
    assert body["max_completion_tokens"] == 2000


# Parameters that exclude each other


@pytest.mark.parametrize(
    "given, sent, dropped",
    [
        ({"temperature": 0.2, "top_p": 0.5}, "temperature", ["top_p"]),
        ({"temperature": 1, "top_p": 0.5}, "top_p", []),
        ({"temperature": 0.2, "top_p": 1}, "temperature", []),
        ({"top_p": 0.5}, "top_p", []),
    ],
)
def test_of_two_that_exclude_each_other_the_one_that_means_something_is_sent(
    given: dict[str, Any], sent: str, dropped: list[str]
) -> None:
    made = harness.plan("anthropic", model="claude-3-haiku-20240307", **given)
    body = harness.body("anthropic", model="claude-3-haiku-20240307", **given)

    assert made.dropped == dropped
    assert {"temperature", "top_p"} & set(body) == {sent}


# Stop sequences


@pytest.mark.parametrize(
    "provider, given, sent, enforced",
    [
        ("anthropic", "END", ["END"], ()),
        ("anthropic", ["END", "\n\n"], ["END"], ("END", "\n\n")),
        ("anthropic", "\n", None, ("\n",)),
        ("z-ai", ["a", "b"], ["a"], ("a", "b")),
        ("perplexity-ai", ["a"], None, ("a",)),
        ("google", ["a", "b", "c", "d"], ["a", "b", "c", "d"], ()),
    ],
)
def test_the_gateway_looks_out_for_all_stops_if_one_cannot_be_said(
    provider: str, given: Any, sent: Any, enforced: tuple[str, ...]
) -> None:
    made = harness.plan(provider, stop=given)
    body = harness.body(provider, stop=given)
    places = [body, body.get("generationConfig", {})]
    found = [p[k] for p in places for k in p if k in ("stop", "stop_sequences")]
    found += [p["stopSequences"] for p in places if "stopSequences" in p]

    assert (found or [None])[0] == sent
    assert tuple(made.stops) == enforced


# Budgets


@pytest.mark.parametrize(
    "provider, asked, sent",
    [("openai", 0, 0), ("groq", 0, 1), ("groq", 7, 7), ("sglang", 0, 1)],
)
def test_no_token_is_asked_for_as_one_where_none_cannot_be(
    provider: str, asked: int, sent: int
) -> None:
    made = harness.plan(provider, max_tokens=asked)

    assert harness.body(provider, max_tokens=asked)["max_tokens"] == sent
    assert made.shape(made.parts[0]).nothing == (asked == 0 and sent == 1)


# Log probabilities


def test_more_alternatives_than_it_has_are_refused_with_how_many_it_has() -> None:
    with pytest.raises(UnsupportedParameter, match="5 tokens at most"):
        harness.plan("fireworks-ai", logprobs=6)


def test_ids_cannot_be_echoed_as_text() -> None:
    with pytest.raises(UnsupportedParameter, match="token ids"):
        harness.plan("llama-cpp", prompt=[1, 2], echo=True)


# Asking otherwise


def failed(message: str, status: int = 400, **details: Any) -> UpstreamStatus:
    return UpstreamStatus(message, status=status, **details)


CHAT_MODEL = "This is a chat model and not supported in the v1/completions endpoint."


@pytest.mark.parametrize(
    "error, to, params, again",
    [
        (failed(CHAT_MODEL, 404), {}, {}, "chat"),
        (failed(CHAT_MODEL, 500), {}, {}, None),
        (failed(CHAT_MODEL, 404), {"via": CompletionMode.NATIVE}, {}, None),
        (failed(CHAT_MODEL, 404), {}, {"suffix": "x"}, None),
        (failed("no such model", 404), {}, {}, None),
        (failed("Unknown parameter", param="stream_options"), {}, {}, None),
        (
            failed("Unknown parameter", param="stream_options"),
            {},
            {"stream": True, "stream_options": {"include_usage": True}},
            "native",
        ),
    ],
)
def test_an_upstream_that_says_how_is_asked_so(
    error: UpstreamStatus, to: Any, params: Any, again: str | None
) -> None:
    other = plan.replan_after_error(harness.plan("openai", to=to, **params), error)

    assert (other and other.mode) == again
    if again == "native":
        assert other and "stream_options" not in other.params
