"""Peculiarities of single providers."""

import json
from typing import Any

import pytest

from app.core.completion import Usage
from app.core.routing import Bridge
from app.core.sse import Event
from app.errors import (
    UnsupportedParameter,
    UnsupportedProvider,
    UpstreamError,
    UpstreamInBand,
)
from app.providers import PROVIDERS

from . import harness


def events(*documents: Any) -> list[Event]:
    data = [d if isinstance(d, bytes) else json.dumps(d).encode() for d in documents]
    return [Event(block) for block in data]


def texts(pieces: Any) -> str:
    return "".join(choice.text for piece in pieces for choice in piece.choices)


# Workers AI


RUN = {"model": "@cf/meta/llama-3.1-8b-instruct"}


def test_workers_ai_sends_raw_prompt() -> None:
    (call,) = harness.calls("workers-ai", prompt="\n\nHi ", **RUN, max_tokens=5)

    assert call.url == "http://upstream/run/@cf/meta/llama-3.1-8b-instruct"
    sent = json.loads(call.body or b"")
    assert (sent["prompt"], sent["raw"], sent["max_tokens"]) == ("\n\nHi ", True, 5)


def test_workers_ai_reads_completions_shape() -> None:
    counted = {"prompt_tokens": 2, "completion_tokens": 1}
    choice = {"index": 0, "text": " Yes", "finish_reason": "length"}
    result = {"choices": [choice], "usage": counted}
    whole = json.dumps({"success": True, "result": result}).encode()
    answer = harness.whole("workers-ai", whole, **RUN)
    pieces = harness.streamed("workers-ai", events(result, b"[DONE]"), **RUN)

    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
        " Yes",
        "length",
    )
    assert answer.usage == pieces[-1].usage == Usage(2, 1)
    assert texts(pieces) == " Yes"
    assert pieces[-2].choices[0].finish_reason == "length"


def test_workers_ai_reads_numeric_text() -> None:
    pieces = harness.streamed(
        "workers-ai", events({"response": "5"}, {"response": 0}, b"[DONE]"), **RUN
    )

    assert texts(pieces) == "50"


def test_workers_ai_infers_length_from_usage() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    whole = json.dumps({"success": True, "result": {"response": "x", "usage": usage}})
    answer = harness.whole("workers-ai", whole.encode(), **RUN, max_tokens=5)

    assert answer.choices[0].finish_reason == "length"


def test_workers_ai_joins_error_messages() -> None:
    refused = {"success": False, "errors": [{"code": 7003, "message": "No route"}]}

    with pytest.raises(UpstreamInBand, match="No route"):
        harness.whole("workers-ai", json.dumps(refused).encode(), **RUN)


# Ollama


def test_ollama_sends_raw_prompt_and_defaults() -> None:
    sent = harness.body("ollama", prompt="Hi ", max_tokens=5, stop="x", logprobs=0)

    assert (sent["prompt"], sent["raw"], sent["logprobs"]) == ("Hi ", True, True)
    assert sent["options"] == {
        "num_predict": 5,
        "stop": ["x"],
        "temperature": 1.0,
        "top_p": 1.0,
    }
    assert harness.body("ollama", temperature=0)["options"]["temperature"] == 0


def test_ollama_paths_ignore_v1_suffix() -> None:
    for host in ("http://ollama:11434", "http://ollama:11434/v1"):
        (call,) = harness.calls("ollama", to={"base_url": host})
        assert call.url == "http://ollama:11434/api/generate"


def test_ollama_refuses_empty_prompt() -> None:
    with pytest.raises(UnsupportedParameter, match="only load"):
        harness.plan("ollama", prompt="")


def test_ollama_error_line_ends_stream() -> None:
    lines = events({"response": "so", "done": False}, {"error": "out of memory"})

    with pytest.raises(UpstreamInBand, match="out of memory"):
        harness.streamed("ollama", lines)


def test_ollama_infill_error_names_suffix() -> None:
    error = PROVIDERS["ollama"].error(400, b'{"error": "x does not support insert"}')

    assert (error.param, error.code) == ("suffix", "unsupported_parameter")


def test_ollama_missing_usage_is_estimated() -> None:
    line = {"response": "four", "done": True, "done_reason": "stop"}

    assert harness.whole("ollama", json.dumps(line).encode()).usage == Usage(
        1, 1, estimated=True
    )


