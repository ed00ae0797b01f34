"""Grammars in GBNF, read, bounded, and rewritten for llguidance.

llama.cpp reads GBNF itself, but on behalf of one caller in good faith: its parser
recurses without a bound, its search for left recursion takes time exponential in the
number of rules, and an ambiguous grammar multiplies its stacks with every character.
Bounds on size, depth and repetition alone prevent only the first. So the embedded
engine never gets to see GBNF: a grammar is parsed here, checked against the bounds
below, and written in the Lark dialect of llguidance, the other grammar engine inside
of llama.cpp, which bounds its own work for each token.

Every literal becomes a sequence of single characters, since llguidance would otherwise
take the longest literal that matches and never go back to a shorter one.

Sources: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md and
https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

# Characters of a grammar, groups within groups, rules, and elements (characters,
# classes, references) of all rules together.
MAX_LENGTH = 8192
MAX_DEPTH = 16
MAX_RULES = 256
MAX_ELEMENTS = 4096
# How often anything may be repeated, all {n,m} around it multiplied, in the rules that
# refer to it as well.
MAX_REPETITION = 1000

# What llguidance takes as the header of a grammar.
_HEADER = "%llguidance {}"


@dataclass(frozen=True, slots=True)
class _Class:
    """One character: of these ranges of code points, or of none of them."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class _Reference:
    """Whatever the rule of this name stands for."""

    name: str


@dataclass(frozen=True, slots=True)
class _Group:
    """One of several sequences, from *least* to *most* times; None is no end."""

    alternatives: tuple["_Sequence", ...]
    least: int = 1
    most: int | None = 1

    @property
    def repetition(self) -> int:
        """How many copies of its content it stands for at least."""
        return max(self.least, self.most or 1, 1)


_Element = _Class | _Reference | _Group
_Sequence = tuple[_Element, ...]
_Rules = dict[str, _Group]


@lru_cache(maxsize=64)
def to_lark(grammar: str) -> str:
    """*grammar* for llguidance. Raises ValueError if it is wrong, or out of bounds."""
    if len(grammar) > MAX_LENGTH:
        raise ValueError(
            f"it has {len(grammar)} characters, and at most {MAX_LENGTH} are allowed"
        )
    rules = _Parser(grammar).rules()
    _check_references(rules)
    _check_left_recursion(rules)
    _check_repetition(rules)
    return _written(rules)


# Reading

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_COUNTS = re.compile(r"\{[ \t]*([0-9]{1,9})[ \t]*(,[ \t]*([0-9]{1,9})?[ \t]*)?\}")
_ESCAPED = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([trn\\\"\[\]-]))"
)
_SHORT = {"t": 9, "r": 13, "n": 10}
_TIMES: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None)}
_TIMES["?"] = (0, 1)
_ANY = _Class((), negated=True)


