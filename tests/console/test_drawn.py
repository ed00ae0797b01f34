"""Pure functions of the console: sums, plots, texts, snippets."""

import ast
import json
import math
import re
import shlex
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.console import formatting, snippets
from app.console.plots import Bar, Plot, Series, columns, lines, scale, waterfall
from app.console.requests import bars
from app.console.snippets import SnippetRequest
from app.console.stats import TimeSlice, largest_groups, name_groups, only_group
from app.store.ledger_queries import (
    LedgerAttempt,
    LedgerEntry,
    UsageTotals,
    merge_totals,
    quantile,
    wait_of,
)


def sums(group: str = "openai", wait: int | None = 10, **changes: Any) -> UsageTotals:
    fields = {
        "requests": 1,
        "failed": 0,
        "cached": 0,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost": 0.5,
    }
    fields |= changes
    waits = {} if wait is None else {wait: fields["requests"]}
    return UsageTotals(group, waits=waits, **fields)


def time_slice(start: float, *rows: UsageTotals) -> TimeSlice:
    return TimeSlice(start, 60, 60, name_groups(rows))


# Totals


def test_merged_totals_are_sums() -> None:
    rows = [sums(), sums("groq", 20, requests=3, failed=1), sums(wait=None)]
    whole = merge_totals(rows)

    assert (whole.requests, whole.failed, whole.prompt_tokens) == (5, 1, 30)
    assert (whole.cost, whole.failure_rate) == (1.5, 0.2)
    assert merge_totals([]).failure_rate is None and merge_totals([]).p50 is None


@given(some.lists(some.floats(0.001, 1000), min_size=1, max_size=60))
def test_percentile_error_within_five_percent(waits: list[float]) -> None:
    steps: dict[int, int] = {}
    for wait in waits:
        step = int(math.log(wait / 0.001) / math.log(1.1))
        steps[step] = steps.get(step, 0) + 1
    exact = sorted(waits)[math.ceil(len(waits) / 2) - 1]
    estimate = quantile(steps, 0.5)

    assert estimate is not None and estimate == pytest.approx(exact, rel=0.0501)


def test_small_groups_merge_into_others() -> None:
    many = [sums(f"p{i}", requests=10 - i) for i in range(9)]
    slices = [time_slice(0, *many), time_slice(60, sums(""))]
    groups = largest_groups(slices)
    split = [each.by_names([group.group for group in groups]) for each in slices]

    assert [each.group for each in groups] == ["p0", "p1", "p2", "p3", "p4", "others"]
    assert groups[-1].requests == 5 + 4 + 3 + 2 + 1
    assert [each.requests for each in split[0]] == [10, 9, 8, 7, 6, 14]
    assert [each.requests for each in split[1]] == [0, 0, 0, 0, 0, 1]


def test_slices_of_one_group() -> None:
    slices = [time_slice(0, sums(), sums("groq"), sums(""))]

    for name in ("groq", "none"):
        (group,) = largest_groups(only_group(slices, name))
        assert group.group == name
    assert len(largest_groups(only_group(slices, ""))) == 3


def test_rate_of_unfinished_slice() -> None:
    assert TimeSlice(0, 60, 30, ()).minutes == 0.5
    assert TimeSlice(0, 60, 0, ()).minutes == 0.25


# Plots


@given(some.floats(0, 1e12), some.sampled_from([0.001, 0.04, 1.0]))
def test_scale_ends_at_round_number(highest: float, least: float) -> None:
    top, ticks = scale(highest, least)

    assert top >= max(highest, least) * (1 - 1e-9)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(top) and 3 <= len(ticks) <= 6


def plot(*values: float | None, name: str = "openai") -> Plot:
    marks = [f"mark {i}" for i in range(len(values))]
    series = [Series(name, values, "c0")]
    return Plot("Requests", series, marks, [(0, "12:00")], formatting.count)


def elements(svg: str, tag: str, look: str) -> list[ElementTree.Element]:
    return [
        each
        for each in ElementTree.fromstring(svg).iter(tag)
        if look in (each.get("class") or "").split()
    ]


def test_column_heights_match_values() -> None:
    drawn = elements(columns(plot(1, 0, 2)), "rect", "c0")
    heights = [float(each.get("height", 0)) for each in drawn]

    assert len(heights) == 2 and heights[1] == pytest.approx(2 * heights[0], rel=0.01)


def test_line_breaks_at_missing_value() -> None:
    svg = lines(plot(1, 2, None, 3))

    assert len(elements(svg, "polyline", "c0")) == 1
    assert len(elements(svg, "circle", "c0")) == 1


@pytest.mark.parametrize("draw", [columns, lines])
@pytest.mark.parametrize("values", [(), (0,), (None, None)])
def test_empty_plot_has_axes(draw: Any, values: Any) -> None:
    svg = draw(plot(*values))

    assert len(elements(svg, "line", "grid")) >= 3


def test_empty_plot_has_text() -> None:
    (text,) = elements(columns(plot(0, 0)), "text", "blank")

    assert text.text == "no requests"
    assert elements(columns(plot(0, 1)), "text", "blank") == []


def test_plot_has_text_summary() -> None:
    svg = ElementTree.fromstring(columns(plot(3, 1200, 2)))

    assert svg.get("aria-label") == "Requests. openai: 1.2k at most, 2 at last"
    assert "mark 1\nopenai: 1.2k" in [each.text for each in svg.iter("title")]


