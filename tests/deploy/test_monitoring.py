"""The dashboard and the alerts use existing metrics in valid PromQL."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import Counter, Histogram

from app.gateway.request_record import End
from app.observability.metrics import MetricDefinition, families

from .files import DEPLOY, ROOT, load, needs

DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
PANELS = DASHBOARD["panels"]
PLOTS = [panel for panel in PANELS if panel["type"] != "row"]
(GROUP,) = load(DEPLOY / "alerts.yaml")["groups"]
RULES = GROUP["rules"]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

SCRAPED = {"job", "instance"}
# Labels with a closed set of values.
VALUES = {"end": set(End), "stream": {"yes", "no"}}


def series(metric: MetricDefinition) -> Iterator[tuple[str, set[str]]]:
    """The series names of a metric, with their labels."""
    name, labels = f"lastword_{metric.name}", {*metric.labels, *SCRAPED}
    if metric.kind is Counter:
        yield f"{name}_total", labels
    elif metric.kind is Histogram:
        yield f"{name}_bucket", labels | {"le"}
        yield f"{name}_count", labels
    else:
        yield name, labels


ALL = [metric for _, metric in families()]
SERIES = {"up": SCRAPED} | dict(itertools.chain.from_iterable(map(series, ALL)))


def parsed(expression: str) -> Any:
    """The syntax tree of an expression. Raises ValueError if it is not PromQL."""
    for variable, value in {"$__rate_interval": "5m", "$__range": "3h"}.items():
        expression = expression.replace(variable, value)
    return promql.parse(expression)


def parts(tree: Any, kind: type[Any]) -> list[Any]:
    """The nodes of a *tree* that are of a *kind*."""
    nodes: list[Any] = []
    promql.walk(tree, pre_visit=nodes.append)
    return [part for part in nodes if isinstance(part, kind)]


def selectors(tree: Any) -> list[Any]:
    return parts(tree, promql.VectorSelector)


def sums(tree: Any) -> list[tuple[set[str], Any]]:
    """The summed series, with the labels that they are grouped by."""
    aggregations = parts(tree, promql.AggregateExpr)
    return [
        (set(each.modifier.labels), each.expr) for each in aggregations if each.modifier
    ]


def kept(tree: Any) -> set[str]:
    """The labels of the result of an expression."""
    return set.union(*(labels for labels, _ in sums(tree))) if sums(tree) else SCRAPED


EXPRESSIONS = [
    *(target["expr"] for panel in PLOTS for target in panel["targets"]),
    *(rule["expr"] for rule in RULES),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression_uses_existing_metrics(expression: str) -> None:
    tree = parsed(expression)

    assert selectors(tree) and all(each.name in SERIES for each in selectors(tree))
    for labels, added in sums(tree):
        assert all(labels <= SERIES[selector.name] for selector in selectors(added))
    for selector in selectors(tree):
        for matcher in selector.matchers.matchers:
            assert matcher.name in SERIES[selector.name]
            assert matcher.value in VALUES.get(matcher.name, {matcher.value})


def test_invalid_expressions_are_detected() -> None:
    with pytest.raises(ValueError):
        parsed("sum by (provider) (rate(lastword_requests_total[5m])")
    for wrong in ("sum(lastword_requests)", "sum by (model) (up)", "up{end='cut'}"):
        with pytest.raises(AssertionError):
            test_expression_uses_existing_metrics(wrong)


def test_dashboard_shows_every_metric() -> None:
    trees = [parsed(target["expr"]) for p in PLOTS for target in p["targets"]]
    shown = {selector.name for tree in trees for selector in selectors(tree)}
    metrics = {re.sub("_(total|bucket|count)$", "", name) for name in shown}

    assert metrics == {name for name, _ in families()}


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The paths of *before* that *after* lacks. Additional ones are allowed."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        for i, pair in enumerate(itertools.zip_longest(before, after)):
            yield from lost(*pair, f"{path}[{i}]")
    elif before != after:
        yield path


def written_by_grafana(dashboard: Any) -> Any:
    """The dashboard after a round trip through Grafana's own types."""
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafana_reads_whole_dashboard() -> None:
    misspelt = json.loads(json.dumps(DASHBOARD))
    misspelt["panels"][1]["gridpos"] = misspelt["panels"][1].pop("gridPos")

    assert [*lost(DASHBOARD, written_by_grafana(DASHBOARD))] == []
    assert [*lost(misspelt, written_by_grafana(misspelt))] == [".panels[1].gridpos"]


def test_panels_are_unique_without_overlap() -> None:
    cells = [
        (x, y)
        for panel in PANELS
        for position in [panel["gridPos"]]
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]

    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) == 23


@pytest.mark.parametrize("panel", PLOTS, ids=lambda panel: panel["title"])
def test_panel_has_description_and_unit(panel: Any) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults["thresholds"]["steps"]
    names = [target["refId"] for target in panel["targets"]]

    assert panel["description"] and defaults["unit"]
    assert steps[0]["value"] is None and len(set(names)) == len(names)


def test_data_source_is_a_variable() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)

    assert set(variables) == {"datasource", "provider", "instance"}
    assert set(re.findall(r'"type": "prometheus", "uid": "([^"]*)"', text)) == {
        "${datasource}"
    }
    assert text.count('"uid"') == text.count("${datasource}") + 1, "its own beside"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_links_to_its_runbook(rule: Any) -> None:
    annotations = rule["annotations"]
    page, _, anchor = annotations["runbook"].partition("#")

    assert page == "docs/operations.md" and anchor == rule["alert"].lower()
    assert f"\n### {rule['alert']}\n" in OPERATIONS
    assert rule["labels"]["severity"] in ("page", "ticket")
    used = set(re.findall(r"\$labels\.(\w+)", annotations["summary"]))
    assert used <= kept(parsed(rule["expr"]))


def test_runbook_sections_are_alerts() -> None:
    headings = re.findall(r"^### (Lastword\w+)$", OPERATIONS, re.M)

    assert headings == [rule["alert"] for rule in RULES]


@needs("promtool")
def test_alerts_fire_as_specified() -> None:
    cases = ROOT / "tests" / "deploy" / "alerts.yaml"
    command = ["promtool", "test", "rules", str(cases)]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
