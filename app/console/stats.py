"""Totals of ledger entries by time slice and group, for the overview. Pure.

The store's UsageTotals is the only type of sums: one for each group and slice, of which
any number merge into one.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..store.ledger_queries import UsageTotals, merge_totals

# Groups that are shown by name, the last of them for all the others.
# The stylesheet has a colour for each.
_MAX_GROUPS = 6
OTHERS = "others"
# The group of requests without a provider or a key.
NOBODY = "none"


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """The totals of *seconds* from Unix second *start* on, of which *elapsed* are over.

    *groups* has one for each group, in any order.
    """

    start: float
    seconds: float
    elapsed: float
    groups: Sequence[UsageTotals]

    @property
    def minutes(self) -> float:
        """What a rate is divided by. A slice that has just begun would show a wild
        rate, so a quarter of it counts in any case.
        """
        return max(self.elapsed, self.seconds / 4) / 60

    def by_names(self, names: Sequence[str]) -> list[UsageTotals]:
        """The totals of the groups of these *names*, in their order. OTHERS are all
        groups that are not among them.
        """
        parts: defaultdict[str, list[UsageTotals]] = defaultdict(list)
        for each in self.groups:
            parts[each.group if each.group in names else OTHERS].append(each)
        return [merge_totals(parts[name], name) for name in names]


def name_groups(totals: Iterable[UsageTotals]) -> list[UsageTotals]:
    """*totals* of the ledger, with a name for requests without a provider or key."""
    return [replace(each, group=each.group or NOBODY) for each in totals]


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


def largest_groups(slices: Iterable[TimeSlice]) -> list[UsageTotals]:
    """The totals of each group over all *slices*, the largest first.

    Where there are too many, the smallest are merged into OTHERS.
    """
    parts: defaultdict[str, list[UsageTotals]] = defaultdict(list)
    for each in slices:
        for totals in each.groups:
            parts[totals.group].append(totals)
    groups = [merge_totals(totals, group) for group, totals in parts.items()]
    groups.sort(key=lambda each: (-each.requests, each.group))
    if len(groups) <= _MAX_GROUPS:
        return groups
    shown = _MAX_GROUPS - 1
    return [*groups[:shown], merge_totals(groups[shown:], OTHERS)]