def test_plot_escapes_names() -> None:
    svg = columns(plot(1, name='<b a="1">&'))

    assert "<b" not in svg and ElementTree.fromstring(svg) is not None


# Waterfalls


def entry(**changes: Any) -> LedgerEntry:
    fields: dict[str, Any] = {name: None for name in LedgerEntry.__slots__}
    fields |= {"id": 1, "took": 2.0, "first": 0.5, "status": 200, "stream": True}
    fields |= {"provider": "openai", "target": "config", "tries": ()}
    return LedgerEntry(**(fields | changes))


def test_waterfall_has_attempts_and_stream() -> None:
    tries = (
        LedgerAttempt("config.targets[0]", "groq", 503, 1, 20),
        LedgerAttempt("x", "p", 200, 30, 470),
    )
    drawn = bars(entry(tries=tries))

    assert [(each.start, each.length) for each in drawn] == [
        (1, 20),
        (30, 470),
        (500, 1500),
    ]
    assert [each.look for each in drawn] == ["bad", "good", "c0"]


@pytest.mark.parametrize(
    "changes, lengths",
    [
        ({}, [500, 1500]),
        ({"stream": False}, [500]),
        ({"first": None, "status": 502}, [2000]),
    ],
)
def test_waterfall_without_attempts_has_one(changes: Any, lengths: list[float]) -> None:
    assert [each.length for each in bars(entry(**changes))] == lengths


def test_waterfall_bars_stay_inside() -> None:
    svg = waterfall([Bar("a", 0, 0, "", "good"), Bar("b", 5, 95, "", "bad")], str)
    for each in ElementTree.fromstring(svg).iter("rect"):
        assert 0 <= float(each.get("x", -1)) + float(each.get("width", 0)) <= 420


def test_wait_steps_grow_by_tenth() -> None:
    assert wait_of(1) / wait_of(0) == pytest.approx(1.1)


# Texts


def test_numbers_are_formatted_short() -> None:
    texts = [
        formatting.count(0),
        formatting.count(2.5),
        formatting.count(1234),
        formatting.count(5e6),
        formatting.whole(1234567),
        formatting.share(None),
        formatting.share(0),
        formatting.share(0.0123),
        formatting.share(0.5),
        formatting.duration(None),
        formatting.duration(0.0123),
        formatting.duration(0.9999),
        formatting.duration(90),
        formatting.duration(600),
        formatting.money(None),
        formatting.money(0),
        formatting.money(0.00001),
        formatting.money(0.004),
        formatting.money(1234.5),
        formatting.money(2.5e6),
    ]

    assert [each.replace("\u202f", " ") for each in texts] == [
        "0",
        "2.5",
        "1.23k",
        "5M",
        "1 234 567",
        "–",
        "0 %",
        "1.2 %",
        "50 %",
        "–",
        "12.3 ms",
        "1 s",
        "90 s",
        "10 min",
        "–",
        "$0",
        "<$0.0001",
        "$0.0040",
        "$1,234.50",
        "$2.5M",
    ]


# Snippets

REQUEST = SnippetRequest(
    "http://127.0.0.1:8787",
    {"x-portkey-provider": "openai"},
    {"model": "m", "prompt": 'It\'s "so" $HOME\n', "stream": True, "top_k": 4},
    has_key=True,
)


def test_curl_snippet_sends_request() -> None:
    words_ = shlex.split(snippets.curl(REQUEST).replace("\\\n", ""))
    body = words_[words_.index("-d") + 1]

    assert words_[:3] == ["curl", "-N", "http://127.0.0.1:8787/v1/completions"]
    assert json.loads(body) == REQUEST.body
    assert "x-portkey-provider: openai" in words_
    assert "Authorization: Bearer $LASTWORD_KEY" in words_


def call_in(text: str) -> dict[str, Any]:
    """The keyword arguments of the call in a snippet."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("create"):
            return {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    raise AssertionError("nothing is called")


def test_python_snippet_sends_request() -> None:
    called = call_in(snippets.python(REQUEST))

    assert called["prompt"] == REQUEST.body["prompt"]
    assert called["stream"] is True and called["extra_body"] == {"top_k": 4}


def test_openai_0_28_snippet_uses_keywords() -> None:
    called = call_in(snippets.openai_0_28(REQUEST))

    assert called["top_k"] == 4 and called["headers"] == dict(REQUEST.headers)


@pytest.mark.parametrize("name", ["curl", "Python", "openai 0.28"])
def test_snippet_without_key_has_none(name: str) -> None:
    sent = SnippetRequest("http://h", {}, {"model": "m", "prompt": "x"}, has_key=False)

    assert "LASTWORD_KEY" not in snippets.all_snippets(sent)[name]


def test_snippet_headers_hide_keys() -> None:
    config = {"targets": [{"api_key": "S1", "virtual_key": "v", "retry": {}}]}
    headers = snippets.without_secrets(
        {
            "x-portkey-config": json.dumps(config),
            "x-portkey-virtual-key": "v",
            "x-portkey-api-key": "S2",
            "x-portkey-aws-secret-access-key": "S3",
            "x-portkey-metadata": '{"max_tokens": 3}',
            "x-portkey-trace-id": "t",
        }
    )

    assert not re.search(r"S\d", str(headers))
    assert '"virtual_key": "v"' in headers["x-portkey-config"]
    assert headers["x-portkey-virtual-key"] == "v"
    assert headers["x-portkey-metadata"] == '{"max_tokens": 3}'