class _Parser:
    """Reads one grammar, as llama.cpp's own parser does.

    A rule ends with its line, except within parentheses and after `::=` or `|`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._elements = 0

    def rules(self) -> _Rules:
        found: _Rules = {}
        self._skip(lines=True)
        while self._at < len(self._text):
            name = self._name("the name of a rule")
            self._skip(lines=False)
            if not self._text.startswith("::=", self._at):
                raise self._error("expected ::=")
            self._at += 3
            self._skip(lines=True)
            found[name] = _Group(self._alternatives(0))
            if len(found) > MAX_RULES:
                raise ValueError(f"it has more than {MAX_RULES} rules")
            if self._peek() not in ("", "\r", "\n"):
                raise self._error("expected the end of the rule")
            self._skip(lines=True)
        if "root" not in found:
            raise ValueError("it has no rule named root")
        return found

    def _alternatives(self, depth: int) -> tuple[_Sequence, ...]:
        found = [self._sequence(depth)]
        while self._peek() == "|":
            self._at += 1
            self._skip(lines=True)
            found.append(self._sequence(depth))
        return tuple(found)

    def _sequence(self, depth: int) -> _Sequence:
        found: list[_Element] = []
        # A literal is several characters, and all of it is what `*` repeats.
        last: _Sequence = ()
        while (char := self._peek()) not in ("", "|", ")", "\r", "\n"):
            if char in "*+?{":
                if not last:
                    raise self._error("expected something before it to repeat")
                del found[-len(last) :]
                last = (_Group((last,), *self._times()),)
            else:
                last = self._item(char, depth)
                if not last:
                    # The empty literal: it stands for nothing, also when repeated.
                    last = (_Group(((),)),)
            found += last
            self._count(len(last))
            self._skip(lines=depth > 0)
        return tuple(found)

    def _item(self, char: str, depth: int) -> _Sequence:
        if char == '"':
            self._at += 1
            return tuple(self._literal())
        if char == "[":
            self._at += 1
            return (self._class(),)
        if char == ".":
            self._at += 1
            return (_ANY,)
        if char == "(":
            return (self._group(depth + 1),)
        if char in "<!":
            raise self._error("tokens are not supported, only characters are")
        return (_Reference(self._name("a literal, a class, a name or a group")),)

    def _group(self, depth: int) -> _Group:
        if depth > MAX_DEPTH:
            raise ValueError(f"its groups are nested more than {MAX_DEPTH} deep")
        self._at += 1
        self._skip(lines=True)
        group = _Group(self._alternatives(depth))
        if self._peek() != ")":
            raise self._error("expected )")
        self._at += 1
        return group

    def _literal(self) -> Iterator[_Class]:
        while self._peek() != '"':
            code = self._character()
            yield _Class(((code, code),))
        self._at += 1

    def _class(self) -> _Class:
        negated = self._peek() == "^"
        self._at += negated
        ranges = []
        while self._peek() != "]":
            low = high = self._character()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._character()
            if high < low:
                raise self._error("a range ends before it begins")
            ranges.append((low, high))
            self._count(1)
        self._at += 1
        if not ranges:
            raise self._error("a class of characters is empty")
        return _Class(tuple(ranges), negated)

    def _character(self) -> int:
        """The code point of the next character, which may be escaped."""
        char = self._peek()
        if not char:
            raise self._error("it ends within a literal or a class")
        if char != "\\":
            self._at += 1
            return ord(char)
        escaped = _ESCAPED.match(self._text, self._at)
        if escaped is None:
            raise self._error("unknown escape")
        self._at = escaped.end()
        short = escaped[4]
        if short:
            return _SHORT.get(short, ord(short))
        code = int(escaped[1] or escaped[2] or escaped[3], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self._error("an escape stands for no character")
        return code

    def _times(self) -> tuple[int, int | None]:
        char = self._peek()
        if char in _TIMES:
            self._at += 1
            return _TIMES[char]
        counts = _COUNTS.match(self._text, self._at)
        if counts is None:
            raise self._error("expected {n}, {n,} or {n,m}")
        self._at = counts.end()
        least = int(counts[1])
        most = int(counts[3]) if counts[3] else None if counts[2] else least
        if most is not None and most < least:
            raise self._error("a repetition ends before it begins")
        if max(least, most or 0) > MAX_REPETITION:
            raise ValueError(
                f"it repeats something {max(least, most or 0)} times, and at most "
                f"{MAX_REPETITION} are allowed"
            )
        return least, most

    def _name(self, expected: str) -> str:
        name = _NAME.match(self._text, self._at)
        if name is None:
            raise self._error(f"expected {expected}")
        self._at = name.end()
        return name[0]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, *, lines: bool) -> None:
        space = (_SPACE_AND_LINES if lines else _SPACE).match(self._text, self._at)
        self._at = space.end() if space else self._at

    def _count(self, more: int) -> None:
        self._elements += more
        if self._elements > MAX_ELEMENTS:
            raise ValueError(f"it has more than {MAX_ELEMENTS} elements")

    def _error(self, message: str) -> ValueError:
        line = self._text.count("\n", 0, self._at) + 1
        near = self._text[self._at : self._at + 20]
        return ValueError(f"{message}, in line {line} at {near!r}")


# Checking


def _check_references(rules: _Rules) -> None:
    for group in rules.values():
        for name in _references(group):
            if name not in rules:
                raise ValueError(f"it refers to a rule {name[:40]!r}, which it lacks")


def _references(group: _Group) -> Iterator[str]:
    for sequence in group.alternatives:
        for element in sequence:
            if isinstance(element, _Reference):
                yield element.name
            elif isinstance(element, _Group):
                yield from _references(element)


def _check_left_recursion(rules: _Rules) -> None:
    """GBNF has none: a rule may not begin with itself."""
    empty = _nullable(rules)
    first = {name: list(_beginnings(group, empty)) for name, group in rules.items()}
    for name in _on_cycles(first):
        raise ValueError(f"its rule {name[:40]!r} may begin with itself")


def _nullable(rules: _Rules) -> set[str]:
    """The names of the rules that may stand for nothing."""
    empty: set[str] = set()
    while True:
        more = {n for n, group in rules.items() if _is_nullable(group, empty)}
        if more == empty:
            return empty
        empty = more


def _is_nullable(element: _Element, empty: set[str]) -> bool:
    if isinstance(element, _Reference):
        return element.name in empty
    if isinstance(element, _Class):
        return False
    return element.least == 0 or any(
        all(_is_nullable(each, empty) for each in sequence)
        for sequence in element.alternatives
    )


def _beginnings(group: _Group, empty: set[str]) -> Iterator[str]:
    """The names of the rules with which *group* may begin."""
    for sequence in group.alternatives:
        for element in sequence:
            if isinstance(element, _Reference):
                yield element.name
            elif isinstance(element, _Group):
                yield from _beginnings(element, empty)
            if not _is_nullable(element, empty):
                break


def _on_cycles(edges: dict[str, list[str]]) -> Iterator[str]:
    """The names that lead back to themselves: what is left when all others are gone.

    Those that only lead to a cycle stay as well; who asks needs one name or none.
    """
    left = {name: set(to) for name, to in edges.items()}
    while ends := [name for name, to in left.items() if not to & left.keys()]:
        for name in ends:
            del left[name]
    yield from left


def _check_repetition(rules: _Rules) -> None:
    """Refuse counts that multiply, within a rule and across rules.

    In a recursion there is no such product, since each round consumes characters.
    """
    worst: dict[str, int] = {}

    def of_group(group: _Group, under: frozenset[str]) -> int:
        inner = [of_element(e, under) for s in group.alternatives for e in s]
        return group.repetition * max(inner, default=1)

    def of_element(element: _Element, under: frozenset[str]) -> int:
        if isinstance(element, _Group):
            return of_group(element, under)
        if isinstance(element, _Class) or element.name in under:
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


# Writing


def _written(rules: _Rules) -> str:
    numbers = {name: f"r{number}" for number, name in enumerate(rules)}
    lines = [_HEADER, f"start: {numbers['root']}"]
    lines += (f"{numbers[n]}: {_choice(g, numbers)}" for n, g in rules.items())
    return "\n".join(lines) + "\n"


def _choice(group: _Group, numbers: dict[str, str]) -> str:
    return " | ".join(_row(each, numbers) for each in group.alternatives)


def _row(sequence: Sequence[_Element], numbers: dict[str, str]) -> str:
    return " ".join(_one(element, numbers) for element in sequence) or '""'


def _one(element: _Element, numbers: dict[str, str]) -> str:
    if isinstance(element, _Reference):
        return numbers[element.name]
    if isinstance(element, _Class):
        return _terminal(element)
    inner = f"({_choice(element, numbers)})"
    times = (element.least, element.most)
    if times == (1, 1):
        return inner
    for sign, same in _TIMES.items():
        if times == same:
            return inner + sign
    most = "" if element.most is None else element.most
    return f"{inner}{{{element.least},{most}}}"


def _terminal(of: _Class) -> str:
    """One character, as a regular expression of Rust's."""
    if not of.ranges:
        return "/(?s:.)/"
    inner = "".join(f"{_code(low)}-{_code(high)}" for low, high in of.ranges)
    return f"/[{'^' * of.negated}{inner}]/"


def _code(point: int) -> str:
    return f"\\u{{{point:X}}}"
