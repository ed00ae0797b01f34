"""Where streams end: what may stand around the end, for every provider's reader."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.completion import Completion
from app.core.sse import DONE, Event
from app.errors import UpstreamCut, UpstreamError, UpstreamUnreachable
from app.providers.parsing.stream_ending import ChoiceEndings, choice_indices
from tests.upstream import delta, frame

from . import harness
from .recordings import MODE_CASES, TEXT, ModeCase

EVERY_MODE = pytest.mark.parametrize("case", MODE_CASES, ids=str)
LAST_WORD = " course."


def read(case: ModeCase, events: Sequence[Event], **params: Any) -> list[Completion]:
    """The chunks that a caller gets for *events*."""
    target = {"via": case.mode}
    model = case.model
    name = case.provider.name
    return list(harness.streamed(name, events, to=target, model=model, **params))


def recorded(case: ModeCase) -> list[Event]:
    decode, body = case.stream
    return list(decode([body], 2**20))


def check_whole(chunks: Sequence[Completion], text: str = TEXT) -> str:
    """The only finish reason, if it stands behind all of *text*."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == text
    (reason,) = [choice.finish_reason for choice in choices if choice.finish_reason]
    assert choices[-1].finish_reason == reason
    return reason


# The sentinel, and events without data


@EVERY_MODE
@pytest.mark.parametrize("sentinel", [b"[DONE]", b"[DONE] ", b" [DONE]"], ids=repr)
def test_terminator_ends_any_stream(case: ModeCase, sentinel: bytes) -> None:
    events = [event for event in recorded(case) if event.data != DONE]

    check_whole(read(case, [*events, Event(sentinel)]))


@EVERY_MODE
def test_terminator_may_come_twice(case: ModeCase) -> None:
    check_whole(read(case, [*recorded(case), Event(DONE), Event(DONE)]))


@EVERY_MODE
@pytest.mark.parametrize("data", [b"", b" ", b"null", b"{}"], ids=repr)
def test_empty_data_means_nothing(case: ModeCase, data: bytes) -> None:
    events = [Event(data)]
    for event in recorded(case):
        events += [event, Event(data)]

    check_whole(read(case, events))


# Text behind a finish reason


def edited(event: Event, edit: Callable[[str], str]) -> Event:
    """*event* with other JSON, which may be wrapped as Bedrock does it."""
    document = json.loads(event.data)
    if "bytes" not in document:
        return Event(edit(event.data.decode()).encode(), event.name)
    inner = edit(base64.b64decode(document["bytes"]).decode())
    wrapped = {"bytes": base64.b64encode(inner.encode()).decode()}
    return Event(json.dumps(wrapped).encode(), event.name)


def without_text(event: Event) -> Event:
    return edited(event, lambda text: text.replace(LAST_WORD, ""))


def ending_of(case: ModeCase) -> Event | None:
    """The event with the finish reason, without text; None if there is no reason."""
    events = recorded(case)
    for event in events:
        if event.data == DONE:
            return None
        try:
            read(case, [*events[: events.index(event) + 1]])
        except UpstreamError:
            continue
        return without_text(event)
    return None


# Triton's and Workers AI's own endpoints have no finish reasons.
WITH_REASONS = [case for case in MODE_CASES if case.endpoint and ending_of(case)]
WITH_REASONS = [case for case in WITH_REASONS if case.provider.name != "triton"]
EVERY_REASON = pytest.mark.parametrize("case", WITH_REASONS, ids=str)


def test_most_modes_have_reasons() -> None:
    assert len(MODE_CASES) - len(WITH_REASONS) <= 3


@EVERY_REASON
def test_reason_may_come_first(case: ModeCase) -> None:
    first, *others = recorded(case)
    ending = ending_of(case)
    assert ending

    assert check_whole(read(case, [first, ending, *others])) == "stop"


@EVERY_REASON
def test_reason_may_come_with_every_event(case: ModeCase) -> None:
    ending = ending_of(case)
    assert ending
    events = [e for event in recorded(case) for e in (ending, event)]

    assert check_whole(read(case, events)) == "stop"


@EVERY_REASON
def test_text_may_follow_the_reason(case: ModeCase) -> None:
    """All text of the recording comes again behind its end."""
    events = [event for event in recorded(case) if event.data != DONE]

    check_whole(read(case, [*events, *events]), TEXT + TEXT)


def by_name(name: str) -> ModeCase:
    return next(case for case in MODE_CASES if str(case) == name)