# Triton


def test_triton_sends_common_params_only() -> None:
    chosen_plan = harness.plan("triton", stop="END", seed=5, max_tokens=7)
    sent = harness.body("triton", stop="END", seed=5, max_tokens=7)

    assert sent == {
        "text_input": "Hi",
        "exclude_input_in_output": True,
        "max_tokens": 7,
    }
    assert (chosen_plan.stops, chosen_plan.dropped) == (("END",), ["seed"])


def test_triton_stream_error_is_raised() -> None:
    with pytest.raises(UpstreamInBand, match="CUDA"):
        harness.streamed("triton", events({"text_output": "so"}, {"error": "CUDA"}))


# Azure


def azure(**to: Any) -> Any:
    return harness.calls("azure-openai", to=to, model="dep")[0]


def test_azure_path_names_deployment() -> None:
    call = azure()

    assert call.url == (
        "http://upstream/deployments/dep/completions?api-version=2024-10-21"
    )
    assert call.headers["api-key"] == harness.KEY
    named = azure(options={"azure_deployment_id": "a/b", "azure_api_version": "2025"})
    assert named.url.endswith("/deployments/a%2Fb/completions?api-version=2025")


def test_azure_v1_body_names_deployment() -> None:
    options = {"azure_deployment_id": "mine", "azure_api_version": "v1"}
    call = azure(options=options)

    assert call.url == "http://upstream/v1/completions"
    assert json.loads(call.body or b"")["model"] == "mine"


def test_azure_token_replaces_key() -> None:
    call = azure(options={"azure_ad_token": "of-entra"})

    assert call.headers["Authorization"] == "Bearer of-entra"
    assert "api-key" not in call.headers


def test_foundry_v1_has_no_dated_version() -> None:
    new = {"base_url": "https://r.services.ai.azure.com/openai/v1"}

    assert harness.calls("azure-ai", to=new)[0].url.endswith("?api-version=v1")
    assert "2024-05-01-preview" in harness.calls("azure-ai")[0].url


def test_foundry_drops_extra_params_by_default() -> None:
    (call,) = harness.calls("azure-ai")
    changed = harness.calls("azure-ai", to={"headers": {"extra-parameters": "error"}})[
        0
    ]

    assert call.headers["extra-parameters"] == "drop"
    assert changed.headers["extra-parameters"] == "error"


# Bedrock


def conversed(**changes: Any) -> bytes:
    message = {"role": "assistant", "content": [{"text": "Yes"}]}
    usage = {"inputTokens": 3, "outputTokens": 1, "cacheReadInputTokens": 2}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}
    return json.dumps(answer | changes).encode()


def test_bedrock_usage_includes_cache() -> None:
    answer = harness.whole("bedrock", conversed())

    assert answer.usage == Usage(5, 1, cached_tokens=2)


def test_bedrock_guardrail_is_content_filter() -> None:
    answer = harness.whole("bedrock", conversed(stopReason="guardrail_intervened"))

    assert answer.choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize(
    "name, status",
    [
        ("throttlingException", 429),
        ("internalServerException", 500),
        ("xException", 502),
    ],
)
def test_bedrock_stream_exception_has_status(name: str, status: int) -> None:
    failure = Event(b'{"message": "slow down"}', name.encode())

    with pytest.raises(UpstreamError, match="slow down") as raised:
        harness.streamed("bedrock", [failure])
    assert (raised.value.status, raised.value.type) == (status, name)


@pytest.mark.parametrize(
    "model, field",
    [
        ("us.meta.llama3-1-8b-instruct-v1:0", "prompt"),
        ("amazon.titan-text-express-v1", "inputText"),
    ],
)
def test_bedrock_families_get_raw_prompt(model: str, field: str) -> None:
    (call,) = harness.calls(
        "bedrock", to={"via": "native"}, model=model, prompt=" Hi\n"
    )

    assert json.loads(call.body or b"")[field] == " Hi\n"
    assert call.url.endswith("%3A0/invoke" if ":" in model else "/invoke")


