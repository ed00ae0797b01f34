"""The query language of conditional routing.

A query is an object, and holds if all of its keys do. A key is a path into the context
(`metadata.user.plan`, `params.model`, `url.pathname`), or one of `$and`, `$or`, `$not`
with queries of their own. Its value is what has to stand at that path, or an object of
operators that all have to hold.

Source: the conditional routing of the Portkey gateway, whose `$regex`, `$and` and `$or`
swallow what stands beside them; here they do not.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Whether a pattern is found in a text. Passed in: what runs the patterns of callers
# must not be kept busy by them.
Search = Callable[[str, str], bool]

ROOTS = ("metadata", "params", "url")
DEEPEST = 16
LONGEST_PATH = 200
# Steps of a path. Any of them may be part of a key that holds dots, so that looking one
# up takes time in proportion to their square.
MOST_STEPS = 16
# Characters of a text that may still spell a number.
_LONGEST_NUMBER = 64


class BadQuery(ValueError):
    """A query that cannot be answered; *path* is the place in it."""

    def __init__(  # noqa: B042 - errors are never pickled
        self, message: str, path: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.path = path


class _Absent:
    """Stands for what is not in the context."""


_ABSENT = _Absent()


# Answering


def matches(
    query: Mapping[str, Any], context: Mapping[str, Any], search: Search
) -> bool:
    """Whether *query*, which `check` has let pass, holds in *context*."""
    return all(_holds(key, value, context, search) for key, value in query.items())


def value_at(path: str, context: Mapping[str, Any]) -> Any:
    """What stands at a dotted path; None if nothing does."""
    found = _look_up(path.split("."), context)
    return None if found is _ABSENT else found


def _holds(key: str, expected: Any, context: Mapping[str, Any], search: Search) -> bool:
    if key == "$and":
        return all(matches(query, context, search) for query in expected)
    if key == "$or":
        return any(matches(query, context, search) for query in expected)
    if key == "$not":
        return not matches(expected, context, search)
    found = _look_up(key.split("."), context)
    if not isinstance(expected, dict):
        return _same(found, expected)
    return all(
        (
            _search_in(found, operand, search)
            if name == "$regex"
            else _OPERATORS[name](found, operand)
        )
        for name, operand in expected.items()
    )


def _look_up(steps: list[str], value: Any) -> Any:
    """What *steps* lead to. A key that holds dots itself wins over the steps of it."""
    if not steps:
        return value
    if isinstance(value, list):
        index = int(steps[0]) if steps[0].isdecimal() and len(steps[0]) < 9 else -1
        return _look_up(steps[1:], value[index]) if 0 <= index < len(value) else _ABSENT
    if isinstance(value, dict):
        for taken in range(len(steps), 0, -1):
            key = ".".join(steps[:taken])
            if key in value:
                return _look_up(steps[taken:], value[key])
    return _ABSENT


def _same(found: Any, expected: Any) -> bool:
    """Equality as in JSON: true is no number, and null is as good as absent."""
    if found is _ABSENT or found is None:
        return expected is None
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    return bool(found == expected)


def _number(value: Any) -> float | None:
    """A number, or a text that spells one, as Portkey reads both."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _compared(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def holds(found: Any, operand: Any) -> bool:
        one, other = _number(found), _number(operand)
        return one is not None and other is not None and compare(one, other)

    return holds


def _search_in(found: Any, pattern: str, search: Search) -> bool:
    """Whether *pattern* is found in a text, or in one of several, as of a batch."""
    texts = found if isinstance(found, list) else [found]
    return any(search(pattern, text) for text in texts if isinstance(text, str))


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$eq": _same,
    "$ne": lambda found, operand: not _same(found, operand),
    "$gt": _compared(lambda a, b: a > b),
    "$gte": _compared(lambda a, b: a >= b),
    "$lt": _compared(lambda a, b: a < b),
    "$lte": _compared(lambda a, b: a <= b),
    "$in": lambda found, operand: any(_same(found, item) for item in operand),
    "$nin": lambda found, operand: not any(_same(found, item) for item in operand),
    "$exists": lambda found, operand: (found is not _ABSENT) is operand,
}


# Checking


def check(query: object, compile: Callable[[str], object]) -> None:
    """Raise BadQuery unless *query* is one that `matches` can answer.

    *compile* raises ValueError for a text that is no pattern.
    """
    for path, message in _complaints(query, compile, ()):
        raise BadQuery(message, path)


Complaint = tuple[tuple[str, ...], str]


def _complaints(
    query: object, compile: Callable[[str], object], path: tuple[str, ...]
) -> Iterator[Complaint]:
    if not isinstance(query, dict):
        yield path, "A query must be an object of conditions"
    elif len(path) > 2 * DEEPEST:
        yield path, f"A query may be nested {DEEPEST} levels deep"
    else:
        for key, value in query.items():
            yield from _of_key(key, value, compile, (*path, key))


def _of_key(
    key: str, value: Any, compile: Callable[[str], object], path: tuple[str, ...]
) -> Iterator[Complaint]:
    if key in ("$and", "$or"):
        yield from _of_queries(value, compile, path)
    elif key == "$not":
        yield from _complaints(value, compile, path)
    elif key.startswith("$"):
        yield path, f"Unsupported operator used in the query router: {key[:60]}"
    elif key.partition(".")[0] not in ROOTS or "." not in key:
        yield path, f"A path must start with one of {', '.join(ROOTS)}, and a dot"
    elif len(key) > LONGEST_PATH:
        yield path, f"A path may have {LONGEST_PATH} characters, not {len(key)}"
    elif key.count(".") >= MOST_STEPS:
        steps = key.count(".") + 1
        yield path, f"A path may have {MOST_STEPS} steps, not {steps}"
    elif isinstance(value, dict):
        for name, operand in value.items():
            yield from _of_operator(name, operand, compile, (*path, name))


def _of_queries(
    value: Any, compile: Callable[[str], object], path: tuple[str, ...]
) -> Iterator[Complaint]:
    if not isinstance(value, list) or not value:
        yield path, "Expected an array of queries, with one at least"
    else:
        for i, query in enumerate(value):
            yield from _complaints(query, compile, (*path, str(i)))


def _of_operator(
    name: str, operand: Any, compile: Callable[[str], object], path: tuple[str, ...]
) -> Iterator[Complaint]:
    if name not in _OPERATORS and name != "$regex":
        yield path, f"Unsupported operator used in the query router: {name[:60]}"
    elif name in ("$in", "$nin") and not isinstance(operand, list):
        yield path, f"{name} needs an array"
    elif name == "$exists" and not isinstance(operand, bool):
        yield path, "$exists needs true or false"
    elif name in ("$gt", "$gte", "$lt", "$lte") and _number(operand) is None:
        yield path, f"{name} needs a number"
    elif name == "$regex":
        yield from _of_pattern(operand, compile, path)


def _of_pattern(
    pattern: Any, compile: Callable[[str], object], path: tuple[str, ...]
) -> Iterator[Complaint]:
    if not isinstance(pattern, str):
        yield path, "$regex needs a pattern as text"
        return
    try:
        compile(pattern)
    except ValueError as e:
        yield path, f"$regex needs a pattern: {e}"
