"""What tokens cost, as data; and the cost of a request.

List prices in US dollars for a million tokens, without discounts, surcharges for long
prompts, writes into a provider's cache, taxes. They are a help to keep a budget, and no
invoice. An operator's own prices come first. Where the price of a model is not known,
there is none.

To add a row: a provider as in `PROVIDERS`, a model as it is asked for (a pattern of
`fnmatch`), and where and when the price was read. The first row that fits counts. A
name with a date, or with a version as Bedrock and Vertex write it, needs a row of its
own only where its price is another one.

Where a provider's own page could not be read, two tables that are kept up had to say
the same: mostly LiteLLM's, of its release 1.110.2, and genai-prices', of 0.2.3.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any

from .completion import Usage
from .memory import remembered

_MILLION = 1_000_000

# A model's name goes on in what only says when it was made, or which build it is.
_DATED = re.compile(r"([-@](20\d\d-?\d\d-?\d\d|default))?(-v\d+:\d+)?$")


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens of a model.

    *cached* is for tokens of the prompt that the provider had in its cache; None where
    they cost as much as others. *model* and *provider* are patterns of `fnmatch`.
    *read* is the day of which the source speaks; if it names none, on which it was
    read.
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
            (usage.prompt_tokens - cached + usage.repeated_tokens) * self.input
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
    """The price of a model, by its full name, else by that without date and version."""
    return _found(provider, model, overrides) or _listed(model, provider)


@remembered
def _listed(model: str, provider: str) -> Price | None:
    return _found(provider, model, PRICES)


def _found(provider: str, model: str, table: Sequence[Price]) -> Price | None:
    if not table:
        return None
    name = model.lower()
    names = (name, _DATED.sub("", name))
    rows = ((name, row) for name in names for row in table)
    return next((row for name, row in rows if row.fits(provider, name)), None)


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


def _list(providers: str, read: str, source: str, *rows: _Row) -> Iterable[Price]:
    """The same prices at each of *providers*, which spaces part."""
    for provider in providers.split():
        for model, *amounts in rows:
            input, output, *cached = map(Decimal, amounts)
            rest = (cached[0] if cached else None, date.fromisoformat(read), source)
            yield Price(provider, model, input, output, *rest)


_LITELLM = (
    "https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json"
)


PRICES: tuple[Price, ...] = (
    # On Azure where a deployment bears the name of its model, in the global location.
    # Prompts of more than 272,000 tokens cost more from gpt-5.4 on.
    *_list(
        "openai azure-openai",
        "2026-11-24",
        _LITELLM,
        ("gpt-6.1-sol", "2", "10", "0.1"),
        ("gpt-6.1-terra", "1", "5", "0.05"),
        ("gpt-6-astra", "10", "50", "1"),
        ("gpt-6-sol", "2", "10", "0.2"),
        ("gpt-6-luna", "0.1", "0.5", "0.01"),
        ("gpt-5.6", "4", "20", "0.4"),
        ("gpt-5.6-sol", "4", "20", "0.4"),
        ("gpt-5.6-terra", "2", "12", "0.2"),
        ("gpt-5.6-luna", "0.2", "1.2", "0.02"),
        ("gpt-5.5", "5", "30", "0.5"),
        ("gpt-5.4", "2.5", "15", "0.25"),
        ("gpt-5.4-mini", "0.75", "4.5", "0.075"),
        ("gpt-5.4-nano", "0.2", "1.25", "0.02"),
        ("gpt-5.2", "1.75", "14", "0.175"),
        ("gpt-5.1", "1.25", "10", "0.125"),
        ("gpt-5", "1.25", "10", "0.125"),
        ("gpt-5-mini", "0.25", "2", "0.025"),
        ("gpt-5-nano", "0.05", "0.4", "0.005"),
        ("gpt-4.1", "2", "8", "0.5"),
        ("gpt-4.1-mini", "0.4", "1.6", "0.1"),
        ("gpt-4.1-nano", "0.1", "0.4", "0.025"),
        ("gpt-4o-2024-05-13", "5", "15"),
        ("gpt-4o", "2.5", "10", "1.25"),
        ("gpt-4o-mini", "0.15", "0.6", "0.075"),
        ("o4-mini", "1.1", "4.4", "0.275"),
        ("o3", "2", "8", "0.5"),
        ("o3-mini", "1.1", "4.4", "0.55"),
        ("o1", "15", "60", "7.5"),
    ),
    *_list(
        "openai",
        "2026-11-24",
        _LITELLM,
        ("gpt-5.5-pro", "30", "180"),
        ("gpt-5.4-pro", "30", "180"),
        ("gpt-5.3-codex", "1.75", "14", "0.175"),
        ("gpt-5.2-pro", "21", "168"),
        ("gpt-5-pro", "15", "120"),
        ("o3-pro", "20", "80"),
        ("gpt-4-turbo", "10", "30"),
        ("gpt-4", "30", "60"),
        ("gpt-4-0613", "30", "60"),
        ("gpt-3.5-turbo", "0.5", "1.5"),
        ("gpt-3.5-turbo-0125", "0.5", "1.5"),
        ("gpt-3.5-turbo-1106", "1", "2"),
        ("gpt-3.5-turbo-instruct*", "1.5", "2"),
        ("davinci-002", "2", "2"),
        ("babbage-002", "0.4", "0.4"),
    ),
    # On Vertex in the global location; others cost a tenth more.
    *_list(
        "anthropic vertex-ai",
        "2026-11-24",
        "https://platform.claude.com/docs/about-claude/models/whats-new-opus-5",
        ("*claude-opus-5-5", "4", "20", "0.2"),
        ("*claude-sonnet-5-5", "2", "10", "0.1"),
        # For prompts of up to 100,000 tokens; longer ones cost five times as much.
        ("*claude-haiku-5-5", "0.1", "0.5", "0.01"),
    ),
    *_list(
        "anthropic vertex-ai",
        "2026-11-24",
        "https://platform.claude.com/docs/en/models/opus-5/overview",
        ("*claude-sonnet-5", "2", "10", "0.2"),
    ),
    *_list(
        "anthropic vertex-ai",
        "2026-11-24",
        "https://platform.claude.com/docs/en/about-claude/pricing",
        ("*claude-fable-5-1", "10", "50", "0.25"),
        ("*claude-fable-5", "10", "50", "1"),
        ("*claude-opus-5", "5", "25", "0.5"),
        ("*claude-opus-4-[5678]", "5", "25", "0.5"),
        ("*claude-opus-4-1", "15", "75", "1.5"),
        ("*claude-opus-4", "15", "75", "1.5"),
        ("*claude-sonnet-4-[56]", "3", "15", "0.3"),
        ("*claude-sonnet-4", "3", "15", "0.3"),
        ("*claude-haiku-4-5", "1", "5", "0.1"),
    ),
    *_list(
        "anthropic",
        "2026-11-24",
        "https://platform.claude.com/docs/en/about-claude/pricing",
        ("claude-3-7-sonnet*", "3", "15", "0.3"),
        ("claude-3-5-haiku*", "0.8", "4", "0.08"),
        ("claude-3-haiku", "0.25", "1.25", "0.03"),
    ),
    *_list(
        "anthropic vertex-ai",
        "2026-11-24",
        "https://github.com/pydantic/genai-prices/blob/main/prices/providers/"
        "anthropic.yml",
        ("*claude-fable-5-2", "8", "40", "0.2"),
    ),
    # Prompts of more than 200,000 tokens cost more for a model that is called pro.
    *_list(
        "google vertex-ai",
        "2026-11-24",
        _LITELLM,
        # Twice as much from 2027 on.
        ("*gemini-3.[678]-flash", "0.75", "3.75", "0.075"),
        ("*gemini-3.5-flash", "1.5", "9", "0.15"),
        ("*gemini-3.5-flash-lite", "0.3", "2.5", "0.03"),
        ("*gemini-3.1-pro-preview", "2", "12", "0.2"),
        ("*gemini-3.1-flash-lite", "0.25", "1.5", "0.025"),
        ("*gemini-3-flash-preview", "0.5", "3", "0.05"),
        ("*gemini-2.5-pro", "1.25", "10", "0.125"),
        ("*gemini-2.5-flash", "0.3", "2.5", "0.03"),
        ("*gemini-2.5-flash-lite", "0.1", "0.4", "0.01"),
    ),
    # From December 2026 on; half of it before.
    *_list(
        "google",
        "2026-11-24",
        "https://github.com/BerriAI/litellm/discussions/46238",
        ("*gemini-4-argon", "4", "20", "0.2"),
    ),
    *_list(
        "mistral-ai",
        "2026-11-24",
        _LITELLM,
        ("codestral-latest", "0.3", "0.9", "0.03"),
        ("codestral-2508", "0.3", "0.9", "0.03"),
        ("mistral-large-4", "0.7", "2.1", "0.07"),
        ("mistral-large-4-0", "0.7", "2.1", "0.07"),
        ("mistral-large-latest", "0.5", "1.5", "0.05"),
        ("mistral-large-2512", "0.5", "1.5", "0.05"),
        ("mistral-medium-latest", "1.5", "7.5", "0.15"),
        ("mistral-medium-3[-.]5", "1.5", "7.5", "0.15"),
        ("mistral-medium-2604", "1.5", "7.5", "0.15"),
        ("mistral-small-latest", "0.15", "0.6", "0.015"),
        ("mistral-small-2603", "0.15", "0.6", "0.015"),
        ("ministral-14b-2512", "0.2", "0.2", "0.02"),
        ("ministral-8b-2512", "0.15", "0.15", "0.015"),
        ("ministral-8b-latest", "0.15", "0.15", "0.015"),
        ("ministral-3b-2512", "0.1", "0.1", "0.01"),
        ("pixtral-large-latest", "2", "6"),
    ),
    # Its prices of peak hours, which are twice those of others.
    *_list(
        "deepseek",
        "2026-11-24",
        "https://api-docs.deepseek.com/quick_start/pricing/",
        ("deepseek-flash", "0.3", "1.2", "0.006"),
        ("deepseek-v4-flash", "0.3", "1.2", "0.006"),
        ("deepseek-v4-pro", "1.32", "3.96", "0.044"),
    ),
    *_list(
        "groq",
        "2026-11-24",
        _LITELLM,
        ("openai/gpt-oss-120b", "0.15", "0.6", "0.075"),
        ("openai/gpt-oss-20b", "0.075", "0.3", "0.0375"),
        ("qwen/qwen3.8-27b", "0.8", "4"),
    ),
    *_list(
        "together-ai",
        "2026-11-24",
        _LITELLM,
        ("openai/gpt-oss-120b", "0.15", "0.6"),
        ("deepseek-ai/deepseek-v4-pro-0813", "1.32", "3.96", "0.13"),
        ("deepseek-ai/deepseek-v4.1-flash", "0.3", "1.2", "0.006"),
        ("deepseek-ai/deepseek-v4.1-flash-1017", "0.3", "1.2", "0.006"),
        ("minimaxai/minimax-m3", "0.3", "1.2", "0.06"),
        ("minimaxai/minimax-m3.1-flash", "0.15", "0.6", "0.015"),
        ("moonshotai/kimi-k3", "3", "15", "0.3"),
        ("moonshotai/kimi-k3.1-pro", "2", "10", "0.2"),
        ("qwen/qwen3.5-9b", "0.17", "0.25"),
        ("zai-org/glm-5.[23]", "1.4", "4.4", "0.26"),
        ("zai-org/glm-5.3-flash", "0.15", "0.5", "0.03"),
    ),
    *_list(
        "fireworks-ai",
        "2026-11-24",
        "https://docs.fireworks.ai/serverless/pricing",
        ("accounts/fireworks/models/kimi-k2p6", "0.95", "4", "0.16"),
        ("accounts/fireworks/models/kimi-k2p5", "0.6", "3", "0.1"),
        ("accounts/fireworks/models/deepseek-v3p[12]", "0.56", "1.68", "0.28"),
        ("accounts/fireworks/models/glm-5p1", "1.4", "4.4", "0.26"),
        ("accounts/fireworks/models/gpt-oss-120b", "0.15", "0.6", "0.015"),
        ("accounts/fireworks/models/gpt-oss-20b", "0.07", "0.3", "0.035"),
    ),
    *_list(
        "fireworks-ai",
        "2026-11-24",
        _LITELLM,
        ("accounts/fireworks/models/deepseek-v4p1-flash", "0.3", "1.2", "0.006"),
        ("accounts/fireworks/models/deepseek-v4p1-flash-1017", "0.3", "1.2", "0.006"),
        ("accounts/fireworks/models/glm-5p2", "1.4", "4.4", "0.14"),
        ("accounts/fireworks/models/glm-5p3", "1.4", "4.4", "0.26"),
        ("accounts/fireworks/models/glm-5p3-flash", "0.15", "0.5", "0.03"),
        ("accounts/fireworks/models/kimi-k3", "3", "15", "0.3"),
        ("accounts/fireworks/models/kimi-k3p1-pro", "2", "10", "0.2"),
        ("accounts/fireworks/models/minimax-m3", "0.3", "1.2", "0.06"),
        ("accounts/fireworks/models/qwen3p7-plus", "0.4", "1.6", "0.08"),
        ("accounts/fireworks/models/qwen3p8-max", "2", "6", "0.25"),
    ),
    *_list(
        "cohere",
        "2026-11-24",
        _LITELLM,
        ("command-a-03-2025", "2.5", "10"),
        ("command-r-plus-08-2024", "2.5", "10"),
        ("command-r-08-2024", "0.15", "0.6"),
        ("command-r7b-12-2024", "0.0375", "0.15"),
    ),
    # Prompts of 200,000 tokens and more cost twice as much.
    *_list(
        "x-ai",
        "2026-11-24",
        _LITELLM,
        ("grok-4.[67]", "2", "6", "0.5"),
        ("grok-4.5", "2", "6", "0.3"),
        ("grok-4.3", "1.25", "2.5", "0.2"),
        ("grok-4.20", "1.25", "2.5", "0.2"),
        ("grok-build-0.1", "1", "2", "0.2"),
    ),
    # Without what a search costs.
    *_list(
        "perplexity-ai",
        "2026-11-24",
        "https://docs.perplexity.ai/getting-started/pricing",
        ("sonar", "1", "1"),
        ("sonar-pro", "3", "15"),
        ("sonar-reasoning-pro", "2", "8"),
    ),
    *_list(
        "cerebras",
        "2026-11-24",
        _LITELLM,
        ("gpt-oss-120b", "0.35", "0.75"),
        ("qwen-3.8-27b", "0.99", "1.49"),
    ),
    *_list(
        "deepinfra",
        "2026-11-05",
        "https://huggingface.co/datasets/hundredthrun/gpu-cloud-prices",
        ("meta-llama/llama-3.3-70b-instruct-turbo", "0.1", "0.32"),
        ("meta-llama/llama-4-scout-17b-16e-instruct", "0.1", "0.3"),
        ("meta-llama/meta-llama-3.1-70b-instruct-turbo", "0.4", "0.4"),
        ("meta-llama/meta-llama-3.1-8b-instruct-turbo", "0.02", "0.04"),
    ),
    *_list(
        "moonshot",
        "2026-11-24",
        _LITELLM,
        ("kimi-k3.1-pro", "2", "10", "0.2"),
        ("kimi-k3", "3", "15", "0.3"),
        ("kimi-k2.7-code", "0.95", "4", "0.19"),
        ("kimi-k2.6", "0.95", "4", "0.16"),
    ),
    *_list(
        "z-ai",
        "2026-11-24",
        _LITELLM,
        ("glm-5.[123]", "1.4", "4.4", "0.26"),
        ("glm-5.3-flash", "0.15", "0.5", "0.03"),
        ("glm-5", "1", "3.2", "0.2"),
        ("glm-4.[67]", "0.6", "2.2", "0.11"),
    ),
    # Newer models of Anthropic cost a tenth more in the name of a region (`us.`) than
    # in that of the world.
    *_list(
        "bedrock",
        "2026-11-24",
        _LITELLM,
        ("global.anthropic.claude-opus-5-5", "4", "20", "0.2"),
        ("global.anthropic.claude-opus-5", "5", "25", "0.5"),
        ("global.anthropic.claude-opus-4-[578]", "5", "25", "0.5"),
        ("global.anthropic.claude-opus-4-6-v1", "5", "25", "0.5"),
        ("global.anthropic.claude-sonnet-5-5", "2", "10", "0.1"),
        ("global.anthropic.claude-sonnet-5", "2", "10", "0.2"),
        ("global.anthropic.claude-sonnet-4-[56]", "3", "15", "0.3"),
        ("global.anthropic.claude-haiku-5-5", "0.1", "0.5", "0.01"),
        ("global.anthropic.claude-haiku-4-5", "1", "5", "0.1"),
        ("??.anthropic.claude-opus-5-5", "4.4", "22", "0.22"),
        ("??.anthropic.claude-opus-5", "5.5", "27.5", "0.55"),
        ("??.anthropic.claude-opus-4-[578]", "5.5", "27.5", "0.55"),
        ("??.anthropic.claude-opus-4-6-v1", "5.5", "27.5", "0.55"),
        ("??.anthropic.claude-sonnet-5-5", "2.2", "11", "0.11"),
        ("??.anthropic.claude-sonnet-5", "2.2", "11", "0.22"),
        ("??.anthropic.claude-sonnet-4-[56]", "3.3", "16.5", "0.33"),
        ("??.anthropic.claude-haiku-5-5", "0.11", "0.55", "0.011"),
        ("??.anthropic.claude-haiku-4-5", "1.1", "5.5", "0.11"),
    ),
    # In us-east-1, with or without the name of a region before it.
    *_list(
        "bedrock",
        "2026-11-24",
        _LITELLM,
        ("*anthropic.claude-opus-4-1", "15", "75", "1.5"),
        ("*anthropic.claude-opus-4", "15", "75", "1.5"),
        ("*anthropic.claude-sonnet-4", "3", "15", "0.3"),
        ("*anthropic.claude-3-5-haiku", "0.8", "4", "0.08"),
        ("us.amazon.nova-2-lite", "0.33", "2.75", "0.0825"),
        ("global.amazon.nova-2-lite", "0.3", "2.5", "0.075"),
        ("amazon.nova-pro", "0.8", "3.2", "0.2"),
        ("amazon.nova-lite", "0.06", "0.24", "0.015"),
        ("amazon.nova-micro", "0.035", "0.14", "0.00875"),
        ("us.amazon.nova-pro", "0.8", "3.2", "0.2"),
        ("us.amazon.nova-lite", "0.06", "0.24", "0.015"),
        ("us.amazon.nova-micro", "0.035", "0.14", "0.00875"),
        ("*meta.llama4-maverick-17b-instruct", "0.24", "0.97"),
        ("*meta.llama4-scout-17b-instruct", "0.17", "0.66"),
        ("*meta.llama3-[13]-70b-instruct", "0.72", "0.72"),
        ("*meta.llama3-1-8b-instruct", "0.22", "0.22"),
        ("*mistral.mistral-large-3-675b-instruct", "0.5", "1.5"),
        ("*deepseek.r1", "1.35", "5.4"),
        ("*qwen.qwen3-32b", "0.15", "0.6"),
        ("*qwen.qwen3-coder-30b-a3b", "0.15", "0.6"),
        ("*qwen.qwen3-coder-480b-a35b", "0.45", "1.8"),
        # Dearer in the regions of the government (`us-gov.`).
        ("anthropic.claude-3-[57]-sonnet", "3", "15", "0.3"),
        ("??.anthropic.claude-3-[57]-sonnet", "3", "15", "0.3"),
        ("anthropic.claude-3-haiku", "0.25", "1.25"),
        ("??.anthropic.claude-3-haiku", "0.25", "1.25"),
        ("openai.gpt-oss-120b-1:0", "0.15", "0.6"),
        ("openai.gpt-oss-20b-1:0", "0.07", "0.3"),
    ),
)
"""What requests cost."""
