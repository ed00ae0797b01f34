"""Checks of a parsed grammar that concern several rules. They raise ValueError."""

from collections.abc import Iterator

from .grammar import (
    MAX_REPETITION,
    CharacterClass,
    Element,
    RepeatedGroup,
    RuleReference,
    Rules,
)


def check_references(rules: Rules) -> None:
    """Refuse references to rules that do not exist."""
    for group in rules.values():
        for name in _references(group):
            if name not in rules:
                raise ValueError(f"it refers to a rule {name[:40]!r}, which it lacks")


def _references(group: RepeatedGroup) -> Iterator[str]:
    for sequence in group.alternatives:
        for element in sequence:
            if isinstance(element, RuleReference):
                yield element.name
            elif isinstance(element, RepeatedGroup):
                yield from _references(element)


def check_left_recursion(rules: Rules) -> None:
    """Refuse a rule that may begin with itself, directly or through others.

    Polynomial, unlike llama.cpp's search: first the rules that may be empty, up to a
    fixed point; then for each rule the rules that it may begin with; then all rules
    that begin with none of those left are removed, until only cycles are left, and what
    leads to them.
    """
    # It may be hidden: in `root ::= ws root | "x"`, if `ws` may be empty. llguidance
    # could parse that, but llama.cpp, whose format this is, refuses it. Each round of
    # the first loop adds a rule, so there are at most as many rounds as rules.
    nullable: set[str] = set()
    while True:
        more = {n for n, group in rules.items() if _is_nullable(group, nullable)}
        if more == nullable:
            break
        nullable = more
    # Peel off rules that lead nowhere, as a topological sort does.
    left = {name: set(_beginnings(group, nullable)) for name, group in rules.items()}
    while ends := [name for name, first in left.items() if not first & left.keys()]:
        for name in ends:
            del left[name]
    for name in left:
        raise ValueError(f"its rule {name[:40]!r} may begin with itself")


def _is_nullable(element: Element, nullable: set[str]) -> bool:
    """Whether *element* may be empty, where the rules *nullable* may be."""
    if isinstance(element, RuleReference):
        return element.name in nullable
    if isinstance(element, CharacterClass):
        return False
    # A group may be empty if it may occur 0 times, or has an alternative of which every
    # element may be empty; the empty alternative is one.
    return element.minimum == 0 or any(
        all(_is_nullable(each, nullable) for each in sequence)
        for sequence in element.alternatives
    )


def _beginnings(group: RepeatedGroup, nullable: set[str]) -> Iterator[str]:
    """The names of the rules with which *group* may begin."""
    for sequence in group.alternatives:
        for element in sequence:
            if isinstance(element, RuleReference):
                yield element.name
            elif isinstance(element, RepeatedGroup):
                yield from _beginnings(element, nullable)
            # What follows can come first only if all before it may be empty.
            if not _is_nullable(element, nullable):
                break


def check_repetition(rules: Rules) -> None:
    """Refuse counts that multiply, within a rule and across rules.

    Each count is bounded when it is parsed, but `((("a"{1000}){1000}){1000})` has a
    thousand million copies, and so have three rules that refer to one another. In a
    recursion there is no such product, since each round consumes characters.
    """
    # The largest product within each rule. Every rule is computed once, so the time is
    # linear, where to expand references would be exponential.
    worst: dict[str, int] = {}

    def of_group(group: RepeatedGroup, under: frozenset[str]) -> int:
        inner = [of_element(e, under) for s in group.alternatives for e in s]
        return group.repetition * max(inner, default=1)

    def of_element(element: Element, under: frozenset[str]) -> int:
        if isinstance(element, RepeatedGroup):
            return of_group(element, under)
        # A rule in *under* refers to itself: the recursion is not multiplied.
        if isinstance(element, CharacterClass) or element.name in under:
            return 1
        return of_rule(element.name, under)

    def of_rule(name: str, under: frozenset[str]) -> int:
        if name not in worst:
            worst[name] = of_group(rules[name], under | {name})
        if worst[name] > MAX_REPETITION:
            raise ValueError(
                f"its repetitions multiply to {worst[name]} in the rule {name[:40]!r}, "
                f"and at most {MAX_REPETITION} are allowed"
            )
        return worst[name]

    for name in rules:
        of_rule(name, frozenset())
