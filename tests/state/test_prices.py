"""What requests cost."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from app.core.completion import Usage
from app.core.prices import PRICES, Price, cost, price, prices
from app.providers import PROVIDERS

MILLION = 1_000_000


def test_a_cost_is_that_of_all_tokens() -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=500)

    assert cost("openai", "gpt-4o-mini", usage) == Decimal("0.00045")


def test_cached_tokens_cost_less_where_the_provider_says_so() -> None:
    usage = Usage(prompt_tokens=MILLION, cached_tokens=MILLION // 2)

    assert cost("openai", "gpt-4o", usage) == Decimal("1.875")
    assert cost("openai", "gpt-4", usage) == Decimal("30")


def test_thoughts_are_paid_for_once() -> None:
    usage = Usage(completion_tokens=MILLION, reasoning_tokens=MILLION)

    assert cost("openai", "o3", usage) == Decimal("8")


def test_an_unknown_price_is_none() -> None:
    assert cost("openai", "gpt-4o-audio-preview", Usage(1, 1)) is None
    assert cost("ollama", "gpt-4o", Usage(1, 1)) is None


@pytest.mark.parametrize(
    ("provider", "model", "input"),
    [
        ("openai", "gpt-4o", "2.5"),
        ("openai", "gpt-4o-2024-08-06", "2.5"),
        ("openai", "GPT-4.1-mini-2025-04-14", "0.4"),
        ("openai", "gpt-3.5-turbo-instruct-0914", "1.5"),
        ("anthropic", "claude-sonnet-4-5-20250929", "3"),
        ("anthropic", "claude-opus-4-20250514", "15"),
        ("bedrock", "us.anthropic.claude-3-haiku-20240307-v1:0", "0.25"),
        ("cohere", "command-r-08-2024", "0.15"),
    ],
)
def test_a_model_is_found_under_its_dated_names(
    provider: str, model: str, input: str
) -> None:
    found = price(provider, model)

    assert found and found.input == Decimal(input)


def test_an_operators_prices_come_first() -> None:
    own = prices([{"provider": "*", "model": "GPT-4o*", "input": 1, "output": "2.5"}])

    assert cost("openai", "gpt-4o-mini", Usage(MILLION, MILLION), own) == Decimal("3.5")
    assert cost("azure-openai", "gpt-4o", Usage(MILLION), own) == Decimal(1)
    assert cost("openai", "gpt-4", Usage(MILLION), own) == Decimal(30)


def test_prices_are_read_from_json() -> None:
    row = {
        "provider": "vllm",
        "model": "mine",
        "input": 0.1,
        "output": "0.20",
        "cached": None,
        "read": "2026-11-24",
        "source": "https://example.com",
    }
    expected = Price(
        "vllm",
        "mine",
        Decimal("0.1"),
        Decimal("0.2"),
        None,
        date(2026, 11, 24),
        "https://example.com",
    )

    assert prices([row]) == (expected,)


ROW = {"provider": "vllm", "model": "mine", "input": 1, "output": 1}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "prices must be a list"),
        ([1], r"prices\[0\] must be an object"),
        ([ROW, {"model": "m"}], r"prices\[1\] lacks provider, input, output"),
        ([ROW | {"input": -1}], r"prices\[0\]\.input must be US dollars"),
        ([ROW | {"output": None}], r"prices\[0\]\.output must be US dollars"),
        ([ROW | {"output": "nan"}], r"prices\[0\]\.output must be US dollars"),
        ([ROW | {"cached": True}], r"prices\[0\]\.cached must be US dollars"),
        ([ROW | {"input": "cheap"}], r"prices\[0\]\.input must be US dollars"),
        ([ROW | {"model": 5}], r"prices\[0\]\.model must be a text"),
        ([ROW | {"read": "today"}], r"prices\[0\]\.read must be a day"),
        ([ROW | {"inptu": 5}], r"prices\[0\]\.inptu is unknown"),
    ],
    ids=str,
)
def test_prices_that_are_wrong_are_named(given: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        prices(given)


# The table


@pytest.mark.parametrize("row", PRICES, ids=lambda row: f"{row.provider}/{row.model}")
def test_a_row_says_where_it_comes_from_and_is_found(row: Price) -> None:
    model = row.model.replace("[5678]", "5").replace("[56]", "5").replace("*", "")

    assert row.provider in PROVIDERS
    assert row.source.startswith("https://")
    assert row.read and row.read <= date(2026, 11, 24)
    assert row.model == row.model.lower()
    assert price(row.provider, model) is row
    # Nobody asks more for what it need not compute, or less for what it must.
    assert (row.cached or 0) < row.input <= row.output
