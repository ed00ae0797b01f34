"""The query language of conditional routing.

A query is an object, and holds if all of its keys do. A key is a path into the context
(`metadata.user.plan`, `params.model`, `url.pathname`), or one of `$and`, `$or`, `$not`
with queries of their own. Its value is the expected value at that path, or an object of
operators that all have to hold.

Source: the conditional routing of the Portkey gateway, where `$regex`, `$and` and
`$or` ignore the conditions beside them; here they do not.
"""

from collections.abc import Callable, Mapping
from typing import Any

# Whether a pattern matches somewhere in a text. Passed in, since the patterns are
# callers' and the time that they take has to be limited.
Search = Callable[[str, str], bool]

ROOTS = ("metadata", "params", "url")
DEEPEST = 16
LONGEST_PATH = 200
# Steps of a path. Keys may contain dots, so a look-up tries all ways to join the steps:
# its time grows with their square.
MOST_STEPS = 16
# Characters of a text that may be a number.
_LONGEST_NUMBER = 64


class BadQuery(ValueError):
    """A query that cannot be evaluated; *path* leads to the fault in it."""

    def __init__(  # noqa: B042 - errors are never pickled
        self, message: str, path: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.path = path


class _Absent:
    """The value at a path that the context does not have."""


_ABSENT = _Absent()


# Evaluation


def matches(
    query: Mapping[str, Any], context: Mapping[str, Any], search: Search
) -> bool:
    """Whether *query*, which `check` has accepted, holds in *context*."""
    return all(_holds(key, value, context, search) for key, value in query.items())


def value_at(path: str, context: Mapping[str, Any]) -> Any:
    """The value at a dotted path; None if there is none."""
    value = _look_up(path.split("."), context)
    return None if value is _ABSENT else value


def _holds(key: str, expected: Any, context: Mapping[str, Any], search: Search) -> bool:
    if key == "$and":
        return all(matches(query, context, search) for query in expected)
    if key == "$or":
        return any(matches(query, context, search) for query in expected)
    if key == "$not":
        return not matches(expected, context, search)
    value = _look_up(key.split("."), context)
    if not isinstance(expected, dict):
        return _equals(value, expected)
    for name, operand in expected.items():
        if name == "$regex":
            # A list of texts, as the prompts of a batch, matches if one of them does.
            items = value if isinstance(value, list) else [value]
            texts = (item for item in items if isinstance(item, str))
            holds = any(search(operand, text) for text in texts)
        else:
            holds = _OPERATORS[name](value, operand)
        if not holds:
            return False
    return True


def _look_up(steps: list[str], value: Any) -> Any:
    """The value at the path *steps*. A key that contains dots takes precedence."""
    if not steps:
        return value
    if isinstance(value, list):
        index = int(steps[0]) if steps[0].isdecimal() and len(steps[0]) < 9 else -1
        return _look_up(steps[1:], value[index]) if 0 <= index < len(value) else _ABSENT
    if isinstance(value, dict):
        for length in range(len(steps), 0, -1):
            key = ".".join(steps[:length])
            if key in value:
                return _look_up(steps[length:], value[key])
    return _ABSENT


def _equals(value: Any, expected: Any) -> bool:
    """Equality as in JSON: true is no number, and null equals an absent value."""
    if value is _ABSENT or value is None:
        return expected is None
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    return bool(value == expected)


def _to_number(value: Any) -> float | None:
    """A number, or a text that spells one, as Portkey reads both."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _comparison(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    """An operator that holds if both sides are numbers and *compare* does."""

    def holds(value: Any, operand: Any) -> bool:
        left, right = _to_number(value), _to_number(operand)
        return left is not None and right is not None and compare(left, right)

    return holds


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": _equals,
    "$ne": lambda value, operand: not _equals(value, operand),
    "$gt": _comparison(lambda a, b: a > b),
    "$gte": _comparison(lambda a, b: a >= b),
    "$lt": _comparison(lambda a, b: a < b),
    "$lte": _comparison(lambda a, b: a <= b),
    "$in": lambda value, operand: any(_equals(value, item) for item in operand),
    "$nin": lambda value, operand: not any(_equals(value, item) for item in operand),
    "$exists": lambda value, operand: (value is not _ABSENT) is operand,
}


# Validation

Path = tuple[str, ...]


def check(query: object, compile: Callable[[str], object], path: Path = ()) -> None:
    """Raise BadQuery unless `matches` can evaluate *query*, which is at *path*.

    *compile* raises ValueError for a text that is no pattern.
    """
    if not isinstance(query, dict):
        raise BadQuery("A query must be an object of conditions", path)
    # A level takes up to two steps: an operator, and an index in its list.
    if len(path) > 2 * DEEPEST:
        raise BadQuery(f"A query may be nested {DEEPEST} levels deep", path)
    for key, value in query.items():
        _check_condition(key, value, compile, (*path, key))


def _check_condition(
    key: str, value: Any, compile: Callable[[str], object], path: Path
) -> None:
    if key in ("$and", "$or"):
        if not isinstance(value, list) or not value:
            raise BadQuery("Expected an array of queries, with one at least", path)
        for i, query in enumerate(value):
            check(query, compile, (*path, str(i)))
        return
    if key == "$not":
        check(value, compile, path)
        return
    problem = ""
    steps = key.count(".") + 1
    if key.startswith("$"):
        problem = f"Unsupported operator used in the query router: {key[:60]}"
    elif key.partition(".")[0] not in ROOTS or "." not in key:
        problem = f"A path must start with one of {', '.join(ROOTS)}, and a dot"
    elif len(key) > LONGEST_PATH:
        problem = f"A path may have {LONGEST_PATH} characters, not {len(key)}"
    elif steps > MOST_STEPS:
        problem = f"A path may have {MOST_STEPS} steps, not {steps}"
    if problem:
        raise BadQuery(problem, path)
    if isinstance(value, dict):
        for name, operand in value.items():
            _check_operator(name, operand, compile, (*path, name))


def _check_operator(
    name: str, operand: Any, compile: Callable[[str], object], path: Path
) -> None:
    problem = ""
    if name not in _OPERATORS and name != "$regex":
        problem = f"Unsupported operator used in the query router: {name[:60]}"
    elif name in ("$in", "$nin") and not isinstance(operand, list):
        problem = f"{name} needs an array"
    elif name == "$exists" and not isinstance(operand, bool):
        problem = "$exists needs true or false"
    elif name in ("$gt", "$gte", "$lt", "$lte") and _to_number(operand) is None:
        problem = f"{name} needs a number"
    elif name == "$regex" and not isinstance(operand, str):
        problem = "$regex needs a pattern as text"
    elif name == "$regex":
        try:
            compile(operand)
        except ValueError as e:
            problem = f"$regex needs a pattern: {e}"
    if problem:
        raise BadQuery(problem, path)
