"""Azure's content filters: their frames name no stream, their results travel on.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-streaming
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Caller, events
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

SAFE = {"hate": {"filtered": False, "severity": "safe"}}
COPIED = {"protected_material_text": {"detected": True, "filtered": False}}
OFFSETS = {"check_offset": 44, "start_offset": 44, "end_offset": 198}

Shape = Callable[..., dict[str, Any]]
SHAPES: dict[str, tuple[Shape, Shape]] = {
    "native": (frame, completion),
    "chat": (delta, reply),
}
MODES = pytest.mark.parametrize("via", SHAPES)


@pytest.fixture
def azure(call: Callable[..., Caller]) -> Callable[..., Caller]:
    def make(upstream: Upstream, via: str, **target: Any) -> Caller:
        caller = call(upstream)
        config = {"provider": "azure-openai", "api_key": "k", "via": via}
        config["custom_host"] = upstream.url
        caller.headers = {"x-portkey-config": json.dumps(config | target)}
        return caller

    return make


def prompt_frame(index: int = 0, **others: Any) -> bytes:
    """What opens a stream: the results of a prompt, under an empty id."""
    results = [{"prompt_index": index, "content_filter_results": SAFE}]
    empty = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    return data(empty | {"prompt_filter_results": results} | others)


def annotation(reason: str | None = None, results: Any = None) -> bytes:
    """A frame of the asynchronous filter: results without text, under an empty id."""
    choice = {
        "index": 0,
        "finish_reason": reason,
        "content_filter_results": results or SAFE,
        "content_filter_offsets": OFFSETS,
    }
    empty = {"id": "", "object": "", "created": 0, "model": ""}
    return data(empty | {"choices": [choice], "usage": None})


def with_results(document: dict[str, Any], results: Any) -> dict[str, Any]:
    document["choices"][0]["content_filter_results"] = results
    return document


def heads(frames: list[Any]) -> set[tuple[Any, ...]]:
    return {(f["id"], f["object"], f["created"], f["model"]) for f in frames}


def text_of(frames: list[Any]) -> str:
    return "".join(c["text"] for f in frames for c in f["choices"])


def choice_results(frames: list[Any]) -> dict[str, Any]:
    """The results of all frames, a later one over an earlier one."""
    found: dict[str, Any] = {}
    for each in frames:
        for choice in each["choices"]:
            found |= choice.get("content_filter_results") or {}
    return found


@MODES
@pytest.mark.parametrize("usage", [False, True], ids=["plain", "with usage"])
@pytest.mark.parametrize("provider", ["azure-openai", "azure-ai", "openai"])
def test_prompt_results_name_no_stream(
    azure, script, provider: str, via: str, usage: bool
) -> None:
    shape, _ = SHAPES[via]
    steps = [data(shape("Hel")), data(shape("lo")), data(shape("", "stop"))]
    upstream = script(stream(prompt_frame(), *steps, DONE))
    options = {"stream_options": {"include_usage": True}} if usage else {}
    caller = azure(upstream, via, provider=provider)
    response = caller.complete(stream=True, **options)
    frames = events(response)[:-1]
    named = shape()
    upstream_id = named["id"].replace("chatcmpl", "cmpl")

    assert b"[DONE]" in response.get_data()
    assert heads(frames) == {
        (upstream_id, "text_completion", named["created"], named["model"])
    }
    assert text_of(frames) == "Hello"
    assert frames[0]["prompt_filter_results"] == [
        {"prompt_index": 0, "content_filter_results": SAFE}
    ]
    # Clients index the first choice of each frame but that of the usage.
    assert all(f["choices"] for f in (frames[:-1] if usage else frames))
    assert sum("prompt_filter_results" in f for f in frames) == 1


@MODES
@pytest.mark.parametrize("name", ["prompt_filter_results", "prompt_annotations"])
def test_results_of_several_frames_are_joined(azure, script, via, name: str) -> None:
    shape, _ = SHAPES[via]
    opening = [
        data({"id": "", "choices": [], name: [{"prompt_index": i}]}) for i in (1, 0)
    ]
    upstream = script(
        stream(*opening, data(shape("Hi")), data(shape("", "stop")), DONE)
    )
    frames = events(azure(upstream, via).complete(stream=True))[:-1]

    assert frames[0][name] == [{"prompt_index": 1}, {"prompt_index": 0}]


@MODES
def test_results_of_text_travel_on(azure, script, via: str) -> None:
    """A chat's are together in the last chunk; what was found once stays found."""
    shape, _ = SHAPES[via]
    steps = [
        data(with_results(shape("Hel"), {})),
        data(with_results(shape("lo"), COPIED)),
        data(with_results(shape("!"), SAFE)),
        data(with_results(shape("", "stop"), {})),
    ]
    upstream = script(stream(prompt_frame(), *steps, DONE))
    frames = events(azure(upstream, via).complete(stream=True))[:-1]

    assert choice_results(frames) == COPIED | SAFE
    assert text_of(frames) == "Hello!"


