"""The promises of docs/security.md name the tests that check them."""

import ast
import re

import pytest

from .pages import ROOT

_REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
REFERENCES = _REFERENCE.findall((ROOT / "docs/security.md").read_text())


@pytest.mark.parametrize("file, name", REFERENCES, ids=[n for _, n in REFERENCES])
def test_promised_test_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())

    assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_every_promise_names_a_test() -> None:
    page = (ROOT / "docs/security.md").read_text()
    table = page.split("**What is promised.**")[1].split("**What is not promised**")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]

    assert len(rows) >= 20
    assert [row for row in rows if not _REFERENCE.search(row)] == []
