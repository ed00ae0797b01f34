"""Cache keys, and replays that equal the original."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.cache_key import fingerprint, key
from app.core.caching import (
    CacheEntry,
    CachePolicy,
    CacheScope,
    CacheSharing,
    is_cacheable,
    replayable_headers,
)
from app.core.completion import Usage
from app.core.replay import ChunkAssembler, to_chunks
from app.core.request import CompletionRequest
from app.core.routing import Bridge, CompletionMode, Target

Document = dict[str, Any]

# The config


def test_max_age_is_from_config() -> None:
    assert CachePolicy.of({"mode": "simple", "max_age": 60}) == CachePolicy(60.0)


def test_default_max_age_is_a_week() -> None:
    assert CachePolicy.of({"mode": "simple"}) == CachePolicy(604800.0)


def test_zero_max_age_disables_cache() -> None:
    assert CachePolicy.of({"mode": "simple", "max_age": 0}) is None


def test_default_scope_is_credentials() -> None:
    shared = CachePolicy.of({"mode": "simple", "scope": "config"})

    assert CachePolicy().scope == CacheSharing.CREDENTIALS
    assert shared and shared.scope == CacheSharing.CONFIG


# The age


def test_entry_is_fresh_until_max_age() -> None:
    entry = CacheEntry(b"{}", created_at=1000, max_age=60)

    assert entry.is_fresh(1059.9) and not entry.is_fresh(1060)
    assert entry.is_fresh(1009, max_age=10) and not entry.is_fresh(1010, max_age=10)


def test_entry_from_the_future_is_new() -> None:
    assert CacheEntry(b"{}", created_at=1000, max_age=60).age(999) == 0


# The key

SECRET = "sk-a-secret-of-the-caller"
REQUEST = CompletionRequest("m", "Hi", {"temperature": 0.5, "stop": ["a", "b"]})
TARGET = Target(
    "openai",
    api_key=SECRET,
    base_url="https://one.example/v1",
    headers={"OpenAI-Organization": "org-1"},
    options={"region": "eu", "session": "s-1"},
    request=REQUEST,
)


def key_of(
    target: Target = TARGET,
    policy: CachePolicy = CachePolicy(),  # noqa: B008 - a value
    asker: CacheScope = CacheScope(),  # noqa: B008 - a value
    **changes: Any,
) -> str:
    return key(target, policy, asker, **changes)


def target_with(**params: Any) -> Target:
    """The target, with these parameters in its request."""
    body = {"model": "m", "prompt": "Hi", **REQUEST.params, **params}
    model, prompt = body.pop("model"), body.pop("prompt")
    return replace(TARGET, request=CompletionRequest(model, prompt, body))


@pytest.mark.parametrize(
    "params",
    [
        {"model": "n"},
        {"prompt": "Hi "},
        {"prompt": ["Hi", "Hi"]},
        {"prompt": [1, 2]},
        {"prompt": None},
        {"temperature": 0.6},
        {"temperature": 0},
        {"stop": ["b", "a"]},
        {"max_tokens": 16},
        {"n": 2},
        {"best_of": 2},
        {"echo": True},
        {"logprobs": 0},
        {"seed": 1},
        {"user": "u"},
        {"suffix": "s"},
        {"top_k": 1},
        {"guided_json": {"a": True}},
    ],
    ids=str,
)
def test_key_depends_on_params(params: Document) -> None:
    assert key_of(target_with(**params)) != key_of()


def test_key_separates_booleans_from_numbers() -> None:
    assert key_of(target_with(extra=True)) != key_of(target_with(extra=1))
    assert key_of(target_with(top_p=True)) != key_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "other"},
        {"base_url": "https://two.example/v1"},
        {"base_url": None},
        {"api_key": "sk-of-another-caller"},
        {"api_key": None},
        {"headers": {"OpenAI-Organization": "org-2"}},
        {"headers": {"OpenAI-Organization": "org-1", "Authorization": "Bearer x"}},
        {"options": {"region": "us", "session": "s-1"}},
        {"options": {"region": "eu", "session": "s-2"}},
        {"via": CompletionMode.CHAT},
        {"bridge": Bridge(system="Be brief.")},
        {"bridge": Bridge(template="Go on: {prompt}")},
        {"model_info": {"lacks": ["n"]}},
        {"strict": False},
        {"strict_params": True},
    ],
    ids=str,
)
def test_key_depends_on_target(changes: Document) -> None:
    assert key_of(replace(TARGET, **changes)) != key_of()


@pytest.mark.parametrize(
    "changes",
    [
        {"asker": CacheScope(caller="k")},
        {"asker": CacheScope(namespace="n")},
        {"endpoint": "/v1/other"},
    ],
    ids=str,
)
def test_key_depends_on_caller(changes: Document) -> None:
    assert key_of(**changes) != key_of()


@pytest.mark.parametrize(
    "params",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"n": 1, "best_of": 1, "echo": False, "top_p": 1.0, "logit_bias": {}},
        {"frequency_penalty": 0, "presence_penalty": 0.0},
        {"seed": None, "suffix": None, "logprobs": None, "max_tokens": None},
        {"prompt": ["Hi"]},
    ],
    ids=str,
)
def test_key_ignores_default_values(params: Document) -> None:
    assert key_of(target_with(**params)) == key_of()


def test_key_normalizes_numbers_and_lists() -> None:
    assert key_of(target_with(temperature=1.0)) == key_of(target_with(temperature=1))
    assert key_of(target_with(temperature=1)) == key_of(target_with(temperature=None))
    assert key_of(target_with(stop="a")) == key_of(target_with(stop=["a"]))
    assert key_of(target_with(stop=[])) == key_of(target_with(stop=None))
    assert key_of(target_with(n=2, best_of=2)) == key_of(target_with(n=2))
    assert key_of(target_with(a={"b": [1.0]})) == key_of(target_with(a={"b": [1]}))


def test_key_ignores_target_path() -> None:
    moved = replace(TARGET, path="config.targets[1]", weight=5, name="x", alias="a")

    assert key_of(moved) == key_of()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def reverse_keys(value: Any) -> Any:
    """*value* with the keys of its objects in reverse order."""
    if isinstance(value, dict):
        return {name: reverse_keys(value[name]) for name in reversed(value)}
    return list(map(reverse_keys, value)) if isinstance(value, list) else value


@given(JSON)
def test_key_ignores_object_order(value: Any) -> None:
    assert key_of(target_with(extra=value)) == key_of(
        target_with(extra=reverse_keys(value))
    )
    assert fingerprint(value) == fingerprint(reverse_keys(value))


@given(JSON, JSON)
def test_key_separates_different_values(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (fingerprint(one) == fingerprint(other)) == same


def test_config_scope_shares_between_credentials() -> None:
    """If these are the operator's."""
    shared = CachePolicy(scope=CacheSharing.CONFIG)
    target = replace(TARGET, virtual_key="vk-1")
    others = replace(
        target,
        api_key="sk-another-after-a-change",
        options={"region": "eu", "session": "s-2"},
    )

    def keys(policy: CachePolicy, config: str) -> set[str]:
        one, other = CacheScope("k1", config), CacheScope("k2", config)
        secrets = ("session",)
        return {
            key_of(target, policy, one, secrets=secrets),
            key_of(others, policy, other, secrets=secrets),
        }

    assert len(keys(shared, "pc-1")) == 1
    assert len(keys(CachePolicy(), "pc-1")) == 2
    assert len(keys(shared, "")) == 2
    assert keys(shared, "pc-1") != keys(shared, "pc-2")


