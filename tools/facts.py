"""Lists the facts that have not been looked up for 90 days: `make facts`.

facts.csv has a line for each family of models in app/planning/capabilities.py, and for
each provider in app/providers: what is relied on, the day on which that was looked up,
and where. A family's line also has spellings of its models at several hosts. A test
holds the lines against the code. Prices have days of their own, in
app/core/prices.json, and are listed with the rest.

When a fact was looked up again, write the day into its line, whether the fact has
changed or not. A day is that of a look at the source, not that of an edit.
"""

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

FACTS = Path(__file__).parent / "facts.csv"
PRICES = Path(__file__).parent.parent / "app" / "core" / "prices.json"
DAYS = 90


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of facts.csv, or the prices of a provider that were read on one day.

    *kind* is models, host, retired, unsupported, or prices; *examples* are names of
    models that the fact is about.
    """

    kind: str
    name: str
    fact: str
    examples: Sequence[str]
    verified: date
    source: str


def read_facts(lines: Iterable[str]) -> Iterator[Fact]:
    """The facts in the *lines* of a CSV file. Raises ValueError for a wrong day."""
    for row in csv.DictReader(lines):
        yield Fact(
            row["kind"],
            row["name"],
            row["fact"],
            row["examples"].split(),
            date.fromisoformat(row["verified"]),
            row["source"],
        )


def read_prices(document: str) -> Iterator[Fact]:
    """The prices in the JSON of prices.json, by provider, day and source."""
    keys = ("provider", "read", "source")
    groups = Counter(tuple(row[key] for key in keys) for row in json.loads(document))
    for (provider, read, source), models in groups.items():
        day = date.fromisoformat(read)
        yield Fact("prices", provider, f"{models} models", (), day, source)


def overdue(facts: Iterable[Fact], today: date, days: int = DAYS) -> list[Fact]:
    """The facts that were looked up more than *days* before *today*, oldest first."""
    old = (fact for fact in facts if (today - fact.verified).days > days)
    return sorted(old, key=lambda fact: fact.verified)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the overdue facts. The exit status is 1 if --check is set and one is."""
    parser = argparse.ArgumentParser(prog="make facts", description=__doc__)
    parser.add_argument("--days", type=int, default=DAYS)
    parser.add_argument("--today", type=date.fromisoformat, default=date.today())
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    lines = FACTS.read_text().splitlines()
    facts = [*read_facts(lines), *read_prices(PRICES.read_text())]
    old = overdue(facts, options.today, options.days)
    for fact in old:
        print(f"{fact.verified}  {fact.kind:11}  {fact.name:25}  {fact.source}")
    print(f"{len(old)} of {len(facts)} facts are older than {options.days} days.")
    return 1 if old and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
