"""The layers of app/ and their allowed imports, checked in the source."""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "app").rglob("*.py"))

# From the edge to the values. A layer may import itself and those after it. Modules
# that are not listed are wiring, and may import anything.
LAYERS = (
    "app.server",
    "app.console",
    "app.cli",
    "app.api",
    "app.observability",
    "app.gateway",
    "app.upstream",
    "app.store",
    "app.state",
    "app.planning",
    "app.providers",
    "app.core",
    "app.errors",
)

# Layers without effects: their results depend on their arguments alone.
PURE = ("app.planning", "app.providers", "app.core", "app.errors")

# The only modules that may import, or name, each of these.
ONLY = {
    "click": ("app/cli",),
    "flask": ("app/api", "app/cli", "app/console", "app/__init__.py"),
    "werkzeug": ("app/api",),
    "marshmallow": ("app/api",),
    "jinja2": ("app/console",),
    "markupsafe": ("app/console",),
    "itsdangerous": ("app/console",),
    "requests": (
        "app/upstream/client.py",
        "app/upstream/http1",
        # Oracle's package signs requests of the package `requests`.
        "app/upstream/auth/request_signing.py",
    ),
    "urllib3": (
        "app/upstream/client.py",
        "app/upstream/http1",
        "app/upstream/ssrf.py",
        "app/upstream/tls.py",
    ),
    "apispec": ("app/api/openapi",),
    "re2": ("app/api",),
    "sqlalchemy": ("app/store",),
    "alembic": ("app/store",),
    "prometheus_client": ("app/observability", "app/server/hooks.py"),
    "opentelemetry": ("app/observability/traces.py",),
    "cryptography": ("app/store",),
    "time": (
        "app/observability",
        "app/api",
        "app/cli",
        "app/console",
        "app/gateway",
        "app/upstream",
        "app/state",
        "app/store",
        "app/server",
    ),
    # It takes 30 MB: only `make prices` installs it.
    "genai_prices": (),
    "random": ("app/gateway", "app/upstream"),
    "uuid": ("app/api", "app/state/meter.py"),
    "socket": (
        "app/gateway",
        "app/upstream",
        "app/server",
        "app/core/hosts.py",
    ),
    "os": (
        "app/upstream/tls.py",
        "app/cli",
        "app/server",
        "app/store/secret_box.py",
    ),
}


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1])
            module = ".".join(filter(None, [base if node.level else "", node.module]))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    within = (
        i for i, name in enumerate(LAYERS) if (module + ".").startswith(name + ".")
    )
    return next(within, None)


def upward(importer: str, modules: Iterable[str]) -> list[str]:
    """Those of *modules* that lie in a layer above that of *importer*."""
    own = layer(importer)
    if own is None:
        return []
    # The first layer is number 0, which is false: compare with None.
    return [m for m in modules if (other := layer(m)) is not None and other < own]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_in_one_direction(path: Path) -> None:
    module = ".".join(path.with_suffix("").parts)

    assert upward(module, imports(path)) == []


@pytest.mark.parametrize("number", range(1, len(LAYERS)))
def test_upward_imports_are_detected(number: int) -> None:
    """An import of any layer above is detected, including the first one."""
    above = [f"{name}.module" for name in LAYERS[:number]]

    assert upward(f"{LAYERS[number]}.module", above) == above
    assert upward(f"{LAYERS[number - 1]}.module", [LAYERS[number]]) == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_effects_stay_in_the_shell(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imports(path)}
    strangers = [
        name
        for name in sorted(roots & set(ONLY))
        if not any(str(path).startswith(prefix) for prefix in ONLY[name])
    ]

    assert strangers == []


@pytest.mark.parametrize("path", sorted((ROOT / "app" / "core").glob("*.py")), ids=str)
def test_core_imports_only_standard_library(path: Path) -> None:
    modules = imports(path.relative_to(ROOT))
    roots = {module.partition(".")[0] for module in modules} - {"app"}

    assert roots <= sys.stdlib_module_names


def test_few_modules_read_the_environment() -> None:
    readers = {
        str(path)
        for path in [*FILES, Path("wsgi.py"), Path("gunicorn.conf.py")]
        if "os.environ" in (ROOT / path).read_text()
    }

    assert readers == {
        "app/cli/apply_export.py",
        "app/cli/inputs.py",
        "app/server/engine_process.py",
        "app/server/hooks.py",
        "wsgi.py",
        "gunicorn.conf.py",
    }
