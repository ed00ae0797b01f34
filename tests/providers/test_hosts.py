"""What single providers do that no other does."""

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

from . import talk


def events(*documents: Any) -> list[Event]:
    data = [d if isinstance(d, bytes) else json.dumps(d).encode() for d in documents]
    return [Event(block) for block in data]


def texts(pieces: Any) -> str:
    return "".join(choice.text for piece in pieces for choice in piece.choices)


# Workers AI


RUN = {"model": "@cf/meta/llama-3.1-8b-instruct"}


def test_workers_ai_continues_the_prompt_itself() -> None:
    (call,) = talk.calls("workers-ai", prompt="\n\nHi ", **RUN, max_tokens=5)

    assert call.url == "http://upstream/run/@cf/meta/llama-3.1-8b-instruct"
    sent = json.loads(call.body or b"")
    assert (sent["prompt"], sent["raw"], sent["max_tokens"]) == ("\n\nHi ", True, 5)


def test_workers_ai_may_answer_in_the_shape_of_completions() -> None:
    counted = {"prompt_tokens": 2, "completion_tokens": 1}
    choice = {"index": 0, "text": " Yes", "finish_reason": "length"}
    result = {"choices": [choice], "usage": counted}
    whole = json.dumps({"success": True, "result": result}).encode()
    answer = talk.whole("workers-ai", whole, **RUN)
    pieces = talk.streamed("workers-ai", events(result, b"[DONE]"), **RUN)

    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
        " Yes",
        "length",
    )
    assert answer.usage == pieces[-1].usage == Usage(2, 1)
    assert texts(pieces) == " Yes"
    assert pieces[-2].choices[0].finish_reason == "length"


def test_workers_ai_writes_numbers_as_numbers() -> None:
    pieces = talk.streamed(
        "workers-ai", events({"response": "5"}, {"response": 0}, b"[DONE]"), **RUN
    )

    assert texts(pieces) == "50"


def test_workers_ai_tells_a_used_up_budget_by_its_usage() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}
    whole = json.dumps({"success": True, "result": {"response": "x", "usage": usage}})
    answer = talk.whole("workers-ai", whole.encode(), **RUN, max_tokens=5)

    assert answer.choices[0].finish_reason == "length"


def test_workers_ai_lists_its_errors() -> None:
    refused = {"success": False, "errors": [{"code": 7003, "message": "No route"}]}

    with pytest.raises(UpstreamInBand, match="No route"):
        talk.whole("workers-ai", json.dumps(refused).encode(), **RUN)


# Ollama


def test_ollama_is_asked_for_the_prompt_itself_and_with_the_endpoints_defaults() -> (
    None
):
    sent = talk.body("ollama", prompt="Hi ", max_tokens=5, stop="x", logprobs=0)

    assert (sent["prompt"], sent["raw"], sent["logprobs"]) == ("Hi ", True, True)
    assert sent["options"] == {
        "num_predict": 5,
        "stop": ["x"],
        "temperature": 1.0,
        "top_p": 1.0,
    }
    assert talk.body("ollama", temperature=0)["options"]["temperature"] == 0


def test_ollama_lies_at_its_root_wherever_the_host_points() -> None:
    for host in ("http://ollama:11434", "http://ollama:11434/v1"):
        (call,) = talk.calls("ollama", to={"base_url": host})
        assert call.url == "http://ollama:11434/api/generate"


def test_an_empty_prompt_would_only_load_a_model_of_ollamas() -> None:
    with pytest.raises(UnsupportedParameter, match="only load"):
        talk.plan("ollama", prompt="")


def test_an_error_among_ollamas_lines_ends_the_stream() -> None:
    lines = events({"response": "so", "done": False}, {"error": "out of memory"})

    with pytest.raises(UpstreamInBand, match="out of memory"):
        talk.streamed("ollama", lines)


def test_a_model_of_ollamas_that_cannot_fill_in_is_told_about_the_suffix() -> None:
    error = PROVIDERS["ollama"].error(400, b'{"error": "x does not support insert"}')

    assert (error.param, error.code) == ("suffix", "unsupported_parameter")


