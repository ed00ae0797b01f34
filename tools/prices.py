"""Makes app/core/prices.json: `make prices`.

The prices come from the package genai-prices, which is installed for this alone: its
import takes more than a second and 30 MB, so that no gateway ever imports it. Beside
this file are the two inputs that are written by hand:

- prices_models.json: the release of the package and the day on which it was read, and
  for each provider of the gateway the models that have a price. "models" are names or
  patterns of `fnmatch`. The package is asked for a pattern's name without its
  wildcards, or for the name in "lookups". It also has rows that are out of date, or
  are in no list of the provider itself, hence a model is listed here only after a
  comparison with a second source.
- prices_overrides.json: rows that the package lacks or has wrongly, each with a source
  of its own.

The same inputs make the same bytes, on any day. To add a model, list it and run
`make prices`; to take a new release, change its version here and in setup.cfg, and look
at the lines of prices.json that change.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = HERE.parent / "app" / "core" / "prices.json"

_SOURCE = "https://github.com/pydantic/genai-prices/blob/v{}/prices/providers/{}.yml"

# Text that is billed apart, such as reasoning, would be missing in the cost. Audio and
# images are billed apart, too, but a text completion has none.
_OUTPUTS = re.compile("output_(?!mtok|audio_|image_|video_)")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Package:
    """The prices of genai-prices as they were on the day *read*."""

    providers: Mapping[str, Any]
    version: str
    read: date

    def row(self, package_provider: str, name: str) -> Row | None:
        """Amounts, date and source for a model; None if the package has no price."""
        provider = self.providers[package_provider]
        # As the package does it: Azure's list ends where it sells what OpenAI sells.
        for each in (package_provider, *(provider.fallback_model_providers or ())):
            for model in self.providers[each].models:
                if model.is_match(name):
                    return self._amounts(model) | self._origin(each)
        return None

    def _amounts(self, model: Any) -> Row:
        """The price for short prompts. Raises ValueError if that is not all of it.

        Some prices depend on the time of day. The dearest one is taken, so that a
        budget of money is never overdrawn.
        """
        hours = (datetime.combine(self.read, time(hour), UTC) for hour in range(24))
        prices = [vars(model.get_prices(hour)) for hour in hours]
        amounts = ("input_mtok", "output_mtok")
        if any(price.get(name) is None for price in prices for name in amounts):
            raise ValueError(f"{model.id} has no price for text")
        price = max(prices, key=lambda each: [_base(each[name]) for name in amounts])
        if odd := sorted(key for key in price if price[key] and _OUTPUTS.match(key)):
            raise ValueError(f"{model.id} is billed for {', '.join(odd)}, too")
        cached = price.get("cache_read_mtok")
        return {
            "input": _text(_base(price["input_mtok"])),
            "output": _text(_base(price["output_mtok"])),
            "cached": None if cached is None else _text(_base(cached)),
        }

    def _origin(self, package_provider: str) -> Row:
        file = package_provider.replace("x-ai", "x_ai")
        source = _SOURCE.format(self.version, file)
        return {"read": self.read.isoformat(), "source": source}


def _base(price: Any) -> Decimal:
    """Dollars for a million tokens of a short prompt: some cost more above a length."""
    return Decimal(getattr(price, "base", price))


def _text(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def sample(pattern: str) -> str:
    """The name of a model that fits *pattern*."""
    return pattern.replace("??.", "us.").replace("*", "")


def rows(
    package: Package, providers: Mapping[str, Any], overrides: Sequence[Row]
) -> Iterator[Row]:
    """All rows, unsorted. Raises ValueError if one is missing or is there twice."""
    replaced = {(row["provider"], row["model"]) for row in overrides}
    for override in overrides:
        yield {key: value for key, value in override.items() if key != "note"}
    for provider, listed in providers.items():
        lookups = listed.get("lookups", {})
        for model in [*listed["models"], *lookups]:
            if (provider, model) in replaced:
                raise ValueError(
                    f"{provider}/{model} is overridden, and listed besides"
                )
            name = lookups.get(model) or sample(model)
            row = package.row(listed["package"], name)
            if row is None:
                raise ValueError(f"genai-prices has no price for {provider}/{name}")
            yield {"provider": provider, "model": model} | row


def order(row: Row) -> tuple[str, bool, str]:
    """By provider; full names before patterns, since the first row that fits counts."""
    return row["provider"], bool(re.search(r"[*?[]", row["model"])), row["model"]


def written(all_rows: Iterable[Row]) -> str:
    """The file: one row a line, so that a change of price is a change of one line."""
    lines = []
    for row in sorted(all_rows, key=order):
        kept = {key: value for key, value in row.items() if value is not None}
        lines.append(json.dumps(kept, ensure_ascii=False))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def make() -> str:
    """The text of prices.json, from the package that is installed."""
    from genai_prices.data import providers

    models = json.loads((HERE / "prices_models.json").read_text())
    overrides = json.loads((HERE / "prices_overrides.json").read_text())
    release, installed = models["version"], version("genai-prices")
    if release != installed:
        raise ValueError(f"genai-prices must be {release}, not {installed}")
    read = date.fromisoformat(models["read"])
    package = Package({each.id: each for each in providers}, release, read)
    return written(rows(package, models["providers"], overrides))


if __name__ == "__main__":
    try:
        TARGET.write_text(make())
    except ValueError as e:
        sys.exit(f"prices: {e}")
