"""Any answer, broken in any way that servers have shown: whole, or an error.

Each recording goes through the whole gateway, from a real socket, after some mutators
have changed it. See mutators.py.
"""

import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.upstream import Upstream, whole

from . import gateway_call
from .gateway_call import Received
from .mutators import (
    FAULTS,
    MUTATORS,
    WHOLE_MUTATORS,
    StreamedAnswer,
    WholeAnswer,
    mutated,
    whole_with_choices,
    with_choices,
)
from .recordings import MODE_CASES, TEXT, ModeCase


def distinct(cases: Sequence[ModeCase]) -> list[ModeCase]:
    """One case for each reader and recording; many hosts share both."""
    by_reader = {
        (case.folder, case.endpoint.completion.__module__): case
        for case in reversed(cases)
        # The embedded engine has no upstream that could be scripted.
        if not case.provider.embedded
    }
    return list(by_reader.values())[::-1]


CASES = distinct(MODE_CASES)
EVERY_READER = pytest.mark.parametrize("case", CASES, ids=str)

# Without a finish reason or a last event, a part of these looks like the whole.
ENDLESS = ("triton",)

# The long form, one of `make soak`, looks for new faults; the short one tries the same
# examples each time.
LONG_FORM = os.environ.get("MUTATED_ANSWERS")
FEW_OR_MANY = settings(max_examples=int(LONG_FORM or 3), derandomize=LONG_FORM is None)

SEEDS = st.integers(0, 2**32)
MUTATIONS = st.lists(st.sampled_from(sorted(MUTATORS)), max_size=3, unique=True)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with gateway_call.running_app(tmp_path_factory.mktemp("instance")) as app:
        yield app


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    upstream = Upstream([whole({})])
    yield upstream
    upstream.stop()


def receive(
    app: Flask,
    upstream: Upstream,
    case: ModeCase,
    answer: StreamedAnswer | WholeAnswer,
    choose: random.Random,
    **body: Any,
) -> Received:
    upstream.answers = [answer.answer(choose)]
    response = gateway_call.ask(
        app,
        upstream,
        case.provider.name,
        {"via": case.mode},
        model=case.model,
        # Enough for a model that reasons first, so that nothing is raised.
        max_tokens=2000,
        **body,
    )
    with response:
        return Received(response, len(answer.texts))


@pytest.mark.parametrize("name", MUTATORS)
@EVERY_READER
def test_harmless_fault_loses_nothing(
    app: Flask, upstream: Upstream, case: ModeCase, name: str
) -> None:
    choose, answer = random.Random(f"{case} {name}"), StreamedAnswer.of(case)
    if MUTATORS[name](answer, choose):
        received = receive(app, upstream, case, answer, choose, stream=True)
        received.check_whole(answer.texts)


@EVERY_READER
@FEW_OR_MANY
@given(names=MUTATIONS, seed=SEEDS)
def test_harmless_faults_together_lose_nothing(
    app: Flask, upstream: Upstream, case: ModeCase, names: list[str], seed: int
) -> None:
    choose = random.Random(seed)
    answer = mutated(StreamedAnswer.of(case), names, choose)

    received = receive(app, upstream, case, answer, choose, stream=True)
    received.check_whole(answer.texts)


@EVERY_READER
@FEW_OR_MANY
@given(seed=SEEDS, fault=st.sampled_from(sorted(FAULTS)))
def test_part_of_a_stream_never_looks_whole(
    app: Flask, upstream: Upstream, case: ModeCase, fault: str, seed: int
) -> None:
    if case.provider.name in ENDLESS:
        return
    choose, answer = random.Random(seed), StreamedAnswer.of(case)
    FAULTS[fault](answer, choose)

    received = receive(app, upstream, case, answer, choose, stream=True)
    received.check_whole_or_error(answer.texts)


# Those that take n, and answer with one stream of several choices.
SEVERAL = [
    case
    for case in CASES
    if case.endpoint.choices_per_call > 1 and b'"choices"' in case.stream[1]
]


@pytest.mark.parametrize("case", SEVERAL, ids=str)
@FEW_OR_MANY
@given(names=MUTATIONS, fault=st.sampled_from(["", *sorted(FAULTS)]), seed=SEEDS)
def test_no_choice_is_lost_in_silence(
    app: Flask,
    upstream: Upstream,
    case: ModeCase,
    names: list[str],
    fault: str,
    seed: int,
) -> None:
    choose, answer = random.Random(seed), with_choices(StreamedAnswer.of(case), 2)
    if fault:
        FAULTS[fault](answer, choose)
    else:
        answer = mutated(answer, names, choose)
    received = receive(app, upstream, case, answer, choose, stream=True, n=2)

    if fault:
        received.check_whole_or_error(answer.texts)
    else:
        received.check_whole(answer.texts)


# Whole answers


@pytest.mark.parametrize("name", WHOLE_MUTATORS)
@EVERY_READER
def test_harmless_fault_in_whole_answer(
    app: Flask, upstream: Upstream, case: ModeCase, name: str
) -> None:
    choose, answer = random.Random(f"{case} {name}"), WholeAnswer.of(case)
    if WHOLE_MUTATORS[name](answer, choose):
        receive(app, upstream, case, answer, choose).check_whole(answer.texts)


SEVERAL_WHOLE = [
    case
    for case in CASES
    if case.endpoint.choices_per_call > 1 and b'"choices"' in case.whole
]
SEVERAL_TEXTS = [TEXT, " Lyon.", " Lille."]


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("case", SEVERAL_WHOLE, ids=str)
def test_missing_choice_is_error(
    app: Flask, upstream: Upstream, case: ModeCase, kept: int
) -> None:
    choose, whole = random.Random(0), WholeAnswer.of(case)
    answer = whole_with_choices(whole, SEVERAL_TEXTS)
    del answer.document["choices"][kept : kept + 1]

    received = receive(app, upstream, case, answer, choose, n=3)
    assert received.status == 502 and received.error
    assert "2 of 3 choices" in received.error["message"]


@pytest.mark.parametrize("indices", [(None,) * 3, (0, None, None), (0, 0, 0)], ids=str)
@pytest.mark.parametrize("case", SEVERAL_WHOLE, ids=str)
def test_choices_without_index_are_counted_up(
    app: Flask, upstream: Upstream, case: ModeCase, indices: Sequence[int | None]
) -> None:
    choose, whole = random.Random(0), WholeAnswer.of(case)
    answer = whole_with_choices(whole, SEVERAL_TEXTS)
    for choice, index in zip(answer.document["choices"], indices, strict=True):
        choice["index"] = index
        if index is None:
            del choice["index"]

    receive(app, upstream, case, answer, choose, n=3).check_whole(SEVERAL_TEXTS)


@EVERY_READER
def test_stream_in_place_of_whole_answer(
    app: Flask, upstream: Upstream, case: ModeCase
) -> None:
    """Some servers stream whatever they are asked for."""
    answer, choose = StreamedAnswer.of(case), random.Random(f"{case}")

    receive(app, upstream, case, answer, choose).check_whole(answer.texts)


@EVERY_READER
@FEW_OR_MANY
@given(seed=SEEDS)
def test_part_of_whole_answer_is_error(
    app: Flask, upstream: Upstream, case: ModeCase, seed: int
) -> None:
    choose, answer = random.Random(seed), WholeAnswer.of(case)
    answer.is_truncated = True

    received = receive(app, upstream, case, answer, choose)
    assert received.error and received.status == 502