def test_config_scope_separates_regions() -> None:
    shared, asker = CachePolicy(scope=CacheSharing.CONFIG), CacheScope(config="pc-1")
    here = replace(TARGET, virtual_key="vk-1")
    elsewhere = replace(here, options={**TARGET.options, "region": "us"})

    assert key_of(elsewhere, shared, asker) != key_of(here, shared, asker)


def test_key_reveals_nothing() -> None:
    name = key_of()

    assert len(name) == 64 and set(name) <= set("0123456789abcdef")


def test_request_headers_are_not_replayed() -> None:
    headers = {
        "OpenAI-Model": "m-1",
        "openai-organization": "org-1",
        "x-request-id": "1",
        "x-ratelimit-remaining-requests": "1",
        "set-cookie": "c",
    }

    assert replayable_headers(headers) == {"openai-model": "m-1"}


def test_continuous_usage_is_not_cacheable() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    assert is_cacheable(REQUEST)
    assert not is_cacheable(CompletionRequest("m", "", {"stream_options": options}))


# The two forms

REASONS = st.sampled_from(["stop", "length", "content_filter"])
TEXTS = st.builds(
    lambda text, times: text * times, st.text(max_size=9), st.integers(1, 200)
)


@st.composite
def logprobs(draw: Any, text: str) -> Document | None:
    """Tokens of *text*, in one of the formats of servers."""
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=6))
    bounds = sorted({0, *cuts, len(text)})
    tokens = [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    start = draw(st.integers(0, 1000))
    count = len(tokens)
    top = draw(st.sampled_from([None, [], [None] * count, [{"a": -1.0}] * count]))
    offsets = [start + a for a in bounds[:-1]]
    odd = draw(st.sampled_from([offsets, offsets[::-1], None, [], [0] * count]))
    result = {
        "tokens": tokens,
        "token_logprobs": [-0.5] * count,
        "top_logprobs": top,
        "text_offset": draw(st.sampled_from([offsets, odd])),
    }
    return result if draw(st.booleans()) else None


@st.composite
def documents(draw: Any) -> Document:
    """Whole answers, ours and those of providers with extra fields."""
    texts = draw(st.lists(TEXTS, min_size=1, max_size=3))
    extra = draw(st.sampled_from([{}, {"stop_reason": 7}, {"token_ids": [1, 2]}]))
    choices = [
        {
            "text": text,
            "index": i,
            "logprobs": draw(logprobs(text)),
            "finish_reason": draw(REASONS),
            **extra,
        }
        for i, text in enumerate(texts)
    ]
    added = draw(st.sampled_from([{}, {"system_fingerprint": "fp"}, {"x": {"y": [1]}}]))
    flag = draw(st.sampled_from([{}, {"usage_estimated": True}]))
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    return {**head, "choices": choices, "usage": usage, **flag, **added}


def chunks_of(document: Document, *, include_usage: bool = True) -> list[Document]:
    body = json.dumps(document).encode()
    return [json.loads(f) for f in to_chunks(body, include_usage=include_usage)]


def assemble(chunks: Iterable[bytes], usage: Usage | None = None) -> bytes | None:
    assembler = ChunkAssembler()
    for chunk in chunks:
        assembler.feed(chunk)
    return assembler.whole(usage)


def assembled_document(
    stream: Sequence[Document], usage: Usage | None = None
) -> Document | None:
    body = assemble((json.dumps(frame).encode() for frame in stream), usage)
    return None if body is None else dict(json.loads(body))


@given(documents())
def test_answer_survives_chunking(document: Document) -> None:
    assert assembled_document(chunks_of(document)) == document


@given(documents(), st.booleans())
def test_chunks_form_a_valid_stream(document: Document, include_usage: bool) -> None:
    stream = chunks_of(document, include_usage=include_usage)
    text_frames = stream[:-1] if include_usage else stream

    for frame in stream:
        head = [frame[k] for k in ("id", "object", "created", "model")]
        assert head == ["cmpl-1", "text_completion", 1, "m"]
        assert ("usage" in frame) == include_usage
    assert all(len(frame["choices"]) == 1 for frame in text_frames)
    assert all(len(f["choices"][0]["text"]) <= 500 for f in text_frames)
    assert all(frame.get("usage") is None for frame in text_frames)
    for choice in document["choices"]:
        pieces = [f["choices"][0] for f in text_frames]
        own = [piece for piece in pieces if piece["index"] == choice["index"]]
        reasons = [piece["finish_reason"] for piece in own]
        assert reasons == [None] * (len(own) - 1) + [choice["finish_reason"]]
    if include_usage:
        last = stream[-1]
        assert last["choices"] == [] and last["usage"] == document["usage"]


@st.composite
def streams(draw: Any) -> tuple[list[Document], dict[int, str]]:
    """Frames of several choices, in any order, and the resulting texts."""
    texts = draw(st.lists(TEXTS, min_size=1, max_size=3))
    queues = []
    for i, text in enumerate(texts):
        cuts = draw(st.lists(st.integers(0, len(text)), max_size=4))
        bounds = [0, *sorted(cuts), len(text)]
        pieces = [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
        ends = [None] * (len(pieces) - 1) + ["stop"]
        queues.append([(i, p, e) for p, e in zip(pieces, ends, strict=True)])
    order = draw(st.permutations([i for i, q in enumerate(queues) for _ in q]))
    stream = [frame(*queues[i].pop(0)) for i in order]
    return stream, dict(enumerate(texts))


def frame(index: int, text: str, reason: str | None = None, **more: Any) -> Document:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], **more}


