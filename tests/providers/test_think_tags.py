"""Reasoning in think tags before the text, in a stream split anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.parsing.think_tags import ThinkTagFilter


def spoken(*pieces: str) -> str:
    think_tags = ThinkTagFilter()
    return "".join(map(think_tags.feed, pieces)) + think_tags.end()


@pytest.mark.parametrize(
    "text, meant",
    [
        ("Yes.", "Yes."),
        ("<think>Hm.</think>Yes.", "Yes."),
        ("\n<think>\nHm. <b>\n</think>\n\nYes.\n", "Yes.\n"),
        ("<think></think> Yes.", " Yes."),
        ("<think>It never ends", ""),
        ("<thinner>", "<thinner>"),
        ("<thi", "<thi"),
        ("  <", "  <"),
        ("Yes <think>no</think>.", "Yes <think>no</think>."),
        ("", ""),
    ],
)
def test_reasoning_is_no_text(text: str, meant: str) -> None:
    assert spoken(text) == meant
    assert spoken(*text) == meant


@given(
    st.text("<think/> a\n", max_size=30),
    st.text("a<\n ", max_size=8),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_think_tags_may_be_cut_anywhere(
    thought: str, text: str, places: list[int]
) -> None:
    whole = f"<think>{thought}</think>{text}"
    bounds = [0, *sorted(p % (len(whole) + 1) for p in places), len(whole)]
    pieces = [whole[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]

    _, _, meant = whole.removeprefix("<think>").partition("</think>")
    assert spoken(*pieces) == meant.lstrip("\n")
