"""Prices and the cost of requests."""

import re
from collections import Counter
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.core.completion import Usage
from app.core.prices import PRICES, Price, cost, price, prices
from app.providers import PROVIDERS

MILLION = 1_000_000


def test_cost_covers_all_tokens() -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=500)

    assert cost("openai", "gpt-4o-mini", usage) == Decimal("0.00045")


def test_cached_tokens_have_lower_price() -> None:
    usage = Usage(prompt_tokens=MILLION, cached_tokens=MILLION // 2)

    assert cost("openai", "gpt-4o", usage) == Decimal("1.875")
    assert cost("openai", "gpt-4", usage) == Decimal("30")


def test_reasoning_tokens_are_charged_once() -> None:
    usage = Usage(completion_tokens=MILLION, reasoning_tokens=MILLION)

    assert cost("openai", "o3", usage) == Decimal("8")


def test_resent_prompt_is_charged_again() -> None:
    usage = Usage(prompt_tokens=MILLION, repeated_tokens=2 * MILLION)

    assert cost("openai", "o3", usage) == Decimal("6")


def test_unknown_price_is_none() -> None:
    assert cost("openai", "gpt-4o-audio-preview", Usage(1, 1)) is None
    assert cost("ollama", "gpt-4o", Usage(1, 1)) is None


OPENAI, CLAUDE, VERTEX, BEDROCK = "openai", "anthropic", "vertex-ai", "bedrock"


@pytest.mark.parametrize(
    ("provider", "model", "input"),
    [
        (OPENAI, "gpt-4o", "2.5"),
        (OPENAI, "gpt-4o-2024-08-06", "2.5"),
        (OPENAI, "gpt-4o-2024-05-13", "5"),
        (OPENAI, "GPT-4.1-mini-2025-04-14", "0.4"),
        (OPENAI, "gpt-3.5-turbo-instruct-0914", "1.5"),
        ("azure-openai", "gpt-4o-2024-11-20", "2.5"),
        (CLAUDE, "claude-sonnet-4-5-20250929", "3"),
        (CLAUDE, "claude-opus-4-20250514", "15"),
        (CLAUDE, "claude-opus-4-1-20250805", "15"),
        (CLAUDE, "claude-opus-4-5-20251101", "5"),
        (CLAUDE, "claude-opus-5-5", "4"),
        (VERTEX, "claude-opus-5@default", "5"),
        (VERTEX, "claude-sonnet-4@20250514", "3"),
        (VERTEX, "anthropic.claude-haiku-4-5@20251001", "1"),
        (VERTEX, "google.gemini-2.5-flash", "0.3"),
        (BEDROCK, "anthropic.claude-sonnet-4-20250514-v1:0", "3"),
        (BEDROCK, "eu.anthropic.claude-sonnet-4-20250514-v1:0", "3"),
        (BEDROCK, "apac.anthropic.claude-sonnet-4-20250514-v1:0", "3"),
        (BEDROCK, "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
        (BEDROCK, "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3"),
        (BEDROCK, "us.anthropic.claude-opus-4-20250514-v1:0", "15"),
        (BEDROCK, "us.anthropic.claude-opus-4-5-20251101-v1:0", "5.5"),
        (BEDROCK, "us.anthropic.claude-opus-5", "5.5"),
        (BEDROCK, "us.anthropic.claude-opus-5-5", "4.4"),
        (BEDROCK, "us.anthropic.claude-3-haiku-20240307-v1:0", "0.25"),
        (BEDROCK, "anthropic.claude-3-5-sonnet-20241022-v2:0", "3"),
        (BEDROCK, "us.meta.llama3-1-8b-instruct-v1:0", "0.22"),
        ("cohere", "command-r-08-2024", "0.15"),
    ],
)
def test_price_matches_longer_model_names(
    provider: str, model: str, input: str
) -> None:
    match = price(provider, model)

    assert match and match.input == Decimal(input)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        (OPENAI, "gpt-4o-realtime-preview-2024-12-17"),
        (OPENAI, "gpt-4-32k"),
        (OPENAI, "ft:gpt-4o-2024-08-06:mine::id"),
        ("azure-openai", "my-deployment"),
        (CLAUDE, "claude-opus-4-9"),
        (CLAUDE, "claude-opus-4-50"),
        (CLAUDE, "claude-opus-6-20270101"),
        (VERTEX, "gemini-2.5-flash-image"),
        ("google", "gemini-2.5-pro-preview-tts"),
        (BEDROCK, "us.anthropic.claude-opus-6-v1:0"),
        (BEDROCK, "us-gov.anthropic.claude-3-haiku-20240307-v1:0"),
        ("mistral-ai", "codestral-embed"),
        ("mistral-ai", "mistral-large-2402"),
        ("fireworks-ai", "accounts/fireworks/models/deepseek-v3-0324"),
        ("x-ai", "grok-4"),
    ],
)
def test_similar_model_name_has_no_price(provider: str, model: str) -> None:
    assert price(provider, model) is None


def test_operator_prices_come_first() -> None:
    own = prices([{"provider": "*", "model": "GPT-4o*", "input": 1, "output": "2.5"}])

    assert cost("openai", "gpt-4o-mini", Usage(MILLION, MILLION), own) == Decimal("3.5")
    assert cost("azure-openai", "gpt-4o", Usage(MILLION), own) == Decimal(1)
    assert cost("openai", "gpt-4", Usage(MILLION), own) == Decimal(30)
    # Even if a built-in row has the model's full name.
    own = prices([{"provider": "openai", "model": "gpt-4o", "input": 1, "output": 1}])
    assert cost("openai", "gpt-4o-2024-05-13", Usage(MILLION), own) == Decimal(1)


def test_prices_are_parsed_from_json() -> None:
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
    ("body", "problem"),
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
def test_invalid_prices_are_named(body: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        prices(body)


# The table


def named(row: Price) -> str:
    return f"{row.provider}/{row.model}"


@pytest.mark.parametrize("row", PRICES, ids=named)
def test_price_row_provider_exists(row: Price) -> None:
    one_of = re.sub(r"\[(.)[^]]*\]", r"\1", row.model)
    model = one_of.replace("??", "us").replace("*", "")

    assert row.provider in PROVIDERS
    assert row.model == row.model.lower()
    assert price(row.provider, model) is row


@pytest.mark.parametrize("row", PRICES, ids=named)
def test_price_row_names_source_and_date(row: Price) -> None:
    source = urlsplit(row.source)

    assert source.scheme == "https" and "." in source.netloc
    assert source.path.strip("/")
    assert row.read and date(2026, 1, 1) <= row.read <= date(2026, 11, 27)


@pytest.mark.parametrize("row", PRICES, ids=named)
def test_prices_are_plausible(row: Price) -> None:
    assert Decimal("0.01") <= row.input <= Decimal(100)
    # Output never costs less than input, and cached tokens are cheaper.
    assert row.input <= row.output <= 10 * row.input
    assert row.cached is None or row.input / 50 <= row.cached <= row.input / 2


def test_models_are_listed_once() -> None:
    assert max(Counter(map(named, PRICES)).values()) == 1
