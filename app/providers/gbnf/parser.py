"""GBNF, parsed as llama.cpp's own parser does, within bounds.

It descends recursively, and the depth of its groups is bounded: the parser has no other
recursion. Elements are counted as they are read, so that no bound is checked too late.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-grammar.cpp
"""

import re

from .grammar import (
    MAX_REPETITION,
    REPETITION_OPERATORS,
    CharacterClass,
    Element,
    ElementSequence,
    RepeatedGroup,
    RuleReference,
    Rules,
)

# Groups within groups, rules, and elements (characters, classes, references) of all
# rules together.
MAX_DEPTH = 16
MAX_RULES = 256
MAX_ELEMENTS = 4096

# Their alternatives begin with different characters, so that none backtracks for long.
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
# Nine digits at most, since int() takes long for many; the value is bounded later.
_COUNTS = re.compile(r"\{[ \t]*([0-9]{1,9})[ \t]*(,[ \t]*([0-9]{1,9})?[ \t]*)?\}")
# \xHH, \uHHHH, \UHHHHHHHH, or a character that stands for itself, or for a control.
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([trn\\\"\[\]-]))"
)
_SHORT_ESCAPES = {"t": 9, "r": 13, "n": 10}
# Any character: the negation of an empty class.
_ANY = CharacterClass((), negated=True)


class GBNFParser:
    """Reads one grammar, as llama.cpp's own parser does.

    A rule ends with its line, except within parentheses and after `::=` or `|`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._elements = 0

    def rules(self) -> Rules:
        # A rule that is defined twice has its last definition, as in llama.cpp.
        rules: Rules = {}
        self._skip(lines=True)
        while self._position < len(self._text):
            name = self._name("the name of a rule")
            self._skip(lines=False)
            if not self._text.startswith("::=", self._position):
                raise self._error("expected ::=")
            self._position += 3
            self._skip(lines=True)
            rules[name] = RepeatedGroup(self._alternatives(0))
            if len(rules) > MAX_RULES:
                raise ValueError(f"it has more than {MAX_RULES} rules")
            if self._peek() not in ("", "\r", "\n"):
                raise self._error("expected the end of the rule")
            self._skip(lines=True)
        if "root" not in rules:
            raise ValueError("it has no rule named root")
        return rules

    def _alternatives(self, depth: int) -> tuple[ElementSequence, ...]:
        sequences = [self._sequence(depth)]
        while self._peek() == "|":
            self._position += 1
            self._skip(lines=True)
            sequences.append(self._sequence(depth))
        return tuple(sequences)

    def _sequence(self, depth: int) -> ElementSequence:
        elements: list[Element] = []
        # What an operator repeats: a literal is several elements, and all are repeated.
        last: ElementSequence = ()
        while (char := self._peek()) not in ("", "|", ")", "\r", "\n"):
            if char in "*+?{":
                if not last:
                    raise self._error("expected something before it to repeat")
                del elements[-len(last) :]
                last = (RepeatedGroup((last,), *self._repetition()),)
            else:
                last = self._item(char, depth)
                if not last:
                    # The empty literal, which may be repeated as well.
                    last = (RepeatedGroup(((),)),)
            elements += last
            # At once: 8,192 characters could be as many elements.
            self._count(len(last))
            self._skip(lines=depth > 0)
        return tuple(elements)

    def _item(self, char: str, depth: int) -> ElementSequence:
        if char == '"':
            self._position += 1
            codes = []
            while self._peek() != '"':
                codes.append(self._character())
            self._position += 1
            return tuple(CharacterClass(((code, code),)) for code in codes)
        if char == "[":
            self._position += 1
            return (self._class(),)
        if char == ".":
            self._position += 1
            return (_ANY,)
        if char == "(":
            return (self._group(depth + 1),)
        # `<token>` and `!<token>` name tokens, and the vocabulary is not known here.
        if char in "<!":
            raise self._error("tokens are not supported, only characters are")
        return (RuleReference(self._name("a literal, a class, a name or a group")),)

    def _group(self, depth: int) -> RepeatedGroup:
        if depth > MAX_DEPTH:
            raise ValueError(f"its groups are nested more than {MAX_DEPTH} deep")
        self._position += 1
        self._skip(lines=True)
        group = RepeatedGroup(self._alternatives(depth))
        if self._peek() != ")":
            raise self._error("expected )")
        self._position += 1
        return group

    def _class(self) -> CharacterClass:
        negated = self._peek() == "^"
        self._position += negated
        ranges = []
        while self._peek() != "]":
            low = high = self._character()
            # A "-" before the "]" is itself a member: `[a-]`.
            if (
                self._peek() == "-"
                and self._text[self._position + 1 : self._position + 2] != "]"
            ):
                self._position += 1
                high = self._character()
            if high < low:
                raise self._error("a range ends before it begins")
            ranges.append((low, high))
            self._count(1)
        self._position += 1
        if not ranges:
            raise self._error("a class of characters is empty")
        return CharacterClass(tuple(ranges), negated)

    def _character(self) -> int:
        """The code point of the next character, which may be escaped."""
        char = self._peek()
        if not char:
            raise self._error("it ends within a literal or a class")
        if char != "\\":
            self._position += 1
            return ord(char)
        escaped = _ESCAPE.match(self._text, self._position)
        if escaped is None:
            raise self._error("unknown escape")
        self._position = escaped.end()
        short = escaped[4]
        if short:
            return _SHORT_ESCAPES.get(short, ord(short))
        code = int(escaped[1] or escaped[2] or escaped[3], 16)
        # Beyond Unicode, or half of a surrogate pair: in no UTF-8 text.
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self._error("an escape stands for no character")
        return code

    def _repetition(self) -> tuple[int, int | None]:
        char = self._peek()
        if char in REPETITION_OPERATORS:
            self._position += 1
            return REPETITION_OPERATORS[char]
        counts = _COUNTS.match(self._text, self._position)
        if counts is None:
            raise self._error("expected {n}, {n,} or {n,m}")
        self._position = counts.end()
        # {n} is exactly n times, {n,} at least n, {n,m} n to m.
        minimum = int(counts[1])
        maximum = int(counts[3]) if counts[3] else None if counts[2] else minimum
        if maximum is not None and maximum < minimum:
            raise self._error("a repetition ends before it begins")
        if max(minimum, maximum or 0) > MAX_REPETITION:
            raise ValueError(
                f"it repeats something {max(minimum, maximum or 0)} times, and at most "
                f"{MAX_REPETITION} are allowed"
            )
        return minimum, maximum

    def _name(self, expected: str) -> str:
        name = _NAME.match(self._text, self._position)
        if name is None:
            raise self._error(f"expected {expected}")
        self._position = name.end()
        return name[0]

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _skip(self, *, lines: bool) -> None:
        space = (_SPACE_AND_LINES if lines else _SPACE).match(
            self._text, self._position
        )
        self._position = space.end() if space else self._position

    def _count(self, more: int) -> None:
        self._elements += more
        if self._elements > MAX_ELEMENTS:
            raise ValueError(f"it has more than {MAX_ELEMENTS} elements")

    def _error(self, message: str) -> ValueError:
        line = self._text.count("\n", 0, self._position) + 1
        near = self._text[self._position : self._position + 20]
        return ValueError(f"{message}, in line {line} at {near!r}")