def texts_of(stream: Sequence[Document]) -> dict[int, str]:
    result: dict[int, str] = {}
    for each in stream:
        for choice in each["choices"]:
            result[choice["index"]] = result.get(choice["index"], "") + choice["text"]
    return result


@given(streams())
def test_assembled_stream_replays_the_same(
    stream_and_texts: tuple[list[Document], dict[int, str]],
) -> None:
    stream, texts = stream_and_texts
    document = assembled_document(stream)

    assert document
    assert {c["index"]: c["text"] for c in document["choices"]} == texts
    assert texts_of(chunks_of(document)) == texts


def test_logprobs_go_with_their_text() -> None:
    text = "a" * 499 + "bc" + "d" * 600
    tokens = ["a" * 499, "bc", "d" * 600]
    scores = {
        "tokens": tokens,
        "token_logprobs": [None, -1, -2],
        "top_logprobs": None,
        "text_offset": [7, 506, 508],
    }
    choice = {"text": text, "index": 0, "logprobs": scores, "finish_reason": "stop"}
    stream = chunks_of({"id": "1", "choices": [choice]})
    result = [frame["choices"][0]["logprobs"] for frame in stream]

    assert [each and each["tokens"] for each in result] == [
        tokens[:2],
        tokens[2:],
        None,
    ]
    assert result[1] == {
        "tokens": tokens[2:],
        "token_logprobs": [-2],
        "top_logprobs": None,
        "text_offset": [508],
    }