def test_bedrock_arn_contains_family() -> None:
    arn = "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0"
    (call,) = harness.calls("bedrock", to={"via": "native"}, model=arn, max_tokens=5)

    assert json.loads(call.body or b"") == {"prompt": "Hi", "max_gen_len": 5}
    assert "/model/arn%3Aaws%3A" in call.url and "%2Fmeta.llama3" in call.url


def test_bedrock_cohere_stream_flag() -> None:
    params = {"to": {"via": "native"}, "model": "cohere.command-light-text-v14"}

    assert harness.body("bedrock", **params, stream=True)["stream"] is True
    assert "stream" not in harness.body("bedrock", **params)


def test_bedrock_unsupported_stop_is_emulated() -> None:
    chosen_plan = harness.plan("bedrock", model="openai.gpt-oss-120b-1:0", stop="END")

    assert chosen_plan.stops == ("END",)


def test_bedrock_chat_model_refuses_native() -> None:
    with pytest.raises(UnsupportedProvider, match="cannot ask 'anthropic.claude-3"):
        harness.plan(
            "bedrock", to={"via": "native"}, model="anthropic.claude-3-haiku-v1:0"
        )


# Anthropic, Google, Cohere


def test_anthropic_thinking_is_hidden() -> None:
    message = {
        "id": "msg_1",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "Hm."},
            {"type": "text", "text": "Yes"},
            {"type": "redacted_thinking", "data": "x"},
        ],
        "stop_reason": "refusal",
        "usage": {"input_tokens": 3, "output_tokens": 9, "cache_read_input_tokens": 2},
    }
    answer = harness.whole("anthropic", json.dumps(message).encode())

    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
        "Yes",
        "content_filter",
    )
    assert answer.usage == Usage(5, 9, cached_tokens=2)


def test_anthropic_stream_error_has_status() -> None:
    failure = {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Busy"},
    }

    with pytest.raises(UpstreamInBand, match="Busy") as raised:
        harness.streamed("anthropic", events(failure))
    assert raised.value.status == 529


def test_google_blocked_prompt_is_content_filter() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 3},
    }
    (choice,) = harness.whole("google", json.dumps(blocked).encode()).choices

    assert (choice.text, choice.finish_reason) == ("", "content_filter")


def test_google_thoughts_count_as_reasoning() -> None:
    parts = [{"text": "Hm.", "thought": True}, {"text": "Yes"}]
    answer = {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 1,
            "thoughtsTokenCount": 7,
        },
    }
    completion = harness.whole("google", json.dumps(answer).encode())

    assert completion.choices[0].text == "Yes"
    assert completion.usage == Usage(3, 8, reasoning_tokens=7)


def test_google_system_instruction_comes_from_target() -> None:
    bridge = Bridge(system="Continue.", template="<{prompt}>")
    sent = harness.body("google", to={"bridge": bridge})

    assert sent["systemInstruction"] == {"parts": [{"text": "Continue."}]}
    assert sent["contents"] == [{"role": "user", "parts": [{"text": "<Hi>"}]}]


@pytest.mark.parametrize("provider", ["anthropic", "bedrock", "cohere", "groq"])
def test_system_message_comes_from_target(provider: str) -> None:
    bridge = Bridge(system="Continue.")

    assert "Continue." in json.dumps(harness.body(provider, to={"bridge": bridge}))
    plain = harness.body(provider)
    assert "system" not in plain
    assert len(plain["messages"]) == 1


# Vertex


@pytest.mark.parametrize(
    "model, region, url",
    [
        (
            "gemini-2.5-flash",
            "us-central1",
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/"
            "us-central1/publishers/google/models/gemini-2.5-flash:generateContent",
        ),
        (
            "anthropic.claude-haiku-4-5",
            "global",
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/"
            "publishers/anthropic/models/claude-haiku-4-5:rawPredict",
        ),
        (
            "meta/llama-4",
            "eu",
            "https://aiplatform.eu.rep.googleapis.com/v1beta1/projects/p/locations/eu/"
            "endpoints/openapi/chat/completions",
        ),
    ],
)
def test_vertex_path_for_each_publisher(model: str, region: str, url: str) -> None:
    options = {"vertex_project_id": "p", "vertex_region": region}
    (call,) = harness.calls(
        "vertex-ai", to={"options": options, "base_url": None}, model=model
    )

    assert call.url == url