NATIVE, CHAT = by_name("openai-native"), by_name("openai-chat")
BOTH = pytest.mark.parametrize(
    "case, piece", [(NATIVE, frame), (CHAT, delta)], ids=["native", "chat"]
)


def as_events(*documents: Any, done: bool = True) -> list[Event]:
    events = [Event(json.dumps(document).encode()) for document in documents]
    return [*events, Event(DONE)] if done else events


@BOTH
def test_reason_on_every_frame_loses_no_text(case: ModeCase, piece: Any) -> None:
    pieces = [piece(text, "stop") for text in "abcd"]

    assert check_whole(read(case, as_events(*pieces)), "abcd") == "stop"
    assert check_whole(read(case, as_events(*pieces, done=False)), "abcd") == "stop"


@BOTH
@pytest.mark.parametrize(
    "reasons, expected",
    [
        (["stop", "length"], "length"),
        (["length", "stop"], "length"),
        (["stop", "content_filter"], "content_filter"),
        (["content_filter", "stop"], "content_filter"),
        (["length", "content_filter", "length"], "content_filter"),
    ],
    ids=str,
)
def test_last_meaningful_reason_counts(
    case: ModeCase, piece: Any, reasons: list[str], expected: str
) -> None:
    pieces = [piece("a"), *(piece("", reason) for reason in reasons)]

    assert check_whole(read(case, as_events(*pieces)), "a") == expected


@BOTH
def test_reason_refuted_by_text_is_replaced(case: ModeCase, piece: Any) -> None:
    pieces = [piece("a", "length"), piece("b"), piece("", "stop")]

    assert check_whole(read(case, as_events(*pieces)), "ab") == "stop"


