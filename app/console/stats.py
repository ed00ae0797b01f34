"""Sums of slices of time, as the figures that an overview shows. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..store.ledger_queries import UsageTotals, quantile

# Groups that are told apart; all others are one.
_TOLD = 6
OTHERS = "others"
NOBODY = "none"


@dataclass(frozen=True, slots=True)
class Slice:
    """The sums of *seconds* from Unix second *start* on.

    *passed* are those of them that have passed already.
    """

    start: float
    seconds: float
    sums: Sequence[UsageTotals]
    passed: float

    @property
    def minutes(self) -> float:
        """Over which a rate is counted; a slice that has just begun tells little."""
        return max(self.passed, self.seconds / 4) / 60


@dataclass(frozen=True, slots=True)
class Total:
    """The requests of one group. *p50* and *p95* are seconds to the first event."""

    group: str
    requests: int
    failed: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    p50: float | None
    p95: float | None

    @property
    def failing(self) -> float | None:
        """The share that failed; None without requests."""
        return self.failed / self.requests if self.requests else None


def total(sums: Iterable[UsageTotals], group: str = "") -> Total:
    """All *sums* in one."""
    every = list(sums)
    waits: Counter[int] = Counter()
    for each in every:
        waits.update(each.waits)
    return Total(
        group,
        sum(each.requests for each in every),
        sum(each.failed for each in every),
        sum(each.cached for each in every),
        sum(each.prompt_tokens for each in every),
        sum(each.completion_tokens for each in every),
        sum(each.cost for each in every),
        quantile(waits, 0.5),
        quantile(waits, 0.95),
    )


def only(slices: Iterable[Slice], group: str) -> list[Slice]:
    """The same slices with the sums of one *group* alone; of all, if it is empty."""
    if not group:
        return list(slices)
    return [
        replace(each, sums=[s for s in each.sums if (s.group or NOBODY) == group])
        for each in slices
    ]


def by_group(slices: Iterable[Slice]) -> list[Total]:
    """A total for each group, the largest first, and at last those of all others."""
    grouped: defaultdict[str, list[UsageTotals]] = defaultdict(list)
    for each in slices:
        for sums in each.sums:
            grouped[sums.group or NOBODY].append(sums)
    totals = [total(sums, group) for group, sums in grouped.items()]
    totals.sort(key=lambda each: (-each.requests, each.group))
    if len(totals) <= _TOLD:
        return totals
    told = totals[: _TOLD - 1]
    names = {each.group for each in told}
    rest = [s for group, sums in grouped.items() if group not in names for s in sums]
    return [*told, total(rest, OTHERS)]


def per_slice(slices: Iterable[Slice], groups: Sequence[str]) -> list[list[Total]]:
    """Of each slice the totals of *groups*, in their order."""
    return [_split(each, groups) for each in slices]


def _split(within: Slice, groups: Sequence[str]) -> list[Total]:
    grouped: defaultdict[str, list[UsageTotals]] = defaultdict(list)
    for sums in within.sums:
        name = sums.group or NOBODY
        grouped[name if name in groups else OTHERS].append(sums)
    return [total(grouped[group], group) for group in groups]
