"""Stream readers: fed event by event, by whoever has the network."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pytest

from app.core.sse import DONE, Event
from app.errors import UpstreamCut, UpstreamUnreachable
from app.providers.declaration import StreamReader, UpstreamAnswer, read_stream
from app.providers.protocols.openai_completions import to_completion
from tests.upstream import delta, frame

from . import talk
from .ways import TEXT, WAYS, Asked

EVERY_WAY = pytest.mark.parametrize("asked", WAYS, ids=str)


def reader(asked: Asked, **params: Any) -> StreamReader:
    plan = talk.plan(
        asked.provider.name,
        to={"via": asked.mode},
        model=asked.model,
        stream=True,
        **params,
    )
    return asked.endpoint.reader(plan.ask(plan.parts[0], plan.target))


def recorded_events(asked: Asked) -> list[Event]:
    decode, recorded = asked.stream
    return list(decode([recorded], 2**20))


def text_of(answers: Iterable[UpstreamAnswer]) -> str:
    choices = (choice for answer in answers for choice in to_completion(answer).choices)
    return "".join(choice.text for choice in choices)


@EVERY_WAY
def test_read_stream_feeds_until_done(asked: Asked) -> None:
    by_hand = reader(asked)
    answers: list[UpstreamAnswer] = []
    for event in recorded_events(asked):
        answers += by_hand.feed(event)
        if by_hand.done:
            break
    else:
        answers += by_hand.end()

    assert text_of(answers) == TEXT
    assert list(read_stream(reader(asked), recorded_events(asked))) == answers


@EVERY_WAY
def test_text_comes_with_its_event(asked: Asked) -> None:
    """Nothing waits for the event after it: the text grows until its last is read."""
    live = reader(asked)
    lengths, text = [], ""
    for event in recorded_events(asked):
        text += text_of(live.feed(event))
        lengths.append((len(text), b"course" in event.data))
        if live.done:
            break

    for length, holds_last_word in lengths:
        assert length >= len(TEXT) - 1 or not holds_last_word


@EVERY_WAY
def test_read_stream_takes_no_event_early(asked: Asked) -> None:
    count = 0

    def counted() -> Iterator[Event]:
        nonlocal count
        for event in recorded_events(asked):
            count += 1
            yield event

    by_hand, expected = reader(asked), []
    for number, event in enumerate(recorded_events(asked), start=1):
        if not by_hand.done:
            expected += [number for _ in by_hand.feed(event)]
    counts = [count for _ in read_stream(reader(asked), counted())]

    assert counts[: len(expected)] == expected


# A connection that fails


def read_broken(asked: Asked, documents: Iterable[Any]) -> list[UpstreamAnswer]:
    def events() -> Iterator[Event]:
        yield from map(Event, map(orjson.dumps, documents))
        raise UpstreamUnreachable("broken")

    return list(read_stream(reader(asked), events()))


def by_name(name: str) -> Asked:
    return next(asked for asked in WAYS if str(asked) == name)


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
