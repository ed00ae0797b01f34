"""The errors for invalid parameters, in the words of OpenAI's endpoint.

Some hold for every target, and are raised when the body is read; others for OpenAI
alone, and are raised when its call is planned.
"""

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidRequest

INTEGER, DECIMAL, OBJECT = "an integer", "a decimal number", "an object"


def check_range(
    low: float | None, high: float | None, value: Any, name: str, word: str
) -> Any:
    """*value*, if it is between *low* and *high*; *word* names its type in errors."""
    if (low is None or low <= value) and (high is None or value <= high):
        return value
    raise range_error(low, high, value, name, word)


def range_error(
    low: float | None, high: float | None, value: Any, name: str, word: str
) -> InvalidRequest:
    below = value < 0 if low is None else value < 0 or value < low
    side, bound, sign = ("below min", low, ">=") if below else ("above max", high, "<=")
    return InvalidRequest(
        f"Invalid '{name}': {word} {side}imum value. Expected a value {sign} {bound}, "
        f"but got {value} instead.",
        param=name,
        code=f"{word}_{side.replace(' ', '_')}_value",
    )


def type_error(name: str, expected: str, value: object) -> InvalidRequest:
    kinds = {bool: "a boolean", int: INTEGER, float: DECIMAL}
    kinds |= {str: "a string", list: "an array", dict: OBJECT}
    kind = kinds.get(type(value), "null")
    return InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got {kind} instead.",
        param=name,
        code="invalid_type",
    )


def length_error(name: str, most: int, items: Sequence[object]) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid '{name}': array too long. Expected an array with maximum length "
        f"{most}, but got an array with length {len(items)} instead.",
        param=name,
        code="array_above_max_length",
    )
