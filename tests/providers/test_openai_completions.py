"""Frames in the legacy format: passed on unchanged, or repaired."""

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.sse import Event
from app.providers.protocols.frame_passthrough import FramePassthrough, FrameTemplate
from tests.upstream import frame

from . import harness


def passed(frames: Iterable[bytes]) -> list[bytes]:
    """The frames that a caller gets for a stream of *frames*."""
    chosen_plan = harness.plan("openai", stream=True, n=2)
    (part,) = chosen_plan.parts
    upstream = chosen_plan.upstream_request(part, chosen_plan.target)
    events = [*map(Event, frames), Event(b"[DONE]")]
    reader = FramePassthrough(upstream)
    return [chunk.body for event in events for chunk in reader.feed(event)]


def a_frame(text: str, index: int = 0, **changes: Any) -> bytes:
    return orjson.dumps(frame(text, index=index, **changes))


def ending(index: int) -> dict[str, Any]:
    return {"text": "", "index": index, "logprobs": None, "finish_reason": "stop"}


TEXTS = st.lists(
    st.text(max_size=6)
    | st.sampled_from(['"', "\\", '","index":1', "</s>", "\n", "é", '"error"']),
    min_size=1,
    max_size=8,
)


@given(texts=TEXTS, indices=st.lists(st.integers(0, 1), min_size=8, max_size=8))
def test_template_equals_full_check(texts: list[str], indices: list[int]) -> None:
    frames = [a_frame(t, i) for t, i in zip(texts, indices, strict=False)]
    frames += [a_frame("", i, choices=[ending(i)]) for i in (0, 1)]
    at_a_glance = passed(frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameTemplate, "fits", lambda self, data: False)
        assert at_a_glance == passed(frames)
        patch.setattr(FramePassthrough, "_needs_no_repair", lambda self, data: False)
        assert at_a_glance == passed(frames)


ODD = [
    b'{"id":"cmpl-upstream","text":"a"b"}',
    a_frame("a")[:-1],
    a_frame("a").replace(b'"a"', b'"\x01"'),
    a_frame("a").replace(b'"a"', b'"\xff"'),
    a_frame("a").replace(b'"a"', b'"a\\"'),
]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_template_rejects_odd_frames(odd: bytes) -> None:
    template = FrameTemplate.of(a_frame("before"))

    assert template and template.fits(a_frame("another"))
    assert not template.fits(odd)