def test_late_filter_results_travel_on() -> None:
    """As Azure's asynchronous filter sends them behind the end."""
    late = frame("", None)
    late["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
    plan = harness.plan("openai", stream=True)
    upstream = plan.upstream_request(plan.parts[0], plan.target)
    reader = upstream.endpoint.reader(upstream)
    events = as_events(frame("a"), frame("", "stop"), late)
    frames = [answer.body for event in events for answer in reader.feed(event)]

    assert any(b"content_filter_results" in body for body in frames)


def test_reasoning_behind_early_reason_stays_hidden() -> None:
    pieces = [delta("", "stop"), delta("<think>hm"), delta("</think>\nYes")]

    assert check_whole(read(CHAT, as_events(*pieces)), "Yes") == "stop"


def test_beginning_of_a_tag_is_text_at_the_end() -> None:
    pieces = [delta("<thi", "stop")]

    assert check_whole(read(CHAT, as_events(*pieces)), "<thi") == "stop"


@given(st.lists(st.sampled_from(["stop", "length", None]), min_size=1, max_size=6))
def test_held_reasons_leave_choices_whole(reasons: list[str | None]) -> None:
    """Whatever reasons come with the pieces of a text, all of it is passed on."""
    text = "abcdef"[: len(reasons)]
    for case, piece in ((NATIVE, frame), (CHAT, delta)):
        pieces = [piece(t, r) for t, r in zip(text, reasons, strict=True)]
        if any(reasons):
            check_whole(read(case, as_events(*pieces)), text)
        else:
            with pytest.raises(UpstreamCut):
                read(case, as_events(*pieces))


# A lost connection


def broken(case: ModeCase, *documents: Any) -> list[Completion]:
    def events() -> Any:
        yield from as_events(*documents, done=False)
        raise UpstreamUnreachable("broken")

    return read(case, events())


def test_break_after_repeated_reasons_is_raised() -> None:
    """Where each frame has a reason, none of them says that it is the last."""
    with pytest.raises(UpstreamUnreachable):
        broken(NATIVE, frame("a", "stop"), frame("b", "stop"))


def test_break_before_last_choice_is_raised() -> None:
    plan = harness.plan("openai", stream=True, n=2)
    upstream = plan.upstream_request(plan.parts[0], plan.target)
    reader = upstream.endpoint.reader(upstream)
    for event in as_events(frame("a", "stop"), done=False):
        reader.feed(event)
    with pytest.raises(UpstreamUnreachable):
        reader.end(UpstreamUnreachable("broken"))


# Streams without any reason


USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


@BOTH
@pytest.mark.parametrize("max_tokens, expected", [(5, "length"), (6, "stop")])
def test_counted_stream_needs_no_reason(
    case: ModeCase, piece: Any, max_tokens: int, expected: str
) -> None:
    counted = piece() | {"choices": [], "usage": USAGE}
    chunks = read(
        case, as_events(piece("a"), piece("b"), counted), max_tokens=max_tokens
    )

    assert check_whole(chunks, "ab") == expected


@BOTH
@pytest.mark.parametrize("counted", [False, True], ids=["uncounted", "not done"])
def test_other_stream_without_reason_is_cut(
    case: ModeCase, piece: Any, counted: bool
) -> None:
    usage = [piece() | {"choices": [], "usage": USAGE}] if counted else []
    with pytest.raises(UpstreamCut):
        read(case, as_events(piece("a"), *usage, done=not counted))


@BOTH
@pytest.mark.parametrize("late", [None, "stop"], ids=["never began", "went on"])
def test_terminator_completes_no_missing_choice(
    case: ModeCase, piece: Any, late: str | None
) -> None:
    counted = piece() | {"choices": [], "usage": USAGE}
    pieces = [piece("a", late)] + ([piece("b", None, 1)] if late else [])
    with pytest.raises(UpstreamCut, match="of 2 choices came"):
        read(case, as_events(*pieces, counted), n=2)


def test_ollama_without_done_reason_is_judged_by_budget() -> None:
    lines = [
        {"response": "a", "done": False},
        {"response": "", "done": True, "eval_count": 5, "prompt_eval_count": 2},
    ]
    ollama = by_name("ollama-native")
    events = as_events(*lines, done=False)

    assert check_whole(read(ollama, events, max_tokens=5), "a") == "length"
    assert check_whole(read(ollama, events, max_tokens=6), "a") == "stop"


# Whole answers without a reason


REASON_FIELDS = ("finish_reason", "finishReason", "stop_reason", "stopReason")
REASON_FIELDS += ("done_reason", "completionReason")


def erased(node: Any, value: Any) -> Any:
    """*node* with *value* in place of each finish reason."""
    if isinstance(node, list):
        return [erased(each, value) for each in node]
    if isinstance(node, dict):
        return {
            k: value if k in REASON_FIELDS else erased(v, value)
            for k, v in node.items()
        }
    return node


@EVERY_MODE
@pytest.mark.parametrize("value", ["", None], ids=repr)
def test_whole_answer_needs_no_reason(case: ModeCase, value: str | None) -> None:
    answer = json.dumps(erased(json.loads(case.whole), value)).encode()
    name, to = case.provider.name, {"via": case.mode}
    whole = harness.whole(name, answer, to=to, model=case.model, max_tokens=1)
    (choice,) = whole.choices
    counted = whole.usage and not whole.usage.estimated

    assert choice.text == TEXT
    if choice.finish_reason != "length":
        # llama.cpp's own endpoint says whether the limit was reached.
        assert choice.finish_reason == "stop"
        assert not counted or str(case) in ("llama-cpp-fim", "local-fim")


# Choices


@pytest.mark.parametrize(
    "indices, expected, numbers",
    [
        ([None, None], 2, [0, 1]),
        ([None, 1], 2, [0, 1]),
        ([1, None], 2, [1, 0]),
        ([1, 0], 2, [1, 0]),
        ([0, 0], 2, [0, 1]),
        ([1, 2], 2, [0, 1]),
        ([None, None], 3, [0, 1]),
        ([None], 2, [0]),
        ([0, 1, 2], 2, [0, 1, 2]),
    ],
    ids=str,
)
def test_missing_indices_are_counted_up(
    indices: list[Any], expected: int, numbers: list[int]
) -> None:
    assert list(choice_indices(indices, expected, whole=True)) == numbers


@pytest.mark.parametrize(
    "indices, numbers",
    [([None, None], [0, 1]), ([None, 1], [0, 1]), ([0, 0], [0, 0]), ([None], [0])],
    ids=str,
)
def test_pieces_of_one_choice_stay_one(indices: list[Any], numbers: list[int]) -> None:
    assert list(choice_indices(indices, 2, whole=False)) == numbers


def test_endless_choices_are_refused() -> None:
    plan = harness.plan("openai", stream=True)
    endings = ChoiceEndings(plan.upstream_request(plan.parts[0], plan.target))
    with pytest.raises(UpstreamCut, match="more choices"):
        for index in range(1000):
            endings.go_on(index, has_text=True)
            endings.hold(index, "stop")
