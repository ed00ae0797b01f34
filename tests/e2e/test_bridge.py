"""The bridge with the embedded engine, through its chat endpoint."""

import json
from typing import Any

import pytest

from .server import Server
from .test_engine import counts

pytestmark = pytest.mark.e2e

PROMPTS = [
    "Tell me about the capital of France.",
    "Why is the sky blue?",
    "Say hello to a friend.",
    "What do cats eat?",
]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "seed": 1}
CHAT = {"provider": "local", "via": "chat"}
# A provider without stop sequences.
STOPLESS = CHAT | {"model_info": {"lacks": ["stop"]}}


def config(target: dict[str, Any]) -> dict[str, str]:
    return {"x-portkey-config": json.dumps(target)}


def frames(server: Server, target: dict[str, Any], **body: Any) -> list[Any]:
    """The JSON of a whole stream's events."""
    answer = server.complete(headers=config(target), stream=True, **GREEDY | body)
    assert answer.headers["x-lastword-via"] == "chat"
    lines = [line for line in answer.iter_lines() if line]
    assert lines.pop() == b"data: [DONE]"
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def pieces(server: Server, prompt: str) -> list[str]:
    """The texts that the engine streams for one prompt."""
    events = frames(server, CHAT, prompt=prompt)
    return [choice["text"] for frame in events for choice in frame["choices"]]


def across(pieces: list[str]) -> str:
    """A stop sequence that begins in one piece and ends in the next."""
    pairs = list(zip(pieces[2:], pieces[3:], strict=False))
    first, second = next(p for p in pairs if min(map(len, p)) >= 3)
    return first[-2:] + second[:2]


def cut(text: str, stops: list[str]) -> str:
    return min((text.partition(stop)[0] for stop in stops), key=len)


@pytest.fixture(scope="module")
def pieces_of(engine: Server) -> dict[str, list[str]]:
    return {prompt: pieces(engine, prompt) for prompt in PROMPTS}


def test_streamed_batch_has_eight_choices(
    engine: Server, pieces_of: dict[str, list[str]]
) -> None:
    """Four prompts, two choices each, with stop sequences across chunk boundaries."""
    stops = [across(pieces_of[prompt]) for prompt in PROMPTS]
    events = frames(
        engine,
        STOPLESS,
        prompt=PROMPTS,
        n=2,
        stop=stops,
        stream_options={"include_usage": True},
    )
    texts = dict.fromkeys(range(8), "")
    reasons: dict[int, list[str]] = {i: [] for i in range(8)}
    for choice in (choice for frame in events for choice in frame["choices"]):
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] += filter(None, [choice["finish_reason"]])

    expected = [cut("".join(pieces_of[prompt]), stops) for prompt in PROMPTS]
    assert texts == {i: expected[i // 2] for i in range(8)}
    assert reasons == {i: ["stop"] for i in range(8)}
    assert len({frame["id"] for frame in events}) == 1
    assert [frame["choices"] for frame in events].count([]) == 1
    assert events[-1]["usage"]["completion_tokens"] >= 8


def test_whole_batch_equals_streamed_batch(
    engine: Server, pieces_of: dict[str, list[str]]
) -> None:
    answer = engine.complete(headers=config(CHAT), prompt=PROMPTS, n=2, **GREEDY)
    choices = answer.json()["choices"]

    assert [choice["index"] for choice in choices] == list(range(8))
    assert [choice["text"] for choice in choices] == [
        "".join(pieces_of[prompt]) for prompt in PROMPTS for _ in range(2)
    ]


def test_chat_logprobs_become_completion_logprobs(engine: Server) -> None:
    body = GREEDY | {"prompt": "Où?", "max_tokens": 4, "logprobs": 2}
    (choice,) = engine.complete(headers=config(CHAT), **body).json()["choices"]
    logprobs = choice["logprobs"]

    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"][0] == len("Où?")
    assert {len(value) for value in logprobs.values()} == {len(logprobs["tokens"])}
    assert all(len(top) in (2, 3) for top in logprobs["top_logprobs"])


def test_best_of_keeps_likeliest_chat(engine: Server) -> None:
    hot = {"prompt": PROMPTS[1], "max_tokens": 8, "temperature": 1.5, "seed": 3}
    drawn = engine.complete(headers=config(CHAT), **hot, n=4, logprobs=0).json()
    best = engine.complete(headers=config(CHAT), **hot, best_of=4).json()

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return float(sum(values) / len(values))

    assert "choices" in best, best
    assert best["choices"][0]["text"] == max(drawn["choices"], key=mean)["text"]
    assert "choices" in best, best
    assert best["choices"][0]["logprobs"] is None
    assert counts(best) == counts(drawn)


def test_batch_falls_back_to_chat(engine: Server) -> None:
    """The first target does not support batches; the second is the engine."""
    first = {"provider": "jina", "api_key": "k"}
    route = {"strategy": {"mode": "fallback"}, "targets": [first, CHAT]}
    answer = engine.complete(headers=config(route), prompt=PROMPTS[:2], **GREEDY)

    assert answer.headers["x-portkey-last-used-option-index"] == "config.targets[1]"
    assert len(answer.json()["choices"]) == 2
