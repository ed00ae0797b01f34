"""Totals of ledger entries by time slice and group, for the overview. Pure.

`GroupTotals` is the only type of sums here: the rows of the ledger become one for each
group and slice, and any number of them merge into one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..store.ledger_queries import LedgerSums, wait_of

# Groups that are shown by name, the last of them for all the others.
# The stylesheet has a colour for each.
_MAX_GROUPS = 6
OTHERS = "others"
# The group of requests without a provider or a key.
NOBODY = "none"


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """The requests of one group. *cost* is in US dollars.

    *waits* counts requests by how long they waited for their first event, in the steps
    of `wait_of`. A histogram can be merged, which percentiles cannot.
    """

    group: str = ""
    requests: int = 0
    failed: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    waits: Mapping[int, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def failure_rate(self) -> float | None:
        """The share that failed; None without requests."""
        return self.failed / self.requests if self.requests else None

    @property
    def p50(self) -> float | None:
        """Seconds to the first event."""
        return quantile(self.waits, 0.5)

    @property
    def p95(self) -> float | None:
        """Seconds to the first event."""
        return quantile(self.waits, 0.95)


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """The totals of *seconds* from Unix second *start* on, of which *elapsed* are over.

    *groups* has one for each group, in any order.
    """

    start: float
    seconds: float
    elapsed: float
    groups: Sequence[GroupTotals]

    @property
    def minutes(self) -> float:
        """What a rate is divided by. A slice that has just begun would show a wild
        rate, so a quarter of it counts in any case.
        """
        return max(self.elapsed, self.seconds / 4) / 60

    def by_names(self, names: Sequence[str]) -> list[GroupTotals]:
        """The totals of the groups of these *names*, in their order. OTHERS are all
        groups that are not among them.
        """
        parts: defaultdict[str, list[GroupTotals]] = defaultdict(list)
        for each in self.groups:
            parts[each.group if each.group in names else OTHERS].append(each)
        return [merge(parts[name], name) for name in names]


def merge(totals: Iterable[GroupTotals], group: str = "") -> GroupTotals:
    """All *totals* as one, of that *group*."""
    parts = list(totals)
    waits: Counter[int] = Counter()
    for part in parts:
        waits.update(part.waits)
    return GroupTotals(
        group,
        sum(part.requests for part in parts),
        sum(part.failed for part in parts),
        sum(part.cached for part in parts),
        sum(part.prompt_tokens for part in parts),
        sum(part.completion_tokens for part in parts),
        sum(part.cost for part in parts),
        waits,
    )


def group_totals(rows: Iterable[LedgerSums]) -> list[GroupTotals]:
    """The totals of each group in *rows*, which the ledger also divides by wait."""
    parts: defaultdict[str, list[GroupTotals]] = defaultdict(list)
    for row in rows:
        group = row.group or NOBODY
        parts[group].append(
            GroupTotals(
                group,
                row.requests,
                row.failed,
                row.cached,
                row.prompt_tokens,
                row.completion_tokens,
                row.cost,
                {} if row.wait is None else {row.wait: row.requests},
            )
        )
    return [merge(totals, group) for group, totals in parts.items()]


def quantile(waits: Mapping[int, int], share: float) -> float | None:
    """The seconds within which that *share* of *waits* was over, within 5 percent.

    The middle of the step in which it lies. None without waits.
    """
    # Each step is a tenth longer than the one before, so its middle is at most 5
    # percent away from any wait in it.
    rest = share * sum(waits.values())
    for step in sorted(waits):
        rest -= waits[step]
        if rest <= 0:
            return wait_of(step + 0.5)
    return None


def only_group(slices: Iterable[TimeSlice], group: str) -> list[TimeSlice]:
    """*slices* with the totals of one *group* alone; unchanged if it is empty."""
    if not group:
        return list(slices)
    return [
        TimeSlice(
            each.start,
            each.seconds,
            each.elapsed,
            [totals for totals in each.groups if totals.group == group],
        )
        for each in slices
    ]


def largest_groups(slices: Iterable[TimeSlice]) -> list[GroupTotals]:
    """The totals of each group over all *slices*, the largest first.

    Where there are too many, the smallest are merged into OTHERS.
    """
    parts: defaultdict[str, list[GroupTotals]] = defaultdict(list)
    for each in slices:
        for totals in each.groups:
            parts[totals.group].append(totals)
    groups = [merge(totals, group) for group, totals in parts.items()]
    groups.sort(key=lambda each: (-each.requests, each.group))
    if len(groups) <= _MAX_GROUPS:
        return groups
    shown = _MAX_GROUPS - 1
    return [*groups[:shown], merge(groups[shown:], OTHERS)]