@MODES
def test_asynchronous_results_travel_on(azure, script, via: str) -> None:
    shape, _ = SHAPES[via]
    steps = [
        data(shape("Hel")),
        annotation(results=COPIED),
        data(shape("lo")),
        annotation(),
        data(shape("", "stop")),
    ]
    upstream = script(stream(prompt_frame(), *steps, DONE))
    frames = events(azure(upstream, via).complete(stream=True))[:-1]
    offsets = [c.get("content_filter_offsets") for f in frames for c in f["choices"]]

    assert text_of(frames) == "Hello"
    assert len(heads(frames)) == 1 and frames[0]["id"] == "cmpl-upstream"
    assert choice_results(frames) == COPIED | SAFE
    assert OFFSETS in offsets


@MODES
def test_results_behind_reason_travel_on(azure, script, via: str) -> None:
    shape, _ = SHAPES[via]
    steps = [data(shape("Hello")), data(shape("", "stop")), annotation(None, COPIED)]
    upstream = script(stream(prompt_frame(), *steps, DONE))
    response = azure(upstream, via).complete(stream=True)
    frames = events(response)[:-1]

    assert b"[DONE]" in response.get_data()
    assert choice_results(frames) == COPIED
    assert reasons(frames) == ["stop"]


@MODES
@pytest.mark.parametrize("earlier", [(), ("stop",)], ids=["alone", "behind stop"])
def test_late_filter_ends_the_choice(azure, script, via: str, earlier) -> None:
    shape, _ = SHAPES[via]
    filtered = {"violence": {"filtered": True, "severity": "high"}}
    ends = [data(shape("", reason)) for reason in earlier]
    late = annotation("content_filter", filtered)
    upstream = script(stream(prompt_frame(), data(shape("Hey")), *ends, late, DONE))
    response = azure(upstream, via).complete(stream=True)
    frames = events(response)[:-1]

    assert text_of(frames) == "Hey"
    assert reasons(frames) == ["content_filter"]
    assert choice_results(frames) == filtered
    assert len(heads(frames)) == 1


def reasons(frames: list[Any]) -> list[str]:
    given = (c["finish_reason"] for f in frames for c in f["choices"])
    return [reason for reason in given if reason]


# Whole answers


def filtered_whole(shape: Shape, index: int = 0) -> dict[str, Any]:
    results = [{"prompt_index": index, "content_filter_results": SAFE}]
    return with_results(shape("Hi"), COPIED) | {"prompt_filter_results": results}


@MODES
@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echo"])
def test_results_of_whole_answers_travel_on(azure, script, via, echo: bool) -> None:
    _, shape = SHAPES[via]
    upstream = script(whole(filtered_whole(shape)))
    body = azure(upstream, via).complete(echo=echo).json

    assert body["prompt_filter_results"][0]["content_filter_results"] == SAFE
    assert body["choices"][0]["content_filter_results"] == COPIED


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("provider", ["azure-openai", "azure-ai"])
def test_results_of_several_prompts_have_their_numbers(
    azure, script, provider: str, streamed: bool
) -> None:
    """Each prompt is a call of its own, in which its number is 0."""

    def answer(request: ReceivedRequest) -> Answer:
        if not streamed:
            return whole(filtered_whole(reply))
        steps = [data(with_results(delta("Hi"), COPIED)), data(delta("", "stop"))]
        return stream(prompt_frame(), *steps, DONE)

    caller = azure(script(answer), "chat", provider=provider)
    n = 2 if provider == "azure-ai" else 1
    response = caller.complete(prompt=["a", "b"], n=n, stream=streamed)
    bodies = events(response)[:-1] if streamed else [response.json]
    results = [r for b in bodies for r in b.get("prompt_filter_results", ())]

    assert sorted(each["prompt_index"] for each in results) == [0, 1]
    if provider == "azure-ai":
        flagged = [
            choice["index"]
            for body in bodies
            for choice in body["choices"]
            if choice.get("content_filter_results") == COPIED
        ]
        assert sorted(flagged) == [0, 1, 2, 3]


@MODES
def test_cached_results_are_given_again(azure, script, via: str) -> None:
    shape, _ = SHAPES[via]
    steps = [data(with_results(shape("Hi"), COPIED)), data(shape("", "stop"))]
    upstream = script(stream(prompt_frame(), *steps, DONE))
    caller = azure(upstream, via, cache={"mode": "simple"})
    first = caller.complete(stream=True)
    first.get_data()
    first.close()
    again = caller.complete()

    assert len(upstream.requests) == 1
    assert again.json["prompt_filter_results"][0]["content_filter_results"] == SAFE
    assert again.json["choices"][0]["content_filter_results"] == COPIED
