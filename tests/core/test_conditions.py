"""The query language of conditional routing."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.conditions import BadQuery, check, matches, value_at

CONTEXT: dict[str, Any] = {
    "metadata": {
        "plan": "paid",
        "level": 4,
        "ratio": "0.5",
        "beta": True,
        "nothing": None,
        "user": {"team": {"name": "a"}},
        "dotted.key": 1,
        "tags": ["x", "y"],
    },
    "params": {"model": "gpt-3.5-turbo", "prompt": ["Hello", "def f():"], "n": 1},
    "url": {"pathname": "/v1/completions"},
}


def compile_(pattern: str) -> object:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise ValueError(str(e)) from e


def search(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def holds(query: Any, context: Any = CONTEXT) -> bool:
    check(query, compile_)
    return matches(query, context, search)


TABLE: list[tuple[Any, bool]] = [
    ({}, True),
    ({"metadata.plan": "paid"}, True),
    ({"metadata.level": "4"}, False),
    ({"metadata.level": 4.0}, True),
    ({"metadata.beta": True}, True),
    ({"metadata.beta": 1}, False),
    ({"params.n": True}, False),
    ({"metadata.nothing": None}, True),
    ({"metadata.absent": None}, True),
    ({"metadata.absent": ""}, False),
    ({"metadata.user.team.name": "a"}, True),
    ({"metadata.user.team": {"$eq": {"name": "a"}}}, True),
    ({"metadata.plan.deeper": "paid"}, False),
    ({"metadata.dotted.key": 1}, True),
    ({"metadata.tags.1": "y"}, True),
    ({"metadata.tags.2": "y"}, False),
    ({"metadata.tags.-1": "y"}, False),
    ({"metadata.plan": {"$ne": "free"}}, True),
    ({"metadata.absent": {"$ne": "free"}}, True),
    ({"metadata.level": {"$gt": 3, "$lte": 4}}, True),
    ({"metadata.level": {"$gt": 4}}, False),
    ({"metadata.ratio": {"$lt": 1}}, True),
    ({"metadata.level": {"$gte": "4"}}, True),
    ({"metadata.plan": {"$gt": 1}}, False),
    ({"metadata.beta": {"$gte": 1}}, False),
    ({"metadata.absent": {"$lt": 1}}, False),
    ({"metadata.plan": {"$in": ["paid", 1]}}, True),
    ({"metadata.level": {"$in": ["4"]}}, False),
    ({"metadata.plan": {"$nin": ["free"]}}, True),
    ({"metadata.plan": {"$nin": ["paid"]}}, False),
    ({"params.model": {"$regex": "^gpt"}}, True),
    ({"params.prompt": {"$regex": "^def "}}, True),
    ({"params.prompt": {"$regex": "^class "}}, False),
    ({"metadata.level": {"$regex": "4"}}, False),
    ({"metadata.plan": {"$exists": True}}, True),
    ({"metadata.nothing": {"$exists": True}}, True),
    ({"metadata.absent": {"$exists": False}}, True),
    ({"url.pathname": "/v1/completions"}, True),
    ({"metadata.plan": {}}, True),
]


@pytest.mark.parametrize("query, expected", TABLE, ids=lambda value: str(value)[:60])
def test_query_evaluates_to(query: Any, expected: bool) -> None:
    assert holds(query) is expected


@pytest.mark.parametrize(
    "query",
    [
        {"metadata.plan": {"$regex": "p", "$ne": "paid"}},
        {"$or": [{"params.n": 1}], "metadata.plan": "free"},
        {"$and": [{"params.n": 1}], "metadata.plan": "free"},
        {"metadata.plan": "free", "$or": [{"params.n": 1}]},
    ],
    ids=str,
)
def test_all_conditions_of_object_count(query: Any) -> None:
    """On Portkey's gateway most of these would match."""
    assert not holds(query)


