"""The conversion of GBNF grammars for llguidance."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import gbnf


def rules(grammar: str) -> list[str]:
    """The converted rules, without the header."""
    header, start, *lines = gbnf.to_lark(grammar).splitlines()
    assert header == "%llguidance {}" and start.startswith("start: r")
    return lines


JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def test_common_grammars_are_converted() -> None:
    assert rules('root ::= "no" | [a-c]') == [
        r"r0: /[\u{6E}-\u{6E}]/ /[\u{6F}-\u{6F}]/ | /[\u{61}-\u{63}]/"
    ]
    assert len(rules(JSON)) == 7


@pytest.mark.parametrize(
    "grammar, written",
    [
        ('root ::= "a"*', r"r0: (/[\u{61}-\u{61}]/)*"),
        ('root ::= "ab"+', r"r0: (/[\u{61}-\u{61}]/ /[\u{62}-\u{62}]/)+"),
        ('root ::= "ab"{2}', r"r0: (/[\u{61}-\u{61}]/ /[\u{62}-\u{62}]/){2,2}"),
        ('root ::= "a"{2,}', r"r0: (/[\u{61}-\u{61}]/){2,}"),
        ('root ::= "a"{ 0 , 3 }', r"r0: (/[\u{61}-\u{61}]/){0,3}"),
        ("root ::= [^/\\]]?", r"r0: (/[^\u{2F}-\u{2F}\u{5D}-\u{5D}]/)?"),
        ("root ::= [a-]", r"r0: /[\u{61}-\u{61}\u{2D}-\u{2D}]/"),
        ('root ::= "\\x41\\u00e9\\t"', r"r0: /[\u{41}-\u{41}]/ /[\u{E9}-\u{E9}]/"),
        ("root ::= .", "r0: /(?s:.)/"),
        ("root ::= ", 'r0: ""'),
        ('root ::= "" .', 'r0: ("") /(?s:.)/'),
        ("root ::= a |\n  a\na ::= .\n# end", "r0: r1 | r1"),
        ("root ::= (a\n a)\r\na ::= .", "r0: (r1 r1)"),
    ],
)
def test_each_construct_is_converted(grammar: str, written: str) -> None:
    assert rules(grammar)[0].startswith(written)


@pytest.mark.parametrize(
    "grammar, message",
    [
        ("", "no rule named root"),
        ('a ::= "x"', "no rule named root"),
        ('%llguidance {}\nstart: "x"', "expected the name of a rule, in line 1"),
        ('root ::= "x', "ends within a literal"),
        ("root ::= [a", "ends within a literal or a class"),
        ("root ::= []", "class of characters is empty"),
        ("root ::= [b-a]", "ends before it begins"),
        ('root ::= "\\q"', "unknown escape"),
        ('root ::= "\\uD800"', "stands for no character"),
        ('root ::= "\\UFFFFFFFF"', "stands for no character"),
        ("root ::= *", "something before it to repeat"),
        ('root ::= "a"{}', "expected {n}"),
        ('root ::= "a"{3,2}', "ends before it begins"),
        ('root ::= ("a"', "expected )"),
        ('root ::= "a")', "expected the end of the rule"),
        ("root ::= <[5]>", "tokens are not supported"),
        ("root = a", "expected ::="),
        ("root ::= other", "refers to a rule 'other'"),
    ],
)
def test_malformed_grammar_is_described(grammar: str, message: str) -> None:
    with pytest.raises(ValueError, match=".") as refused:
        gbnf.to_lark(grammar)

    assert message in str(refused.value)


LEFT_RECURSIVE = {
    "itself": 'root ::= root "x" | "y"',
    "through others": 'root ::= a\na ::= b "x"\nb ::= a | "y"',
    "behind nothing": 'root ::= e root "x"\ne ::= "z"?',
    "in a group": 'root ::= ("z"* root)+',
}

HOSTILE = {
    "open groups": "root ::= " + "(" * 200_000,
    "nested groups": "root ::= " + "(" * 17 + '"x"' + ")" * 17,
    "long": 'root ::= "' + "x" * 8192 + '"',
    "repetition": 'root ::= "a"{1001}',
    "repetition without end": 'root ::= "a"{1001,}',
    "nested repetition": 'root ::= (("a"{1,40}){1,40})',
    "repetition in other rules": 'root ::= a{40}\na ::= b{40}\nb ::= "x"',
    "rules": "root ::= .\n" * 1 + "".join(f"r{i} ::= .\n" for i in range(256)),
    "elements": "root ::= " + "." * 4097,
    **{f"left recursion: {k}": v for k, v in LEFT_RECURSIVE.items()},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="allowed|more than|begin with itself"):
        gbnf.to_lark(HOSTILE[name])


def test_exponential_grammars_parse_in_linear_time() -> None:
    """llama.cpp's own search for left recursion takes 2**100 steps for this one."""
    chain = "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(100))
    began = time.monotonic()
    rules(f"root ::= r0\n{chain}r100 ::= .")

    assert time.monotonic() - began < 2


PIECES = st.sampled_from([*'"[](){}|*+?.^-\\#<!\n', " ::= ", "root", "a", "{1,9}"])


@given(st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=200))
def test_any_text_is_converted_or_refused(text: str) -> None:
    try:
        written = gbnf.to_lark("root ::= " + text)
    except ValueError as e:
        assert str(e)
    else:
        assert written.isascii() and written.count("\n") == written.count(": ") + 1
