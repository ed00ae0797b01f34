"""What tokens cost, as data; and the cost of a request.

List prices in US dollars for a million tokens, without discounts, surcharges for long
prompts, writes into a provider's cache, taxes. They are a help to keep a budget, and no
invoice. An operator's own prices come first. Where the price of a model is not known,
there is none.

To add a row: a provider as in `PROVIDERS`, a model as it is asked for (`*` stands for
anything), and where and when the price was read. The first row that fits counts.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any

from .completion import Usage

_MILLION = 1_000_000

# A model's name goes on in what only says when it was made.
_DATED = re.compile(r"-20\d\d-?\d\d-?\d\d$")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens of a model.

    *cached* is for tokens of the prompt that the provider had in its cache; None where
    they cost as much as others. *model* and *provider* may hold `*`. *read* is the day
    of which the source speaks; if it names none, on which it was read.
    """

    provider: str
    model: str
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    read: date | None = None
    source: str = ""

    def fits(self, provider: str, model: str) -> bool:
        return fnmatchcase(provider, self.provider) and fnmatchcase(model, self.model)

    def cost(self, usage: Usage) -> Decimal:
        """Dollars for *usage*."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        cheap = self.input if self.cached is None else self.cached
        return (
            (usage.prompt_tokens - cached) * self.input
            + cached * cheap
            + usage.completion_tokens * self.output
        ) / _MILLION


def cost(
    provider: str, model: str, usage: Usage, overrides: Sequence[Price] = ()
) -> Decimal | None:
    """Dollars for *usage* of a model; None if its price is not known."""
    found = price(provider, model, overrides)
    return found.cost(usage) if found else None


def price(provider: str, model: str, overrides: Sequence[Price] = ()) -> Price | None:
    """The price of a model, by its full name, else by that without its date."""
    name = model.lower()
    names = (name, _DATED.sub("", name))
    rows = (*overrides, *PRICES)
    return next(
        (row for name in names for row in rows if row.fits(provider, name)), None
    )


def prices(given: Any) -> tuple[Price, ...]:
    """Prices in JSON: a list of objects. Raises ValueError, which names what is wrong.

    Each has provider, model, input, output, and may have cached, read and source.
    """
    if not isinstance(given, list):
        raise ValueError("prices must be a list of objects")
    return tuple(_price(f"prices[{at}]", each) for at, each in enumerate(given))


_AMOUNTS = ("input", "output", "cached")
_REQUIRED = ("provider", "model", "input", "output")
_TEXTS = ("provider", "model", "source")


def _price(place: str, given: Any) -> Price:
    if not isinstance(given, Mapping):
        raise ValueError(f"{place} must be an object")
    lacking = [name for name in _REQUIRED if name not in given]
    if lacking:
        raise ValueError(f"{place} lacks {', '.join(lacking)}")
    return Price(**{name: _field(f"{place}.{name}", v) for name, v in given.items()})


def _field(place: str, value: Any) -> Any:
    name = place.rpartition(".")[2]
    if name in _AMOUNTS:
        return None if name == "cached" and value is None else _dollars(place, value)
    if name == "read":
        return _day(place, value)
    if name not in _TEXTS:
        raise ValueError(f"{place} is unknown")
    if not isinstance(value, str):
        raise ValueError(f"{place} must be a text, not {value!r}")
    return value.lower() if name == "model" else value


def _dollars(place: str, value: Any) -> Decimal:
    problem = f"{place} must be US dollars for a million tokens, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(problem)
    try:
        amount = Decimal(str(value))
    except InvalidOperation as e:
        raise ValueError(problem) from e
    if not amount.is_finite() or not 0 <= amount < _MILLION:
        raise ValueError(problem)
    return amount


def _day(place: str, value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{place} must be a day such as 2026-11-24") from e


# Model, input, output, and cached if that differs.
_Row = tuple[str, str, str] | tuple[str, str, str, str]


def _list(provider: str, read: str, source: str, *rows: _Row) -> Iterable[Price]:
    for model, *amounts in rows:
        input, output, *cached = map(Decimal, amounts)
        rest = (cached[0] if cached else None, date.fromisoformat(read), source)
        yield Price(provider, model, input, output, *rest)


PRICES: tuple[Price, ...] = (
    # OpenAI. Its own page is https://developers.openai.com/api/docs/pricing; GitHub
    # charges these list prices, and publishes them as a table.
    *_list(
        "openai",
        "2026-11-24",
        "https://raw.githubusercontent.com/github/docs/main/data/tables/copilot/"
        "models-and-pricing.yml",
        ("gpt-5.6-sol", "5", "30", "0.5"),
        ("gpt-5.6-terra", "2", "12", "0.2"),
        ("gpt-5.6-luna", "0.2", "1.2", "0.02"),
        ("gpt-5.5", "5", "30", "0.5"),
        ("gpt-5.4", "2.5", "15", "0.25"),
        ("gpt-5.4-mini", "0.75", "4.5", "0.075"),
        ("gpt-5.4-nano", "0.2", "1.25", "0.02"),
        ("gpt-5.3-codex", "1.75", "14", "0.175"),
        ("gpt-5-mini", "0.25", "2", "0.025"),
        ("gpt-4.1", "2", "8", "0.5"),
    ),
    *_list(
        "openai",
        "2026-05-04",
        "https://raw.githubusercontent.com/api-evangelist/openai/main/plans/"
        "openai-plans-pricing.yml",
        ("gpt-5.5-pro", "30", "180"),
    ),
    *_list(
        "openai",
        "2026-03-21",
        "https://deploybase.ai/articles/openai-pricing",
        ("gpt-5.1", "1.25", "10"),
        ("gpt-5", "1.25", "10"),
        ("gpt-5-pro", "15", "120"),
        ("gpt-5-nano", "0.05", "0.4"),
        ("gpt-4.1-mini", "0.4", "1.6"),
        ("gpt-4.1-nano", "0.1", "0.4"),
        ("o3", "2", "8"),
        ("o3-mini", "1.1", "4.4"),
        ("o4-mini", "1.1", "4.4"),
    ),
    *_list(
        "openai",
        "2026-11-24",
        "https://docs.rs/crate/openai-models/0.1.1/source/src/lib.rs",
        ("gpt-4o", "2.5", "10", "1.25"),
        ("gpt-4o-mini", "0.15", "0.6", "0.075"),
    ),
    *_list(
        "openai",
        "2026-11-24",
        "https://github.com/kunishou/GenerativeAI-Cost",
        ("gpt-4-turbo", "10", "30"),
        ("gpt-4", "30", "60"),
        ("gpt-3.5-turbo", "0.5", "1.5"),
        ("gpt-3.5-turbo-0125", "0.5", "1.5"),
    ),
    *_list(
        "openai",
        "2024-03-04",
        "https://gist.github.com/sj82516/862bed5e43648beef473a0635111c65f",
        ("gpt-3.5-turbo-instruct*", "1.5", "2"),
    ),
    # Read in several public copies of OpenAI's page, none of which has an address of
    # its own.
    *_list(
        "openai",
        "2026-11-24",
        "https://openai.com/api/pricing/",
        ("davinci-002", "2", "2"),
        ("babbage-002", "0.4", "0.4"),
    ),
    *_list(
        "anthropic",
        "2026-10-10",
        "https://docs.rs/synaps/0.10.2/synaps_cli/pricing/index.html",
        ("claude-fable-5-1", "10", "50", "0.25"),
        ("claude-opus-5-5", "4", "20", "0.2"),
        ("claude-sonnet-5-5", "2", "10", "0.1"),
        # For prompts of up to 100,000 tokens; longer ones cost five times as much.
        ("claude-haiku-5-5", "0.1", "0.5", "0.01"),
        ("claude-sonnet-5", "2", "10", "0.2"),
    ),
    *_list(
        "anthropic",
        "2026-11-24",
        "https://platform.claude.com/docs/en/about-claude/pricing",
        ("claude-fable-5", "10", "50", "1"),
        ("claude-opus-5", "5", "25", "0.5"),
        ("claude-opus-4-[5678]", "5", "25", "0.5"),
        ("claude-opus-4-1", "15", "75", "1.5"),
        ("claude-opus-4", "15", "75", "1.5"),
        ("claude-sonnet-4-[56]", "3", "15", "0.3"),
        ("claude-sonnet-4", "3", "15", "0.3"),
        ("claude-3-7-sonnet*", "3", "15", "0.3"),
        ("claude-haiku-4-5", "1", "5", "0.1"),
        ("claude-3-5-haiku*", "0.8", "4", "0.08"),
        ("claude-3-haiku", "0.25", "1.25", "0.03"),
    ),
    *_list(
        "google",
        "2026-09-20",
        "https://raw.githubusercontent.com/api-evangelist/gemini/main/plans/"
        "gemini-plans-pricing.yml",
        # Twice as much from 2027 on.
        ("gemini-3.8-flash", "0.75", "3.75"),
        ("gemini-3.1-pro-preview", "2", "12"),
    ),
    *_list(
        "google",
        "2026-11-24",
        "https://raw.githubusercontent.com/github/docs/main/data/tables/copilot/"
        "models-and-pricing.yml",
        ("gemini-3.7-flash", "0.75", "3.75", "0.075"),
        ("gemini-3.6-flash", "0.75", "3.75", "0.075"),
        ("gemini-3.5-flash", "1.5", "9", "0.15"),
    ),
    *_list(
        "google",
        "2026-11-24",
        "https://docs.rs/crate/gemini-cost/latest/source/tests/integration.rs",
        # For prompts of up to 200,000 tokens.
        ("gemini-2.5-pro", "1.25", "10"),
    ),
    *_list(
        "mistral-ai",
        "2026-11-24",
        "https://www.getmaxim.ai/bifrost/llm-cost-calculator/provider/mistral/model/"
        "mistral-large-4-0",
        ("mistral-large-4*", "0.68", "2.09"),
    ),
    *_list(
        "mistral-ai",
        "2026-11-24",
        "https://www.lava.so/docs/gateway/providers/mistral",
        ("mistral-large-24*", "2", "6"),
        ("pixtral-large*", "2", "6"),
        ("magistral-medium*", "2", "5"),
        ("magistral-small*", "0.5", "1.5"),
        ("open-mixtral-8x22b*", "2", "6"),
        ("open-mixtral-8x7b", "0.7", "0.7"),
    ),
    # Codestral fills gaps, from both of Mistral's addresses.
    *(
        row
        for provider in ("mistral-ai", "codestral")
        for row in _list(
            provider,
            "2026-11-24",
            "https://skills.sh/jeremylongshore/claude-code-plugins-plus-skills/"
            "mistral-cost-tuning",
            ("codestral*", "0.3", "0.9"),
        )
    ),
    # Its prices of peak hours, which are twice those of others.
    *_list(
        "deepseek",
        "2026-10-27",
        "https://github.com/benderandrew069/deepseek-api-pricing-2026/wiki",
        ("deepseek-flash", "0.3", "1.2", "0.006"),
        ("deepseek-v4-pro", "1.32", "3.96", "0.044"),
    ),
    *_list(
        "deepseek",
        "2025-12-09",
        "https://raw.githubusercontent.com/RooCodeInc/Roo-Code/main/packages/types/"
        "src/providers/deepseek.ts",
        ("deepseek-chat", "0.28", "0.42", "0.028"),
        ("deepseek-reasoner", "0.28", "0.42", "0.028"),
    ),
    *_list(
        "groq",
        "2026-11-24",
        "https://docs.rs/crate/aicost/latest/source/src/data/data_groq.rs",
        ("openai/gpt-oss-120b", "0.15", "0.6", "0.075"),
        ("openai/gpt-oss-20b", "0.075", "0.3", "0.037"),
        ("meta-llama/llama-4-scout-17b-16e-instruct", "0.11", "0.34"),
        ("qwen/qwen3-32b", "0.29", "0.59"),
        ("llama-3.3-70b-versatile", "0.59", "0.79"),
        ("llama-3.1-8b-instant", "0.05", "0.08"),
    ),
    *_list(
        "together-ai",
        "2026-11-24",
        "https://mastra.ai/models/v1/providers/togetherai",
        ("meta-llama/llama-3.3-70b-instruct-turbo", "0.88", "0.88"),
        ("openai/gpt-oss-120b", "0.15", "0.6"),
        ("deepseek-ai/deepseek-r1", "3", "7"),
        ("moonshotai/kimi-k2-instruct*", "1", "3"),
        ("qwen/qwen3-coder-480b-a35b-instruct-fp8", "2", "2"),
    ),
    *_list(
        "fireworks-ai",
        "2026-11-24",
        "https://docs.fireworks.ai/serverless/pricing",
        ("accounts/fireworks/models/kimi-k2p6", "0.95", "4", "0.16"),
        ("accounts/fireworks/models/kimi-k2p5", "0.6", "3", "0.1"),
        ("accounts/fireworks/models/deepseek-v4-pro", "1.74", "3.48", "0.145"),
        ("accounts/fireworks/models/deepseek-v3*", "0.56", "1.68", "0.28"),
        ("accounts/fireworks/models/glm-5p1", "1.4", "4.4", "0.26"),
        ("accounts/fireworks/models/gpt-oss-120b", "0.15", "0.6", "0.015"),
        ("accounts/fireworks/models/gpt-oss-20b", "0.07", "0.3", "0.035"),
    ),
    *_list(
        "cohere",
        "2026-11-11",
        "https://docs.flexprice.io/cookbooks/pricing-teardowns/cohere-pricing",
        ("command-r-08-2024", "0.15", "0.6"),
    ),
    *_list(
        "cohere",
        "2026-06-30",
        "https://developer.puter.com/tutorials/cohere-api-pricing/",
        ("command-r7b-12-2024", "0.0375", "0.15"),
    ),
    *_list(
        "cohere",
        "2026-11-24",
        "https://www.getmaxim.ai/bifrost/model-library/provider/cohere",
        ("command-a-03-2025", "2.5", "10"),
        ("command-r-plus-08-2024", "2.5", "10"),
    ),
    *_list(
        "x-ai",
        "2026-11-24",
        "https://docs.x.ai/developers/grok-4-7",
        ("grok-4.7", "2", "6"),
    ),
    *_list(
        "x-ai",
        "2026-11-24",
        "https://raw.githubusercontent.com/github/docs/main/data/tables/copilot/"
        "models-and-pricing.yml",
        ("grok-4.[56]", "2", "6", "0.5"),
    ),
    *_list(
        "x-ai",
        "2026-11-24",
        "https://skills.sh/adaptationio/skrillz/xai-models",
        ("grok-4-1-fast*", "0.2", "0.5"),
        ("grok-4", "3", "15"),
        ("grok-3-mini", "0.3", "0.5"),
    ),
    # In us-east-1; with or without the name of a region before it.
    *_list(
        "bedrock",
        "2026-11-24",
        "https://github.com/trustgraph-ai/trustgraph/blob/master/trustgraph/metering/"
        "pricelist.py",
        ("*anthropic.claude-3-haiku-20240307-v1:0", "0.25", "1.25"),
        ("*anthropic.claude-3-5-sonnet-20240620-v1:0", "3", "15"),
        ("*meta.llama3-1-405b-instruct-v1:0", "5.32", "16"),
        ("*meta.llama3-1-70b-instruct-v1:0", "0.99", "0.99"),
        ("*meta.llama3-1-8b-instruct-v1:0", "0.22", "0.22"),
        ("*mistral.mistral-large-2407-v1:0", "4", "12"),
        ("*cohere.command-r-plus-v1:0", "3", "15"),
    ),
)
