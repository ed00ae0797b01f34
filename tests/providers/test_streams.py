"""Stream readers, fed event by event."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pytest

from app.core.sse import DONE, Event
from app.errors import UpstreamCut, UpstreamUnreachable
from app.providers.declaration import StreamReader, UpstreamAnswer
from app.providers.protocols.openai_completions import to_completion
from tests.upstream import delta, frame

from . import harness
from .harness import read_stream
from .recordings import MODE_CASES, TEXT, ModeCase

EVERY_MODE = pytest.mark.parametrize("case", MODE_CASES, ids=str)


def reader(case: ModeCase, **params: Any) -> StreamReader:
    plan = harness.plan(
        case.provider.name,
        to={"via": case.mode},
        model=case.model,
        stream=True,
        **params,
    )
    return case.endpoint.reader(plan.upstream_request(plan.parts[0], plan.target))


def recorded_events(case: ModeCase) -> list[Event]:
    decode, recorded = case.stream
    return list(decode([recorded], 2**20))


def text_of(answers: Iterable[UpstreamAnswer]) -> str:
    choices = (choice for answer in answers for choice in to_completion(answer).choices)
    return "".join(choice.text for choice in choices)


@EVERY_MODE
def test_read_stream_feeds_until_done(case: ModeCase) -> None:
    by_hand = reader(case)
    answers: list[UpstreamAnswer] = []
    for event in recorded_events(case):
        answers += by_hand.feed(event)
        if by_hand.done:
            break
    else:
        answers += by_hand.end()

    assert text_of(answers) == TEXT
    assert list(read_stream(reader(case), recorded_events(case))) == answers


@EVERY_MODE
def test_text_comes_with_its_event(case: ModeCase) -> None:
    """No text waits for the next event: it is complete once its last event is read."""
    live = reader(case)
    lengths, text = [], ""
    for event in recorded_events(case):
        # Text that is held with its finish reason goes on shortly after.
        text += text_of([*live.feed(event), *live.flush()])
        lengths.append((len(text), b"course" in event.data))
        if live.done:
            break

    for length, holds_last_word in lengths:
        assert length >= len(TEXT) - 1 or not holds_last_word


@EVERY_MODE
def test_read_stream_takes_no_event_early(case: ModeCase) -> None:
    count = 0

    def counted() -> Iterator[Event]:
        nonlocal count
        for event in recorded_events(case):
            count += 1
            yield event

    by_hand, expected = reader(case), []
    for number, event in enumerate(recorded_events(case), start=1):
        if not by_hand.done:
            expected += [number for _ in by_hand.feed(event)]
    counts = [count for _ in read_stream(reader(case), counted())]

    assert counts[: len(expected)] == expected


# Failing connections


def read_broken(case: ModeCase, documents: Iterable[Any]) -> list[UpstreamAnswer]:
    def events() -> Iterator[Event]:
        yield from map(Event, map(orjson.dumps, documents))
        raise UpstreamUnreachable("broken")

    return list(read_stream(reader(case), events()))


def by_name(name: str) -> ModeCase:
    return next(case for case in MODE_CASES if str(case) == name)


def test_failure_after_last_choice_loses_nothing() -> None:
    answers = read_broken(by_name("openai-native"), [frame("Hi"), frame("", "stop")])

    assert text_of(answers) == "Hi"


@pytest.mark.parametrize("frames", [[], [frame("Hi")]], ids=["none", "one"])
def test_failure_before_finish_reason_is_raised(frames: list[Any]) -> None:
    with pytest.raises(UpstreamUnreachable):
        read_broken(by_name("openai-native"), frames)


def test_failure_of_chat_stream_is_raised() -> None:
    with pytest.raises(UpstreamUnreachable):
        read_broken(by_name("openai-chat"), [delta("Hi"), delta("", "stop")])


def test_terminator_before_finish_reason_is_a_cut() -> None:
    native = reader(by_name("openai-native"))
    native.feed(Event(orjson.dumps(frame("Hi"))))

    with pytest.raises(UpstreamCut):
        native.feed(Event(DONE))
