"""Statistics of the gaps between events of a stream."""

import pytest

from app.gateway.streaming.gap_stats import GapStats


@pytest.mark.parametrize(
    ("times", "gaps", "longest", "seconds"),
    [
        ([], 0, None, 0),
        ([5], 0, None, 0),
        ([5, 6], 1, 1, 1),
        ([5, 5], 1, 0, 0),
        ([5, 6, 9, 9, 10], 4, 3, 5),
    ],
    ids=str,
)
def test_gaps_are_counted_and_measured(
    times: list[float], gaps: int, longest: float | None, seconds: float
) -> None:
    pace = GapStats()
    for now in times:
        pace.add(now)

    assert (pace.gaps, pace.longest, pace.seconds) == (gaps, longest, seconds)
