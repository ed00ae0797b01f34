"""Which answers are the same, and that a repetition says what the original said."""

import json
from collections.abc import Callable, Sequence
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
    is_repeatable,
    repeated,
)
from app.core.completion import Usage
from app.core.replay import ChunkAssembler, to_chunks, whole
from app.core.request import CompletionRequest
from app.core.routing import Bridge, CompletionMode, Target

Document = dict[str, Any]

# The config


def test_a_cache_lasts_as_long_as_its_config_says() -> None:
    assert CachePolicy.of({"mode": "simple", "max_age": 60}) == CachePolicy(60.0)


def test_a_cache_lasts_a_week_where_nothing_is_said() -> None:
    assert CachePolicy.of({"mode": "simple"}) == CachePolicy(604800.0)


def test_a_cache_of_no_age_is_none() -> None:
    assert CachePolicy.of({"mode": "simple", "max_age": 0}) is None


def test_a_cache_is_for_the_same_credentials_unless_its_config_says_otherwise() -> None:
    shared = CachePolicy.of({"mode": "simple", "scope": "config"})

    assert CachePolicy().scope == CacheSharing.CREDENTIALS
    assert shared and shared.scope == CacheSharing.CONFIG


# The age


def test_an_entry_is_fresh_until_it_is_as_old_as_it_may_be() -> None:
    entry = CacheEntry(b"{}", created_at=1000, max_age=60)

    assert entry.is_fresh(1059.9) and not entry.is_fresh(1060)
    assert entry.is_fresh(1009, max_age=10) and not entry.is_fresh(1010, max_age=10)


def test_an_entry_from_a_clock_that_is_ahead_is_new() -> None:
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


def named(
    target: Target = TARGET,
    policy: CachePolicy = CachePolicy(),  # noqa: B008 - a value
    asker: CacheScope = CacheScope(),  # noqa: B008 - a value
    **changes: Any,
) -> str:
    return key(target, policy, asker, **changes)


def asked(**params: Any) -> Target:
    """The target, asked the same but for these."""
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
def test_another_question_is_another_answer(params: Document) -> None:
    assert named(asked(**params)) != named()


def test_a_flag_is_not_a_number() -> None:
    assert named(asked(extra=True)) != named(asked(extra=1))
    assert named(asked(top_p=True)) != named()


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
def test_another_place_is_another_answer(changes: Document) -> None:
    assert named(replace(TARGET, **changes)) != named()


@pytest.mark.parametrize(
    "changes",
    [
        {"asker": CacheScope(caller="k")},
        {"asker": CacheScope(namespace="n")},
        {"endpoint": "/v1/other"},
    ],
    ids=str,
)
def test_another_caller_gets_another_answer(changes: Document) -> None:
    assert named(**changes) != named()


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
def test_the_same_question_in_other_words_is_the_same_answer(params: Document) -> None:
    assert named(asked(**params)) == named()


def test_numbers_and_lists_have_one_spelling() -> None:
    assert named(asked(temperature=1.0)) == named(asked(temperature=1))
    assert named(asked(temperature=1)) == named(asked(temperature=None))
    assert named(asked(stop="a")) == named(asked(stop=["a"]))
    assert named(asked(stop=[])) == named(asked(stop=None))
    assert named(asked(n=2, best_of=2)) == named(asked(n=2))
    assert named(asked(a={"b": [1.0]})) == named(asked(a={"b": [1]}))


