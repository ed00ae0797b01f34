"""Conditions with patterns: their limits, and the errors beyond them."""

import json
import random
from typing import Any

import pytest

from app.api.routing import patterns
from app.api.routing.patterns import Searches
from app.errors import InvalidRoute
from tests.conftest import Caller

# A text on which RE2's automaton never reaches the same state twice.
SLOW = "a[ab]{300}c"
TEXT = "".join(random.Random(1).choices("ab", k=60_000))


def config(upstream: Any, *regexes: str) -> dict[str, str]:
    """A config header with these patterns as conditions on the prompt."""
    parts = [{"params.prompt": {"$regex": each}} for each in regexes]
    target = {"provider": "openai", "api_key": "k", "custom_host": upstream.url}
    strategy = {
        "mode": "conditional",
        "conditions": [{"query": {"$or": parts}, "then": "a"}],
        "default": "a",
    }
    targets = [target | {"name": "a"}]
    return {
        "x-portkey-provider": "",
        "x-portkey-custom-host": "",
        "x-portkey-config": json.dumps({"strategy": strategy, "targets": targets}),
    }


def refused(caller: Caller, upstream: Any, prompt: Any, *regexes: str) -> str:
    calls = len(upstream.requests)
    response = caller.complete(headers=config(upstream, *regexes), prompt=prompt)
    assert response.status_code == 400, response.get_data(as_text=True)
    assert response.json["error"]["code"] == "conditions_too_expensive"
    assert len(upstream.requests) == calls
    message: str = response.json["error"]["message"]
    return message


def test_ordinary_patterns_search_long_prompts(caller: Caller, upstream) -> None:
    prompt = "word " * 50_000 + "An invoice, please."
    sent = config(upstream, r"(?i)\b(refund|invoice|billing)\b", "^gpt-4", r"\d{3}-\d+")

    assert caller.complete(headers=sent, prompt=prompt).status_code == 200


def test_long_texts_are_refused(caller: Caller, upstream) -> None:
    for text in ("a" * 262_145, "\u00e9" * 131_073):
        message = refused(caller, upstream, text, "b")
        assert "262145 bytes" in message or "262146 bytes" in message
        assert "at most 262144" in message


def test_products_of_sizes_are_refused(caller: Caller, upstream) -> None:
    message = refused(caller, upstream, "ab" * 100_000, SLOW)

    assert "a pattern of 306 instructions meets a text of 200000 bytes" in message
    assert "at most 33554432" in message


def test_slow_searches_use_up_the_budget(caller: Caller, upstream) -> None:
    regexes = [f"a[ab]{{{200 + i}}}c" for i in range(30)]
    message = refused(caller, upstream, TEXT, *regexes)

    assert "at most 0.25 s are allowed for a request" in message


def test_many_texts_use_up_the_budget(caller: Caller, upstream) -> None:
    regexes = [f"a[ab]{{9}}{i}" for i in range(30)]
    message = refused(caller, upstream, ["ab"] * 10_000, *regexes)

    assert "at most 0.25 s are allowed for a request" in message


def test_many_fields_are_refused(caller: Caller) -> None:
    response = caller.complete(**{f"x{i}": 1 for i in range(1001)})

    assert response.status_code == 400
    assert "1003 fields, and at most 1000" in response.json["error"]["message"]


def test_budget_is_per_request(caller: Caller, upstream) -> None:
    searches = Searches()
    with pytest.raises(InvalidRoute):
        for _ in range(100):
            searches(SLOW, TEXT)

    assert not Searches()(SLOW, TEXT)


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("a" * 501, "501 characters, and at most 500"),
        (".{1000}", "8004 instructions, and at most 2000"),
        (r"\pL" * 17, "17 classes such as \\pL, and at most 16"),
        (r"\p{L}{1000}", "pattern too large"),
        ("(", "missing )"),
    ],
    ids=["long", "large", "classes", "larger", "open"],
)
def test_large_patterns_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=".") as refused:
        patterns.compile_pattern(pattern)

    assert message in str(refused.value)


@pytest.mark.parametrize(
    "pattern, text, matches",
    [
        ("^gpt", "gpt-4", True),
        ("(?i)hello", "Say HELLO", True),
        ("(a)(b)?", "xa", True),
        (r"\x{1f600}", "\U0001f600", True),
        ("^é$", "é", True),
        ("b", "a", False),
        ("", "", True),
    ],
)
def test_searches_find_matches(pattern: str, text: str, matches: bool) -> None:
    assert Searches()(pattern, text) is matches
