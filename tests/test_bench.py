"""The report of the benchmark."""

from pathlib import Path

import pytest

from bench import report
from bench.many_streams import ManyStreams
from bench.report import Results

WHOLE, STREAM = "whole, 32 connections", "stream, 100 connections"
RESULTS: Results = {
    (WHOLE, "cpu", "lastword"): [3.0, 1.0, 2.0],
    (WHOLE, "cpu", "portkey"): [6.0, 1.0, 8.0],
    (WHOLE, "p50", "direct"): [0.5, 0.5, 0.5],
    (WHOLE, "p50", "lastword"): [1.5, 1.5, 2.5],
    (STREAM, "cpu", "lastword"): [0.0001],
    (STREAM, "cpu", "nginx"): [0.00005],
}


def test_ratio_is_median_by_round() -> None:
    assert report.ratio(RESULTS, WHOLE, "cpu", "portkey") == 0.5
    assert report.ratio(RESULTS, WHOLE, "cpu", "litellm") is None


def test_added_latency_is_difference_to_direct() -> None:
    results = report.with_added_latency(RESULTS)

    assert results[WHOLE, "added p50", "lastword"] == [1.0, 1.0, 2.0]
    assert (WHOLE, "added p50", "direct") not in results


def test_broken_promise_falls_short() -> None:
    lines = dict(
        line.split("  ", 1) for line in report.promise_lines(RESULTS).splitlines()
    )

    assert lines["CPU of a whole answer / Portkey"].endswith("holds")
    assert lines["CPU of an event / nginx"].endswith("holds")
    slow = RESULTS | {(WHOLE, "cpu", "portkey"): [3.0, 1.0, 2.0]}
    assert "FALLS SHORT" in report.promise_lines(slow)


def test_unmeasured_promise_has_no_line() -> None:
    assert report.promise_lines({}) == ""


def test_table_rows_and_ratios() -> None:
    names = ["direct", "nginx", "lastword", "portkey"]
    head, *rows = report.table(RESULTS, names).splitlines()

    assert (
        head.split()
        == "case figure direct nginx lastword portkey / nginx".split()
        + [
            "/",
            "portkey",
        ]
    )
    assert len(rows) == 3
    assert rows[0].endswith("0.50")


def test_results_json_round_trip(tmp_path: Path) -> None:
    report.write_json(RESULTS, tmp_path / "found.json")

    assert report.read_json(tmp_path / "found.json") == RESULTS


@pytest.mark.parametrize("of", ["nginx", "portkey"])
def test_ratio_to_zero_is_none(of: str) -> None:
    results = RESULTS | {(WHOLE, "cpu", of): [0.0, 0.0, 0.0]}

    assert report.ratio(results, WHOLE, "cpu", of) is None


def test_promise_names_many_streams_case() -> None:
    assert ManyStreams().name == report.MANY
