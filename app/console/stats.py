"""Totals of ledger entries by time slice and group, for the overview. Pure.

The only type of sums is the store's UsageTotals, one for each group and slice. Any
number of them can be merged into one, percentiles included, as they hold histograms.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..store.ledger_queries import UsageTotals, merge_totals

# Groups in a plot; with more, the last one stands for the rest. The stylesheet has a
# colour for each, .c0 to .c5.
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
        """The divisor of rates a minute.

        A quarter of the slice at least: one request in a slice that began a second ago
        would else be shown as 60 a minute.
        """
        return max(self.elapsed, self.seconds / 4) / 60

    def by_names(self, names: Sequence[str]) -> list[UsageTotals]:
        """The totals of the groups of these *names*, in their order; OTHERS are the
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
    # By name where counts are equal, so that colours do not change with each reload.
    groups.sort(key=lambda each: (-each.requests, each.group))
    if len(groups) <= _MAX_GROUPS:
        return groups
    shown = _MAX_GROUPS - 1
    return [*groups[:shown], merge_totals(groups[shown:], OTHERS)]