def test_ollamas_counts_are_estimated_where_they_are_missing() -> None:
    line = {"response": "four", "done": True, "done_reason": "stop"}

    assert talk.whole("ollama", json.dumps(line).encode()).usage == Usage(
        1, 1, estimated=True
    )


# Triton


def test_triton_is_asked_for_what_all_of_its_backends_know() -> None:
    made = talk.plan("triton", stop="END", seed=5, max_tokens=7)
    sent = talk.body("triton", stop="END", seed=5, max_tokens=7)

    assert sent == {
        "text_input": "Hi",
        "exclude_input_in_output": True,
        "max_tokens": 7,
    }
    assert (made.stops, made.dropped) == (("END",), ["seed"])


def test_an_error_in_a_stream_of_tritons_is_one() -> None:
    with pytest.raises(UpstreamInBand, match="CUDA"):
        talk.streamed("triton", events({"text_output": "so"}, {"error": "CUDA"}))


# Azure


def azure(**to: Any) -> Any:
    return talk.calls("azure-openai", to=to, model="dep")[0]


def test_azure_has_a_path_for_each_deployment() -> None:
    call = azure()

    assert call.url == (
        "http://upstream/deployments/dep/completions?api-version=2024-10-21"
    )
    assert call.headers["api-key"] == talk.KEY
    named = azure(options={"azure_deployment_id": "a/b", "azure_api_version": "2025"})
    assert named.url.endswith("/deployments/a%2Fb/completions?api-version=2025")


def test_azures_newer_form_names_the_deployment_in_the_body() -> None:
    options = {"azure_deployment_id": "mine", "azure_api_version": "v1"}
    call = azure(options=options)

    assert call.url == "http://upstream/v1/completions"
    assert json.loads(call.body or b"")["model"] == "mine"


def test_azure_takes_a_token_in_place_of_a_key() -> None:
    call = azure(options={"azure_ad_token": "of-entra"})

    assert call.headers["Authorization"] == "Bearer of-entra"
    assert "api-key" not in call.headers


def test_foundrys_newer_address_knows_no_dated_versions() -> None:
    new = {"base_url": "https://r.services.ai.azure.com/openai/v1"}

    assert talk.calls("azure-ai", to=new)[0].url.endswith("?api-version=v1")
    assert "2024-05-01-preview" in talk.calls("azure-ai")[0].url


def test_foundry_drops_what_a_model_does_not_know_unless_told_otherwise() -> None:
    (call,) = talk.calls("azure-ai")
    told = talk.calls("azure-ai", to={"headers": {"extra-parameters": "error"}})[0]

    assert call.headers["extra-parameters"] == "drop"
    assert told.headers["extra-parameters"] == "error"


# Bedrock


def conversed(**changes: Any) -> bytes:
    message = {"role": "assistant", "content": [{"text": "Yes"}]}
    usage = {"inputTokens": 3, "outputTokens": 1, "cacheReadInputTokens": 2}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}
    return json.dumps(answer | changes).encode()


def test_bedrock_counts_what_it_had_cached() -> None:
    answer = talk.whole("bedrock", conversed())

    assert answer.usage == Usage(5, 1, cached_tokens=2)


def test_an_intervention_of_a_guardrail_is_a_filtered_text() -> None:
    answer = talk.whole("bedrock", conversed(stopReason="guardrail_intervened"))

    assert answer.choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize(
    "name, status",
    [
        ("throttlingException", 429),
        ("internalServerException", 500),
        ("xException", 502),
    ],
)
def test_an_exception_in_a_stream_of_bedrocks_has_its_status(
    name: str, status: int
) -> None:
    failure = Event(b'{"message": "slow down"}', name.encode())

    with pytest.raises(UpstreamError, match="slow down") as raised:
        talk.streamed("bedrock", [failure])
    assert (raised.value.status, raised.value.type) == (status, name)


