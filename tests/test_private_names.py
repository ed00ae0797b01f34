"""Undocumented names of libraries: each one is listed, used, and exists."""

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest

from app.server import private_names as server
from app.server.private_names import IncompatibleLibrary, missing_names, replace
from app.upstream.http1 import private_names as http1

ROOT = Path(__file__).parent.parent
SERVER = sorted((ROOT / "app" / "server").glob("*.py"))
UPSTREAM = [
    *sorted((ROOT / "app" / "upstream" / "http1").glob("*.py")),
    ROOT / "app" / "upstream" / "ssrf.py",
    ROOT / "app" / "upstream" / "tls.py",
]
EDGE = [
    *sorted((ROOT / "app" / "gateway" / "clients").glob("*.py")),
    ROOT / "app" / "api" / "response.py",
]
LISTS = [(path, http1.PRIVATE_NAMES) for path in UPSTREAM]
LISTS += [(path, server.PRIVATE_NAMES) for path in SERVER + EDGE]

# Documented, though it looks private.
DOCUMENTED = {"_exit"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def inherited(path: Path, class_name: str) -> set[str]:
    """The private names of the library classes that a class of ours derives from."""
    module = importlib.import_module(module_name(path))
    names: set[str] = set()
    for ancestor in getattr(getattr(module, class_name, None), "__mro__", ()):
        if ancestor.__module__.partition(".")[0] in ("app", "builtins"):
            continue
        for name, member in vars(ancestor).items():
            names.add(name)
            if inspect.isfunction(member):
                names.update(inspect.unwrap(member).__code__.co_names)
    return set(filter(is_private, names))


def definitions(tree: ast.AST) -> set[str]:
    """The private names that a file defines: functions, variables, attributes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            if isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return set(filter(is_private, names))


def mentions(tree: ast.AST) -> Iterator[str]:
    """The private names that are defined as methods, or taken from an object."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr
        elif isinstance(node, ast.FunctionDef) and is_private(node.name):
            yield node.name


def library_names(path: Path) -> Iterator[str]:
    """The private names of libraries that a file of ours uses.

    In a class that derives from a library's: those that the two share, and what it
    calls by super(). Elsewhere: those that no file of the same folder defines.
    """
    tree = ast.parse(path.read_text())
    own: set[str] = set(DOCUMENTED)
    for sibling in path.parent.glob("*.py"):
        own |= definitions(ast.parse(sibling.read_text()))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            shared = inherited(path, node.name)
            yield from (name for name in mentions(node) if name in shared)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from filter(is_private, (alias.name for alias in node.names))
        elif isinstance(node, ast.Attribute) and is_super(node.value):
            yield from filter(is_private, [node.attr])
    yield from (name for name in mentions(tree) if name not in own)


def is_super(node: ast.AST) -> bool:
    call = node.func if isinstance(node, ast.Call) else None
    return isinstance(call, ast.Name) and call.id == "super"


def last(name: str) -> str:
    return name.rpartition(".")[2]


@pytest.mark.parametrize(
    "name", sorted({*http1.PRIVATE_NAMES, *server.PRIVATE_NAMES}), ids=str
)
def test_listed_name_exists(name: str) -> None:
    assert list(missing_names([name])) == []


@pytest.mark.parametrize(
    "path, names", LISTS, ids=[str(path.relative_to(ROOT)) for path, _ in LISTS]
)
def test_private_name_is_listed(path: Path, names: Mapping[str, str]) -> None:
    assert set(library_names(path)) <= set(map(last, names))


@pytest.mark.parametrize(
    "paths, names",
    [(UPSTREAM, http1.PRIVATE_NAMES), (SERVER + EDGE, server.PRIVATE_NAMES)],
    ids=["upstream", "server"],
)
def test_listed_private_name_is_used(
    paths: list[Path], names: Mapping[str, str]
) -> None:
    used = {name for path in paths for name in library_names(path)}
    # ssrf.py declares it in a class that has its library only in its subclasses.
    used |= {"_dns_host"} if paths is UPSTREAM else set()

    assert set(filter(is_private, map(last, names))) <= used


def test_missing_name_is_reported_with_version() -> None:
    with pytest.raises(IncompatibleLibrary) as error:
        server.require({"gunicorn.util.no_such_function": "does what we need"})

    version = metadata.version("gunicorn")
    assert f"gunicorn {version} has no gunicorn.util.no_such_function" in str(
        error.value
    )
    assert "does what we need" in str(error.value)


@pytest.mark.parametrize(
    "name",
    ["no_such_library.name", "gunicorn.no_such_module.name"]
    + ["gunicorn.util.NoSuchClass.name", "gunicorn.http.message.Message.no_such_name"],
)
def test_unknown_name_is_missing(name: str) -> None:
    assert list(missing_names([name])) == [name]


def test_unlisted_name_is_not_replaced() -> None:
    with pytest.raises(KeyError):
        replace("gunicorn.util.seed", None)