def test_it_does_not_matter_where_in_a_config_a_target_is() -> None:
    moved = replace(TARGET, path="config.targets[1]", weight=5, name="x", alias="a")

    assert named(moved) == named()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    """*value* with the keys of its objects the other way round."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return list(map(turned, value)) if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert named(asked(extra=value)) == named(asked(extra=turned(value)))
    assert fingerprint(value) == fingerprint(turned(value))


@given(JSON, JSON)
def test_different_values_have_different_keys(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (fingerprint(one) == fingerprint(other)) == same


def test_a_config_may_share_its_answers_between_credentials() -> None:
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
            named(target, policy, one, secrets=secrets),
            named(others, policy, other, secrets=secrets),
        }

    assert len(keys(shared, "pc-1")) == 1
    assert len(keys(CachePolicy(), "pc-1")) == 2
    assert len(keys(shared, "")) == 2
    assert keys(shared, "pc-1") != keys(shared, "pc-2")


def test_a_shared_config_still_asks_in_one_region_only() -> None:
    shared, asker = CachePolicy(scope=CacheSharing.CONFIG), CacheScope(config="pc-1")
    here = replace(TARGET, virtual_key="vk-1")
    elsewhere = replace(here, options={**TARGET.options, "region": "us"})

    assert named(elsewhere, shared, asker) != named(here, shared, asker)


def test_a_key_says_nothing() -> None:
    name = named()

    assert len(name) == 64 and set(name) <= set("0123456789abcdef")


def test_headers_of_one_request_are_not_told_of_another() -> None:
    headers = {
        "OpenAI-Model": "m-1",
        "openai-organization": "org-1",
        "x-request-id": "1",
        "x-ratelimit-remaining-requests": "1",
        "set-cookie": "c",
    }

    assert repeated(headers) == {"openai-model": "m-1"}


def test_usage_on_every_frame_cannot_be_repeated() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    assert is_repeatable(REQUEST)
    assert not is_repeatable(CompletionRequest("m", "", {"stream_options": options}))


# The two forms

REASONS = st.sampled_from(["stop", "length", "content_filter"])
TEXTS = st.builds(
    lambda text, times: text * times, st.text(max_size=9), st.integers(1, 200)
)


@st.composite
def logprobs(draw: Any, text: str) -> Document | None:
    """Tokens of *text*, in one of the ways in which servers send them."""
    places = draw(st.lists(st.integers(0, len(text)), max_size=6))
    bounds = sorted({0, *places, len(text)})
    tokens = [text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    start = draw(st.integers(0, 1000))
    count = len(tokens)
    top = draw(st.sampled_from([None, [], [None] * count, [{"a": -1.0}] * count]))
    offsets = [start + a for a in bounds[:-1]]
    odd = draw(st.sampled_from([offsets, offsets[::-1], None, [], [0] * count]))
    found = {
        "tokens": tokens,
        "token_logprobs": [-0.5] * count,
        "top_logprobs": top,
        "text_offset": draw(st.sampled_from([offsets, odd])),
    }
    return found if draw(st.booleans()) else None


@st.composite
def documents(draw: Any) -> Document:
    """Whole answers, ours and those of providers that add to them."""
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


def streamed(document: Document, *, include_usage: bool = True) -> list[Document]:
    body = json.dumps(document).encode()
    return [json.loads(f) for f in to_chunks(body, include_usage=include_usage)]


def joined(stream: Sequence[Document], usage: Usage | None = None) -> Document | None:
    body = whole((json.dumps(frame).encode() for frame in stream), usage)
    return None if body is None else dict(json.loads(body))


@given(documents())
def test_a_whole_answer_comes_back_from_its_frames(document: Document) -> None:
    assert joined(streamed(document)) == document


@given(documents(), st.booleans())
def test_the_frames_are_those_of_a_valid_stream(
    document: Document, include_usage: bool
) -> None:
    stream = streamed(document, include_usage=include_usage)
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
    """Frames of several choices, in any order, and the texts that they make up."""
    texts = draw(st.lists(TEXTS, min_size=1, max_size=3))
    queues = []
    for i, text in enumerate(texts):
        places = draw(st.lists(st.integers(0, len(text)), max_size=4))
        bounds = [0, *sorted(places), len(text)]
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
    found: dict[int, str] = {}
    for each in stream:
        for choice in each["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


@given(streams())
def test_a_stream_that_was_kept_says_the_same_again(
    made: tuple[list[Document], dict[int, str]],
) -> None:
    stream, texts = made
    document = joined(stream)

    assert document
    assert {c["index"]: c["text"] for c in document["choices"]} == texts
    assert texts_of(streamed(document)) == texts


def test_tokens_are_in_the_frame_of_their_text() -> None:
    text = "a" * 499 + "bc" + "d" * 600
    tokens = ["a" * 499, "bc", "d" * 600]
    scores = {
        "tokens": tokens,
        "token_logprobs": [None, -1, -2],
        "top_logprobs": None,
        "text_offset": [7, 506, 508],
    }
    choice = {"text": text, "index": 0, "logprobs": scores, "finish_reason": "stop"}
    stream = streamed({"id": "1", "choices": [choice]})
    found = [frame["choices"][0]["logprobs"] for frame in stream]

    assert [each and each["tokens"] for each in found] == [tokens[:2], tokens[2:], None]
    assert found[1] == {
        "tokens": tokens[2:],
        "token_logprobs": [-2],
        "top_logprobs": None,
        "text_offset": [508],
    }


def test_tokens_of_unknown_place_are_in_the_first_frame() -> None:
    scores = {"tokens": ["a"] * 600, "token_logprobs": [-1] * 600}
    choice = {"text": "a" * 600, "index": 0, "logprobs": scores}
    stream = streamed({"choices": [{**choice, "finish_reason": "stop"}]})

    assert [f["choices"][0]["logprobs"] for f in stream] == [scores, None]


def test_what_a_provider_adds_is_said_once() -> None:
    added = {"system_fingerprint": "fp", "timings": {"ms": 1}}
    choice = {"text": "a" * 600, "index": 0, "finish_reason": "stop", "stop_reason": 2}
    stream = streamed({"id": "1", "choices": [choice], **added})

    assert [frame.keys() & added.keys() for frame in stream] == [added.keys(), set()]
    assert ["stop_reason" in f["choices"][0] for f in stream] == [False, True]


def test_an_answer_that_counts_nothing_has_no_frame_for_it() -> None:
    stream = streamed({"id": "1", "choices": [frame(0, "a", "stop")["choices"][0]]})

    assert [len(frame["choices"]) for frame in stream] == [1]


def test_a_stream_that_says_nothing_of_usage_gets_what_was_counted() -> None:
    counted = joined([frame(0, "a", "stop")], Usage(1, 2))
    estimated = joined([frame(0, "a", "stop")], Usage(1, 2, estimated=True))

    assert counted and counted["usage"]["total_tokens"] == 3
    assert "usage_estimated" not in counted
    assert estimated and estimated["usage_estimated"] is True


def test_the_last_count_of_a_stream_is_the_one_that_is_kept() -> None:
    stream = [
        frame(0, "a", usage={"total_tokens": 1}),
        frame(0, "b", "stop", usage={"total_tokens": 2}),
        {"choices": [], "usage": None},
    ]
    document = joined(stream, Usage(9, 9))

    assert document and document["usage"] == {"total_tokens": 2}


def test_text_is_written_as_it_is() -> None:
    body = json.dumps({"choices": [{"text": "é–🎉", "index": 0}]}).encode()

    assert "é–🎉".encode() in next(iter(to_chunks(body, include_usage=False)))


def test_half_a_character_is_replaced() -> None:
    body = rb'{"choices": [{"text": "a\ud800b", "index": 0, "finish_reason": "stop"}]}'
    (only,) = to_chunks(body, include_usage=False)

    assert json.loads(only)["choices"][0]["text"] == "a?b"


# What is no answer


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
def test_what_is_no_complete_success_is_not_kept(stream: list[Document]) -> None:
    assert joined(stream, Usage(1, 1)) is None


@pytest.mark.parametrize(
    "data",
    [b"{", b"\xff", b'{"choices": [], "x": NaN}', b"[" * 100_000],
    ids=["cut", "no text", "no number", "deep"],
)
def test_what_cannot_be_read_is_not_kept(data: bytes) -> None:
    good = json.dumps(frame(0, "a", "stop")).encode()

    assert whole([good]) is not None
    assert whole([data, good]) is None


def test_a_stream_that_is_too_long_is_not_kept_in_memory() -> None:
    data = json.dumps(frame(0, "a" * 100, "stop")).encode()
    small, large = ChunkAssembler(most=len(data)), ChunkAssembler(most=len(data))
    small.feed(data)
    large.feed(data)
    large.feed(data)

    assert small.whole() is not None
    assert large.whole() is None
