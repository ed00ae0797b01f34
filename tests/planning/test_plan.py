"""Plans: the completion mode of a request to a target, and its parameters."""

from typing import Any

import pytest

from app.core.routing import CompletionMode
from app.errors import UnsupportedParameter, UpstreamStatus
from app.planning.replanning import replan_after_error

from ..providers import harness

OWN = {"base_url": None}


def planned_mode(
    provider: str, model: str, to: Any = OWN, **params: Any
) -> CompletionMode:
    return harness.plan(provider, to=to, model=model, **params).mode


# Modes


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
def test_model_determines_mode(provider: str, model: str, expected: str) -> None:
    assert planned_mode(provider, model) == expected


def test_custom_host_ignores_model_table() -> None:
    assert (
        planned_mode("openai", "gpt-4o", to={"base_url": "http://vllm:8000/v1"})
        == "native"
    )


def test_via_overrides_mode() -> None:
    assert (
        planned_mode("openai", "gpt-4o", to=OWN | {"via": CompletionMode.NATIVE})
        == "native"
    )
    assert (
        planned_mode("deepseek", "deepseek-chat", to={"via": CompletionMode.CHAT})
        == "chat"
    )


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
def test_suffix_selects_fim_mode(provider: str, model: str, expected: str) -> None:
    result = harness.plan(provider, to={}, model=model, suffix="end")

    assert result.mode == expected and "suffix" in result.params


# Parameters that models refuse


def test_capabilities_apply_to_chat_only() -> None:
    native = harness.plan("openai", to={}, model="o1", temperature=0.5)
    chat = harness.plan(
        "openai", to={"via": CompletionMode.CHAT}, model="o1", temperature=0.5
    )

    assert (native.dropped, chat.dropped) == ([], ["temperature"])


def test_native_mode_keeps_max_tokens_name() -> None:
    host = {"base_url": "http://vllm"}
    native = harness.body("openai", to=host, model="gpt-4o", max_tokens=5)
    chat = harness.body(
        "openai", to=host | {"via": CompletionMode.CHAT}, model="gpt-4o", max_tokens=5
    )

    assert (native["max_tokens"], chat["max_completion_tokens"]) == (5, 5)


def test_model_info_overrides_table() -> None:
    info = {"lacks": ["top_p", "min_p"], "token_floor": 50, "max_tokens": "budget"}
    to = {"via": CompletionMode.CHAT, "model_info": info}
    result = harness.plan("openai", to=to, top_p=0.5, min_p=0.1, max_tokens=5)

    assert result.dropped == ["top_p", "min_p"]
    assert harness.body("openai", to=to, max_tokens=5)["budget"] == 50
    assert "50" in result.warnings[0]
    assert harness.plan("openai", to={"model_info": info}, top_p=0.5).dropped == [
        "top_p"
    ]


def test_max_tokens_above_floor_is_kept() -> None:
    to = {"via": CompletionMode.CHAT}
    result = harness.plan("openai", to=to, model="o3", max_tokens=2000)

    assert result.warnings == []
    body = harness.body("openai", to=to, model="o3", max_tokens=2000)
    assert body["max_completion_tokens"] == 2000


# Parameters that exclude each other


@pytest.mark.parametrize(
    "params, sent, dropped",
    [
        ({"temperature": 0.2, "top_p": 0.5}, "temperature", ["top_p"]),
        ({"temperature": 1, "top_p": 0.5}, "top_p", []),
        ({"temperature": 0.2, "top_p": 1}, "temperature", []),
        ({"top_p": 0.5}, "top_p", []),
    ],
)
def test_exclusive_params_keep_non_default(
    params: dict[str, Any], sent: str, dropped: list[str]
) -> None:
    result = harness.plan("anthropic", model="claude-3-haiku-20240307", **params)
    body = harness.body("anthropic", model="claude-3-haiku-20240307", **params)

    assert result.dropped == dropped
    assert {"temperature", "top_p"} & set(body) == {sent}


# Stop sequences


@pytest.mark.parametrize(
    "provider, stop, sent, enforced",
    [
        ("anthropic", "END", ["END"], ()),
        ("anthropic", ["END", "\n\n"], ["END"], ("END", "\n\n")),
        ("anthropic", "\n", None, ("\n",)),
        ("z-ai", ["a", "b"], ["a"], ("a", "b")),
        ("perplexity-ai", ["a"], None, ("a",)),
        ("google", ["a", "b", "c", "d"], ["a", "b", "c", "d"], ()),
    ],
)
def test_unsupported_stop_is_enforced_by_gateway(
    provider: str, stop: Any, sent: Any, enforced: tuple[str, ...]
) -> None:
    result = harness.plan(provider, stop=stop)
    body = harness.body(provider, stop=stop)
    containers = [body, body.get("generationConfig", {})]
    stops = [p[k] for p in containers for k in p if k in ("stop", "stop_sequences")]
    stops += [p["stopSequences"] for p in containers if "stopSequences" in p]

    assert (stops or [None])[0] == sent
    assert tuple(result.stops) == enforced


# Budgets


@pytest.mark.parametrize(
    "provider, max_tokens, sent",
    [("openai", 0, 0), ("groq", 0, 1), ("groq", 7, 7), ("sglang", 0, 1)],
)
def test_zero_max_tokens_becomes_one(provider: str, max_tokens: int, sent: int) -> None:
    result = harness.plan(provider, max_tokens=max_tokens)

    assert harness.body(provider, max_tokens=max_tokens)["max_tokens"] == sent
    assert result.shape(result.parts[0]).suppress_text == (
        max_tokens == 0 and sent == 1
    )


# Log probabilities


def test_too_many_logprobs_are_refused() -> None:
    with pytest.raises(UnsupportedParameter, match="5 tokens at most"):
        harness.plan("fireworks-ai", logprobs=6)


def test_token_ids_cannot_be_echoed() -> None:
    with pytest.raises(UnsupportedParameter, match="token ids"):
        harness.plan("llama-cpp", prompt=[1, 2], echo=True)


# Replanning


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
def test_replan_after_error(
    error: UpstreamStatus, to: Any, params: Any, again: str | None
) -> None:
    other = replan_after_error(harness.plan("openai", to=to, **params), error)

    assert (other and other.mode) == again
    if again == "native":
        assert other and "stream_options" not in other.params