def test_logprobs_without_offsets_come_first() -> None:
    scores = {"tokens": ["a"] * 600, "token_logprobs": [-1] * 600}
    choice = {"text": "a" * 600, "index": 0, "logprobs": scores}
    stream = chunks_of({"choices": [{**choice, "finish_reason": "stop"}]})

    assert [f["choices"][0]["logprobs"] for f in stream] == [scores, None]


def test_extra_fields_come_once() -> None:
    added = {"system_fingerprint": "fp", "timings": {"ms": 1}}
    choice = {"text": "a" * 600, "index": 0, "finish_reason": "stop", "stop_reason": 2}
    stream = chunks_of({"id": "1", "choices": [choice], **added})

    assert [frame.keys() & added.keys() for frame in stream] == [added.keys(), set()]
    assert ["stop_reason" in f["choices"][0] for f in stream] == [False, True]


def test_missing_usage_has_no_chunk() -> None:
    stream = chunks_of({"id": "1", "choices": [frame(0, "a", "stop")["choices"][0]]})

    assert [len(frame["choices"]) for frame in stream] == [1]


def test_assembler_adds_missing_usage() -> None:
    counted = assembled_document([frame(0, "a", "stop")], Usage(1, 2))
    estimated = assembled_document([frame(0, "a", "stop")], Usage(1, 2, estimated=True))

    assert counted and counted["usage"]["total_tokens"] == 3
    assert "usage_estimated" not in counted
    assert estimated and estimated["usage_estimated"] is True


def test_assembler_keeps_last_usage() -> None:
    stream = [
        frame(0, "a", usage={"total_tokens": 1}),
        frame(0, "b", "stop", usage={"total_tokens": 2}),
        {"choices": [], "usage": None},
    ]
    document = assembled_document(stream, Usage(9, 9))

    assert document and document["usage"] == {"total_tokens": 2}


def test_chunks_contain_raw_unicode() -> None:
    body = json.dumps({"choices": [{"text": "é–🎉", "index": 0}]}).encode()

    assert "é–🎉".encode() in next(iter(to_chunks(body, include_usage=False)))


def test_lone_surrogate_is_replaced() -> None:
    body = rb'{"choices": [{"text": "a\ud800b", "index": 0, "finish_reason": "stop"}]}'
    (only,) = to_chunks(body, include_usage=False)

    assert json.loads(only)["choices"][0]["text"] == "a?b"


# Answers that are not cached


def other(change: Callable[[Document], Any]) -> list[Document]:
    stream = [frame(0, "a"), frame(0, "b", "stop")]
    change(stream[0])
    return stream


@pytest.mark.parametrize(
    "stream",
    [
        [],
        [frame(0, "a")],
        [frame(0, "a", "stop"), frame(1, "b")],
        [frame(1, "a", "stop")],
        [frame(0, "a", "stop"), {"error": {"message": "too bad"}}],
        [{"error": {"message": "too bad"}, "choices": []}, frame(0, "a", "stop")],
        [{"id": "1"}],
        [[]],
        other(lambda frame: frame.update(choices=None)),
        other(lambda frame: frame.update(choices=["a"])),
        other(lambda frame: frame["choices"][0].update(text=None)),
        other(lambda frame: frame["choices"][0].update(index=[])),
        other(lambda frame: frame["choices"][0].update(logprobs=["a"])),
    ],
    ids=str,
)
def test_incomplete_stream_is_not_assembled(stream: list[Document]) -> None:
    assert assembled_document(stream, Usage(1, 1)) is None


@pytest.mark.parametrize(
    "data",
    [b"{", b"\xff", b'{"choices": [], "x": NaN}', b"[" * 100_000],
    ids=["cut", "no text", "no number", "deep"],
)
def test_malformed_chunk_is_not_assembled(data: bytes) -> None:
    good = json.dumps(frame(0, "a", "stop")).encode()

    assert assemble([good]) is not None
    assert assemble([data, good]) is None


def test_oversized_stream_is_not_assembled() -> None:
    data = json.dumps(frame(0, "a" * 100, "stop")).encode()
    small, large = ChunkAssembler(max_size=len(data)), ChunkAssembler(
        max_size=len(data)
    )
    small.feed(data)
    large.feed(data)
    large.feed(data)

    assert small.whole() is not None
    assert large.whole() is None
