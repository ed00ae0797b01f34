"""A parsed grammar: rules by name, each a group of alternatives."""

from dataclasses import dataclass

# How often anything may be repeated, all {n,m} around it multiplied, in the rules that
# refer to it as well.
MAX_REPETITION = 1000

# The operators that stand for bounds of a repetition.
REPETITION_OPERATORS: dict[str, tuple[int, int | None]] = {
    "*": (0, None),
    "+": (1, None),
    "?": (0, 1),
}


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """One character in one of these ranges of code points, or in none of them.

    Both ends of a range are part of it. A literal is a sequence of such classes.
    """

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class RuleReference:
    """The rule of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class RepeatedGroup:
    """One of several sequences, *minimum* to *maximum* times; None is unbounded."""

    alternatives: tuple["ElementSequence", ...]
    minimum: int = 1
    maximum: int | None = 1

    @property
    def repetition(self) -> int:
        """How many copies of its content it has, unbounded ones aside."""
        # "?" and "*" have one copy: a product with 0 would hide what is inside.
        return max(self.minimum, self.maximum or 1, 1)


Element = CharacterClass | RuleReference | RepeatedGroup
ElementSequence = tuple[Element, ...]
Rules = dict[str, RepeatedGroup]
