"""docs/contract.md lists the cases of the contract and the tests that cover them.

A test that begins with numbers, as `test_5_6_...`, covers the cases of these numbers.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from .pages import ROOT

PAGE = (ROOT / "docs/contract.md").read_text()

# The text before the first case, then alternately the number of a case and its text,
# which ends at the next heading.
_PARTS = re.split(r"^### Case (\d+)$", PAGE, flags=re.M)
NUMBERS = [int(number) for number in _PARTS[1::2]]
CASES = {
    number: re.split(r"^#", text, maxsplit=1, flags=re.M)[0]
    for number, text in zip(NUMBERS, _PARTS[2::2], strict=True)
}

_REFERENCE = re.compile(r"`(tests/[\w/]+\.py::\w+)`")
_CASE_NUMBERS = re.compile(r"::test_((?:\d+_)+)")


@cache
def defined_tests() -> list[str]:
    """All test functions of this repository, as pages name them."""
    return [
        f"{file.relative_to(ROOT).as_posix()}::{node.name}"
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def numbered_tests() -> Iterator[tuple[int, str]]:
    """Case numbers in names of tests, each with the test."""
    for test in defined_tests():
        if match := _CASE_NUMBERS.search(test):
            for number in match[1].rstrip("_").split("_"):
                yield int(number), test


def test_case_numbers_occur_once() -> None:
    assert NUMBERS == [*range(1, 121)]


@pytest.mark.parametrize("number", CASES)
def test_cases_have_every_part(number: int) -> None:
    """A request, the right result, its source, and tests or a reason for none."""
    request, *parts = CASES[number].strip().split("\n- ")
    names = [part.split("**")[1] for part in parts]
    tests = _REFERENCE.findall(CASES[number])

    assert request.strip()
    assert names[:3] == ["Right", "Source", "Tests"]
    assert names[3:] in ([], ["No test yet"])
    assert bool(tests) != parts[2].startswith("**Tests**: no test yet.")
    assert len(tests) == len({*tests})


def test_listed_tests_exist() -> None:
    assert {*_REFERENCE.findall(PAGE)} - {*defined_tests()} == set()


def test_references_are_well_formed() -> None:
    """A misspelled reference is not ignored."""
    assert len(re.findall(r"::\w", PAGE)) == len(_REFERENCE.findall(PAGE))


def test_numbered_tests_are_listed() -> None:
    missing = [
        (number, test)
        for number, test in numbered_tests()
        if f"`{test}`" not in CASES.get(number, "")
    ]

    assert missing == []


def test_numbered_files_name_the_page() -> None:
    files = {test.partition("::")[0] for _, test in numbered_tests()}
    docstrings = {
        file: ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
        for file in files
    }

    assert files
    assert [file for file in files if "docs/contract.md" not in docstrings[file]] == []
