"""tools/facts.py, and the facts in tools/facts.csv: whether all that ages has a day."""

from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from app.planning.capabilities import FAMILIES
from app.providers import PROVIDERS, Provider
from tools import facts
from tools.facts import Fact, overdue, read_facts, read_prices

LISTED = list(read_facts(facts.FACTS.read_text().splitlines()))
TODAY = date(2027, 2, 25)


def kind(provider: Provider) -> str:
    if provider.unsupported_because:
        return "unsupported"
    return "retired" if provider.retired_because else "host"


# The file


def test_each_model_family_has_fact() -> None:
    listed = [fact.name for fact in LISTED if fact.kind == "models"]

    assert listed == [family.name for family in FAMILIES]


def test_each_provider_has_fact() -> None:
    """By what it is, so that a host that closes needs a new line, and a new day."""
    listed = Counter((f.kind, f.name) for f in LISTED if f.kind != "models")
    declared = Counter((kind(p), p.name) for p in PROVIDERS.values() if not p.embedded)

    assert listed == declared


@pytest.mark.parametrize("fact", LISTED, ids=lambda fact: f"{fact.kind} {fact.name}")
def test_fact_has_source_and_day(fact: Fact) -> None:
    assert fact.fact and fact.source.startswith("https://")
    assert fact.verified >= date(2026, 11, 24)


# The command


def fact(name: str, verified: str) -> Fact:
    return Fact("host", name, "", (), date.fromisoformat(verified), "https://docs")


def test_overdue_facts_are_oldest_first() -> None:
    listed = [
        fact("new", "2026-11-28"),
        fact("ninety days", "2026-11-27"),
        fact("a day more", "2026-11-26"),
        fact("old", "2026-01-01"),
    ]

    assert [each.name for each in overdue(listed, TODAY)] == ["old", "a day more"]
    assert len(overdue(listed, TODAY, days=30)) == 4


def test_prices_are_grouped_by_day() -> None:
    document = """[
        {"provider": "a", "read": "2026-11-27", "source": "https://a"},
        {"provider": "a", "read": "2026-11-27", "source": "https://a"},
        {"provider": "a", "read": "2026-11-05", "source": "https://a"}
    ]"""

    assert [(f.name, f.fact, f.verified.day) for f in read_prices(document)] == [
        ("a", "2 models", 27),
        ("a", "1 models", 5),
    ]


HEADER = "kind,name,fact,examples,verified,source\n"
LINE = "host,example,in service,,2026-11-26,https://docs.example.com/\n"


@pytest.mark.parametrize(
    "arguments, status, is_listed",
    [
        (["--today", "2027-02-24"], 0, False),
        (["--today", "2027-02-25"], 0, True),
        (["--today", "2027-02-25", "--check"], 1, True),
        (["--today", "2027-02-24", "--check"], 0, False),
        (["--today", "2026-12-27", "--days", "30"], 0, True),
    ],
)
def test_command_lists_overdue_facts(
    arguments: list[str],
    status: int,
    is_listed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "facts.csv").write_text(HEADER + LINE)
    (tmp_path / "prices.json").write_text("[]")
    monkeypatch.setattr(facts, "FACTS", tmp_path / "facts.csv")
    monkeypatch.setattr(facts, "PRICES", tmp_path / "prices.json")

    assert facts.main(arguments) == status
    output = capsys.readouterr().out
    assert ("https://docs.example.com/" in output) == is_listed
    assert f"{int(is_listed)} of 1 facts" in output


def test_wrong_day_is_an_error() -> None:
    with pytest.raises(ValueError, match="27.11.2026"):
        list(
            read_facts((HEADER + LINE.replace("2026-11-26", "27.11.2026")).split("\n"))
        )