@pytest.mark.parametrize(
    "model, field",
    [
        ("us.meta.llama3-1-8b-instruct-v1:0", "prompt"),
        ("amazon.titan-text-express-v1", "inputText"),
    ],
)
def test_bedrocks_families_get_the_prompt_itself(model: str, field: str) -> None:
    (call,) = talk.calls("bedrock", to={"via": "native"}, model=model, prompt=" Hi\n")

    assert json.loads(call.body or b"")[field] == " Hi\n"
    assert call.url.endswith("%3A0/invoke" if ":" in model else "/invoke")


def test_bedrocks_family_is_found_in_an_arn() -> None:
    arn = "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0"
    (call,) = talk.calls("bedrock", to={"via": "native"}, model=arn, max_tokens=5)

    assert json.loads(call.body or b"") == {"prompt": "Hi", "max_gen_len": 5}
    assert "/model/arn%3Aaws%3A" in call.url and "%2Fmeta.llama3" in call.url


def test_cohere_on_bedrock_has_to_be_told_that_it_streams() -> None:
    asked = {"to": {"via": "native"}, "model": "cohere.command-light-text-v14"}

    assert talk.body("bedrock", **asked, stream=True)["stream"] is True
    assert "stream" not in talk.body("bedrock", **asked)


def test_stop_sequences_that_a_model_of_bedrocks_refuses_are_the_gateways() -> None:
    made = talk.plan("bedrock", model="openai.gpt-oss-120b-1:0", stop="END")

    assert made.stops == ("END",)


def test_a_model_of_bedrocks_that_only_chats_cannot_be_asked_natively() -> None:
    with pytest.raises(UnsupportedProvider, match="cannot ask 'anthropic.claude-3"):
        talk.plan(
            "bedrock", to={"via": "native"}, model="anthropic.claude-3-haiku-v1:0"
        )


# Anthropic, Google, Cohere


def test_anthropic_thinks_apart_from_its_text() -> None:
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
    answer = talk.whole("anthropic", json.dumps(message).encode())

    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (
        "Yes",
        "content_filter",
    )
    assert answer.usage == Usage(5, 9, cached_tokens=2)


def test_an_error_in_a_stream_of_anthropics_has_its_status() -> None:
    failure = {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Busy"},
    }

    with pytest.raises(UpstreamInBand, match="Busy") as raised:
        talk.streamed("anthropic", events(failure))
    assert raised.value.status == 529


def test_a_prompt_that_google_blocks_is_a_filtered_text() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 3},
    }
    (choice,) = talk.whole("google", json.dumps(blocked).encode()).choices

    assert (choice.text, choice.finish_reason) == ("", "content_filter")


def test_googles_thoughts_are_counted_and_not_shown() -> None:
    parts = [{"text": "Hm.", "thought": True}, {"text": "Yes"}]
    answer = {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 1,
            "thoughtsTokenCount": 7,
        },
    }
    made = talk.whole("google", json.dumps(answer).encode())

    assert made.choices[0].text == "Yes"
    assert made.usage == Usage(3, 8, reasoning_tokens=7)


def test_googles_system_instruction_is_the_targets() -> None:
    bridge = Bridge(system="Continue.", template="<{prompt}>")
    sent = talk.body("google", to={"bridge": bridge})

    assert sent["systemInstruction"] == {"parts": [{"text": "Continue."}]}
    assert sent["contents"] == [{"role": "user", "parts": [{"text": "<Hi>"}]}]


@pytest.mark.parametrize("provider", ["anthropic", "bedrock", "cohere", "groq"])
def test_a_systems_words_come_from_the_target_alone(provider: str) -> None:
    bridge = Bridge(system="Continue.")

    assert "Continue." in json.dumps(talk.body(provider, to={"bridge": bridge}))
    plain = talk.body(provider)
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
def test_vertex_has_a_place_for_each_publisher(
    model: str, region: str, url: str
) -> None:
    options = {"vertex_project_id": "p", "vertex_region": region}
    (call,) = talk.calls(
        "vertex-ai", to={"options": options, "base_url": None}, model=model
    )

    assert call.url == url
