"""tools/prices.py, and the list of prices that it makes."""

import configparser
import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.prices import PRICES, prices
from tools.prices import HERE, TARGET, Package, make, order, rows, sample, written

ROOT = Path(__file__).parent.parent
LIST = json.loads(TARGET.read_text())
MODELS = json.loads((HERE / "prices_models.json").read_text())
OVERRIDES = json.loads((HERE / "prices_overrides.json").read_text())
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


# The files


def test_price_list_is_valid_and_sorted() -> None:
    assert prices(LIST) == PRICES
    assert LIST == sorted(LIST, key=order)
    assert TARGET.read_text() == written(LIST)


def test_each_price_has_source_and_date() -> None:
    assert all(row["source"] and row["read"] for row in [*LIST, *OVERRIDES])


def test_price_list_covers_its_inputs() -> None:
    listed = {
        (provider, model)
        for provider, each in MODELS["providers"].items()
        for model in [*each["models"], *each.get("lookups", {})]
    }
    overridden = {(row["provider"], row["model"]) for row in OVERRIDES}
    rows = {(row["provider"], row["model"]): row for row in LIST}

    assert rows.keys() == listed | overridden
    assert all(f"/v{MODELS['version']}/" in rows[name]["source"] for name in listed)
    for override in OVERRIDES:
        row = rows[override["provider"], override["model"]]
        assert row == {k: v for k, v in override.items() if k != "note"}


def test_price_patterns_do_not_overlap() -> None:
    """Otherwise their order would decide, and they are sorted alphabetically."""
    for row in LIST:
        model = sample(row["model"])
        same = [each for each in LIST if each["provider"] == row["provider"]]
        fits = [each["model"] for each in same if fnmatchcase(model, each["model"])]

        assert fits == [row["model"]]


def test_package_release_is_pinned_once() -> None:
    extra = SETUP["options.extras_require"]["prices"].split()

    assert extra == [f"genai-prices=={MODELS['version']}"]


def test_data_files_are_packaged() -> None:
    """Files that setup.cfg does not list are missing in an installed package."""
    patterns = [
        f"{package.replace('.', '/')}/{pattern.strip()}"
        for package, listed in SETUP["options.package_data"].items()
        for pattern in listed.split(",")
    ]
    names = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "app").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]

    assert "app/core/prices.json" in names
    assert [n for n in names if not any(fnmatchcase(n, p) for p in patterns)] == []


def test_price_list_matches_the_package() -> None:
    pytest.importorskip("genai_prices", reason="genai-prices is not installed")

    assert make() == TARGET.read_text()


# Making the list


class Model:
    """A model of genai-prices: its *prices* by their first hour."""

    def __init__(self, id: str, prices: Mapping[int, Mapping[str, Any]]) -> None:
        self.id = id
        self.prices = prices

    def is_match(self, name: str) -> bool:
        return name == self.id

    def get_prices(self, at: datetime) -> SimpleNamespace:
        hour = max(hour for hour in self.prices if hour <= at.hour)
        return SimpleNamespace(**self.prices[hour])


def package(*models: Model, **others: Model) -> Package:
    """A package with *models* of one provider, which also sells models of others."""
    providers = {"one": SimpleNamespace(models=models, fallback_model_providers=[])}
    for name, model in others.items():
        providers["one"].fallback_model_providers.append(name)
        providers[name] = SimpleNamespace(models=[model], fallback_model_providers=None)
    return Package(providers, "1.2", date(2026, 11, 27))


PLAIN = {"input_mtok": Decimal("2.50"), "output_mtok": Decimal(10)}
LISTED = {"mine": {"package": "one", "models": ["m"]}}
OWN = {"provider": "mine", "model": "m", "input": "1", "output": "2"}


def test_row_has_source_and_date() -> None:
    tiered = SimpleNamespace(base=Decimal("0.25"), tiers=[])
    model = Model("m", {0: PLAIN | {"cache_read_mtok": tiered}})
    listed = {"mine": {"package": "one", "models": [], "lookups": {"*n": "m"}}}

    assert list(rows(package(model), listed, [])) == [
        {
            "provider": "mine",
            "model": "*n",
            "input": "2.5",
            "output": "10",
            "cached": "0.25",
            "read": "2026-11-27",
            "source": "https://github.com/pydantic/genai-prices/blob/v1.2/prices/"
            "providers/one.yml",
        }
    ]


def test_row_uses_fallback_provider() -> None:
    (row,) = rows(
        package(Model("k", {0: PLAIN}), two=Model("m", {0: PLAIN})), LISTED, []
    )

    assert row["source"].endswith("/two.yml")


def test_row_has_the_dearest_hour() -> None:
    peak = PLAIN | {"output_mtok": Decimal(20)}
    (row,) = rows(package(Model("m", {0: PLAIN, 6: peak, 10: PLAIN})), LISTED, [])

    assert row["output"] == "20"


@pytest.mark.parametrize(
    ("models", "overrides", "problem"),
    [
        ([], [], "no price for mine/m"),
        (
            [Model("m", {0: PLAIN | {"output_reasoning_mtok": 3}})],
            [],
            "billed for output",
        ),
        ([Model("m", {0: {"input_mtok": 1}})], [], "m has no price for text"),
        ([Model("m", {0: PLAIN})], [OWN], "mine/m is overridden, and listed besides"),
    ],
    ids=["missing", "billed for more", "embedding", "twice"],
)
def test_odd_price_rows_are_refused(
    models: list[Model], overrides: list[dict[str, str]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        list(rows(package(*models), LISTED, overrides))


def test_price_list_has_full_names_first() -> None:
    names = ["a*", "b", "??.a"]
    text = written(OWN | {"model": name, "note": None} for name in names)

    assert [row["model"] for row in json.loads(text)] == ["b", "??.a", "a*"]