BAD: list[tuple[Any, tuple[str, ...], str]] = [
    (5, (), "must be an object"),
    ({"metadata.a": {"$like": 1}}, ("metadata.a", "$like"), "$like"),
    ({"$xor": []}, ("$xor",), "Unsupported operator used in the query router: $xor"),
    ({"header.a": 1}, ("header.a",), "must start with one of metadata, params, url"),
    ({"params": 1}, ("params",), "and a dot"),
    ({"$or": []}, ("$or",), "one at least"),
    ({"$and": {}}, ("$and",), "array of queries"),
    ({"$or": [{}, 1]}, ("$or", "1"), "must be an object"),
    ({"metadata.a": {"$in": 1}}, ("metadata.a", "$in"), "needs an array"),
    ({"metadata.a": {"$gt": "x"}}, ("metadata.a", "$gt"), "needs a number"),
    ({"metadata.a": {"$exists": 1}}, ("metadata.a", "$exists"), "true or false"),
    ({"metadata.a": {"$regex": 1}}, ("metadata.a", "$regex"), "as text"),
    ({"metadata.a": {"$regex": "("}}, ("metadata.a", "$regex"), "pattern"),
    ({"$not": {"$not": {"x": 1}}}, ("$not", "$not", "x"), "must start with"),
    ({"metadata." + "a." * 200: 1}, ("metadata." + "a." * 200,), "200 characters"),
]


@pytest.mark.parametrize("query, path, message", BAD, ids=lambda v: str(v)[:40])
def test_bad_query_error_has_path(query, path, message) -> None:
    with pytest.raises(BadQuery) as refused:
        check(query, compile_)

    assert refused.value.path == path
    assert message in str(refused.value)


def test_deeply_nested_query_is_refused() -> None:
    query: Any = {}
    for _ in range(200):
        query = {"$and": [query]}

    with pytest.raises(BadQuery, match="16 levels"):
        check(query, compile_)


def test_value_at_follows_path() -> None:
    assert value_at("metadata.user.team.name", CONTEXT) == "a"
    assert value_at("metadata.nobody", CONTEXT) is None


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
contexts = st.fixed_dictionaries(
    {
        root: st.dictionaries(st.sampled_from("abc"), json_values)
        for root in ("metadata",)
    }
)
scalars = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "1", "a"])
)
operators = st.one_of(
    st.fixed_dictionaries({"$eq": scalars}),
    st.fixed_dictionaries({"$ne": scalars}),
    st.fixed_dictionaries({"$gt": st.integers(-2, 2)}),
    st.fixed_dictionaries({"$in": st.lists(scalars, max_size=3)}),
    st.fixed_dictionaries({"$regex": st.sampled_from(["a", "^$", "1"])}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
paths = st.sampled_from(["metadata.a", "metadata.b", "metadata.a.b", "metadata.c.0"])
queries: Any = st.recursive(
    st.dictionaries(paths, scalars | operators, max_size=2),
    lambda inner: st.fixed_dictionaries(
        {}, optional={"$and": st.lists(inner, min_size=1, max_size=3), "$not": inner}
    ),
    max_leaves=6,
)


words = st.sampled_from(
    """$and $or $not $eq $ne $gt $gte $lt $lte $in $nin $exists $regex $xor metadata
    metadata.a params.b.0 url.pathname header.x""".split()
)
any_queries: Any = st.recursive(
    json_values | st.sampled_from(["(", "a+", "[", "1e999", "nan"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


@given(any_queries, contexts)
def test_any_query_is_refused_or_evaluated(query: Any, context: Any) -> None:
    try:
        check(query, compile_)
    except BadQuery as refused:
        assert len(str(refused)) < 300
    else:
        assert holds(query, context) in (True, False)


@given(st.text(max_size=20), json_values)
def test_value_at_takes_any_path(path: str, value: Any) -> None:
    value_at(path, {"metadata": value})


@given(queries, contexts)
def test_query_takes_any_context(query: Any, context: Any) -> None:
    assert holds(query, context) in (True, False)


@given(st.lists(queries, min_size=1, max_size=3), contexts)
def test_not_or_equals_and_not(several: Any, context: Any) -> None:
    none = {"$not": {"$or": several}}

    assert holds(none, context) == holds(
        {"$and": [{"$not": query} for query in several]}, context
    )


@given(st.dictionaries(paths, scalars | operators, max_size=4), contexts)
def test_conditions_combine_in_any_order(query: Any, context: Any) -> None:
    apart = [{key: value} for key, value in query.items()]
    backwards = dict(reversed(query.items()))

    assert holds(query, context) == holds(backwards, context)
    assert holds(query, context) == holds({"$and": [{}, *apart]}, context)
