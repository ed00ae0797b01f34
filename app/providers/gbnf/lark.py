"""A grammar, written in the Lark dialect of llguidance.

Every literal becomes a sequence of single characters. llguidance has a lexer before its
parser: it would take the longest literal that matches, and never go back to a shorter
one. Its documentation advises against lexemes of one character, since they are slower;
here it matters more that both grammars accept the same texts, and MAX_ELEMENTS bounds
the cost.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from .grammar import (
    REPETITION_OPERATORS,
    CharacterClass,
    Element,
    RepeatedGroup,
    RuleReference,
    Rules,
)

# The first line, by which llama.cpp takes a grammar for one of llguidance.
_HEADER = "%llguidance {}"

_OPERATORS = {bounds: operator for operator, bounds in REPETITION_OPERATORS.items()}


def write_lark(rules: Rules) -> str:
    """The grammar as text. Rules are numbered: not all names would be valid there."""
    numbers = {name: f"r{number}" for number, name in enumerate(rules)}
    lines = [_HEADER, f"start: {numbers['root']}"]
    for name, group in rules.items():
        lines.append(f"{numbers[name]}: {_alternatives(group, numbers)}")
    return "\n".join(lines) + "\n"


def _alternatives(group: RepeatedGroup, numbers: dict[str, str]) -> str:
    return " | ".join(
        " ".join(_element(element, numbers) for element in sequence) or '""'
        for sequence in group.alternatives
    )


def _element(element: Element, numbers: dict[str, str]) -> str:
    if isinstance(element, RuleReference):
        return numbers[element.name]
    if isinstance(element, CharacterClass):
        # A regular expression of Rust, in which `.` would not match a line's end, as it
        # does in GBNF, without the flag s.
        if not element.ranges:
            return "/(?s:.)/"
        ranges = "".join(
            f"{_escape(low)}-{_escape(high)}" for low, high in element.ranges
        )
        return f"/[{'^' * element.negated}{ranges}]/"
    # Always in parentheses: an operator binds to the last element only.
    group = f"({_alternatives(element, numbers)})"
    bounds = (element.minimum, element.maximum)
    if bounds == (1, 1):
        return group
    if bounds in _OPERATORS:
        return group + _OPERATORS[bounds]
    maximum = "" if element.maximum is None else element.maximum
    return f"{group}{{{element.minimum},{maximum}}}"


def _escape(code_point: int) -> str:
    # Each character as a number, so that none has a meaning in a class, as `]` and `^`.
    return f"\\u{{{code_point:X}}}"
