"""The fast validation of a body, compared with marshmallow's own."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.request.schemas import CompletionSchema, validate
from app.errors import InvalidRequest

WORDS = st.text(max_size=3)
TOKENS = st.lists(st.integers(-1, 3), max_size=3)
NUMBERS = st.integers(-3, 30) | st.floats() | st.just(2.0**64)
VALUES = (
    st.none()
    | st.booleans()
    | NUMBERS
    | WORDS
    | TOKENS
    | st.lists(WORDS | TOKENS, max_size=5)
    | st.dictionaries(st.sampled_from(["50256", "x", "include_usage"]), NUMBERS)
)
NAMES = st.sampled_from([*CompletionSchema().fields, "top_k", "", "a.b", "_schema"])
BODIES = st.builds(
    lambda sound, any: sound | any,
    st.fixed_dictionaries({"model": WORDS, "prompt": WORDS}) | st.just({}),
    st.dictionaries(NAMES, VALUES, max_size=6),
)

Read = Callable[[Mapping[str, Any]], Any]


def outcome(read: Read, body: Mapping[str, Any]) -> Any:
    """The result of *read* for *body*, or its errors."""
    try:
        return read(body)
    except InvalidRequest as e:
        return e.to_body()


@settings(max_examples=1000)
@given(BODIES)
def test_validation_equals_marshmallows_load(body: Mapping[str, Any]) -> None:
    assert outcome(validate, body) == outcome(CompletionSchema().load, body)


def test_fields_keep_specification_order() -> None:
    body = {"z": 1, "top_p": 1, "prompt": "p", "n": 1, "a": 1, "model": "m"}

    assert [*validate(body)] == ["model", "prompt", "n", "top_p", "z", "a"]
