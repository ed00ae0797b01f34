"""docs/architecture.md and docs/glossary.md name files and definitions that exist.

Also: no two classes, and no two modules, of app/ share a name, so that a name on these
pages, or in a traceback, stands for one thing.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from tests.test_layers import LAYERS

from .pages import ROOT

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
GLOSSARY = (ROOT / "docs/glossary.md").read_text()
MODULES = sorted((ROOT / "app").rglob("*.py"))

_MAX_TERMS = 30

_CODE = re.compile(r"`([^`]+)`")
_FILE = re.compile(r"`((?:app|tests)/[\w/]+(?:\.py)?|\w[\w.]*\.py)`")
# In prose: `Name` in `app/file.py`, perhaps on the next line.
_NAME_IN_FILE = re.compile(r"`([\w.]+)`\s+in\s+`(app/[\w/]+\.py)`")

# Modules that share a name, where the package says what each is about.
SHARED_MODULE_NAMES = {
    "body": {"api/request", "upstream/http1"},  # of requests; framing of answers
    "configs": {"cli", "console"},  # commands; pages
    "errors": {"", "api"},  # the tree of errors; Flask's handlers of them
    "headers": {"api/openapi", "api/request"},  # their documentation; their values
    "metrics": {"api", "observability"},  # the endpoint; the metrics
    "private_names": {"server", "upstream/http1"},  # of gunicorn; of urllib3
    "schemas": {"api/openapi", "api/request"},  # of OpenAPI; of marshmallow
}


def table_rows(page: str) -> list[list[str]]:
    """The cells of each row of the tables of *page*, without heads."""
    lines = page.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line, before in zip(lines[1:], lines, strict=False)
        if line.startswith("| ") and before.startswith("|")
    ]


@cache
def defined_names(path: str) -> set[str]:
    """What a module defines: names at its top, and `Outer.inner` one level below."""
    names: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        for name in names_bound(node):
            names.add(name)
            inner = getattr(node, "body", [])
            names |= {f"{name}.{n}" for each in inner for n in names_bound(each)}
    return names


def names_bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (t.id for t in node.targets if isinstance(t, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


TABLES = [row for row in table_rows(ARCHITECTURE) if len(row) == 3]
REFERENCES = [
    *(
        (_CODE.findall(row[1])[0], name)
        for row in TABLES
        for name in _CODE.findall(row[2])
    ),
    *((path, name) for name, path in _NAME_IN_FILE.findall(ARCHITECTURE)),
]
TERMS = table_rows(GLOSSARY)


@pytest.mark.parametrize("path, name", sorted(set(REFERENCES)))
def test_name_exists_in_file(path: str, name: str) -> None:
    assert name in defined_names(path)


def test_pages_name_many_references() -> None:
    """The patterns above match the references of the pages."""
    assert len(TABLES) >= 90
    assert len(REFERENCES) >= 120


@pytest.mark.parametrize(
    "page", [ARCHITECTURE, GLOSSARY], ids=["architecture", "glossary"]
)
def test_named_files_exist(page: str) -> None:
    missing = {
        path
        for path in _FILE.findall(page)
        if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()
    }

    assert missing == set()


def test_layers_are_those_of_the_layer_test() -> None:
    layers = [row[0].strip("`") for row in table_rows(ARCHITECTURE) if len(row) == 2]

    assert layers == [layer.replace(".", "/") for layer in LAYERS]


def test_glossary_is_short() -> None:
    terms = [term for term, _, _ in TERMS]

    assert len(terms) <= _MAX_TERMS
    assert len(terms) == len(set(terms))


@pytest.mark.parametrize("term, meaning, path", TERMS, ids=[row[0] for row in TERMS])
def test_glossary_term_exists_in_file(term: str, meaning: str, path: str) -> None:
    """A term without a definition of its own names the one that it stands for."""
    names = _CODE.findall(term) or _CODE.findall(meaning)

    assert names
    assert set(names) <= defined_names(path.strip("`"))
    assert meaning.endswith(".") and meaning.count(". ") == 0


def test_class_names_are_unique() -> None:
    """Classes at the top of modules; marshmallow's inner `Meta` is no name of ours."""
    counts = Counter(
        node.name
        for module in MODULES
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.ClassDef)
    )

    assert [name for name, count in counts.items() if count > 1] == []


def test_module_names_are_unique() -> None:
    packages: dict[str, set[str]] = {}
    for module in MODULES:
        package = module.parent.relative_to(ROOT / "app").as_posix().removeprefix(".")
        packages.setdefault(module.stem, set()).add(package)
    del packages["__init__"]
    shared = {name: where for name, where in packages.items() if len(where) > 1}

    assert shared == SHARED_MODULE_NAMES
