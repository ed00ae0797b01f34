"""JSON that is not quite JSON, as servers write it."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import safe_json

TEXTS = st.text(st.sampled_from('aé😀\ud83d\ude00\u2028"\\\n')) | st.sampled_from(
    ["NaN", "[Infinity]", '"-Infinity"', "text", "logprobs", "token"]
)
NUMBERS = st.floats() | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


def expected(value: Any, is_logprob: bool = False) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        value = float(value) if abs(value) < 1e300 else math.inf
    if isinstance(value, float) and not math.isfinite(value):
        return -9999.0 if is_logprob else None
    if isinstance(value, list):
        return [expected(item, is_logprob) for item in value]
    if isinstance(value, dict):
        return {
            expected(k): expected(v, is_logprob or "logprob" in k)
            for k, v in value.items()
        }
    return value


@given(VALUES)
def test_what_python_writes_is_read(value: Any) -> None:
    text = json.dumps(value)
    read, is_json = safe_json.load_lenient(text.encode())

    if not is_json:
        assert read == expected(json.loads(text))
    assert orjson.loads(orjson.dumps(read)) == read


@given(VALUES)
def test_halves_are_kept_in_texts_only(value: Any) -> None:
    text = json.dumps({"value": value}).encode()
    read, _ = safe_json.load_lenient(text, keep_halves=True)
    clean, _ = safe_json.load_lenient(text)

    assert safe_json.in_whole_characters(read) == clean


@pytest.mark.parametrize("text", [b"1e999", b"-1e999", b"9" * 5000, b"NaN"])
def test_number_beyond_floats_is_null(text: bytes) -> None:
    assert safe_json.load_lenient(b"[%b]" % text) == ([None], False)
    logprobs = b'{"logprobs": {"text_offset": [%b], "a": %b}}' % (text, text)
    read, _ = safe_json.load_lenient(logprobs)
    assert read == {"logprobs": {"text_offset": [None], "a": -9999.0}}


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"{} {}", b'{"a": nan}', b"[" * 10**5, b"[" * 260 + b"]" * 260, b"\0"],
)
def test_other_text_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        safe_json.load_lenient(text)
    with pytest.raises(ValueError):
        safe_json.load_lenient(b"[NaN, %b]" % text)
