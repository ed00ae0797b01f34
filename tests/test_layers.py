"""The layers: who may import whom, read from the source itself."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "app").rglob("*.py"))

# A layer may import those after it. What is not named here is wiring, and free.
LAYERS = (
    "app.console",
    "app.api",
    "app.observability",
    "app.gateway",
    "app.store",
    "app.state",
    "app.providers",
    "app.core",
    "app.errors",
)

# Who alone may import, or name, what.
ONLY = {
    "click": ("app/cli",),
    "flask": ("app/api", "app/cli", "app/console", "app/__init__.py"),
    "werkzeug": ("app/api",),
    "marshmallow": ("app/api",),
    "jinja2": ("app/console",),
    "markupsafe": ("app/console",),
    "itsdangerous": ("app/console",),
    "requests": (
        "app/gateway/upstream.py",
        "app/gateway/adapter.py",
        "app/gateway/connections.py",
        "app/gateway/heads.py",
        # Oracle's package signs requests of requests.
        "app/gateway/signing.py",
    ),
    "urllib3": (
        "app/gateway/upstream.py",
        "app/gateway/adapter.py",
        "app/gateway/connections.py",
        "app/gateway/guard.py",
        "app/gateway/tls.py",
    ),
    "apispec": ("app/api/openapi",),
    "re2": ("app/api",),
    "sqlalchemy": ("app/store",),
    "alembic": ("app/store",),
    "prometheus_client": ("app/observability",),
    "opentelemetry": ("app/observability/traces.py",),
    "cryptography": ("app/store",),
    "time": (
        "app/observability",
        "app/api",
        "app/cli",
        "app/console",
        "app/gateway",
        "app/state",
        "app/store",
        "app/engine.py",
        "app/malformed.py",
        "app/worker.py",
    ),
    # Takes 30 MB: only `make prices` has it.
    "genai_prices": (),
    "random": ("app/gateway",),
    "uuid": ("app/api", "app/state/limits.py"),
    "socket": (
        "app/gateway",
        "app/engine.py",
        "app/malformed.py",
        "app/worker.py",
        "app/core/hosts.py",
    ),
    "os": ("app/gateway/tls.py", "app/cli", "app/engine.py", "app/store/sealing.py"),
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


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    own = layer(".".join(path.with_suffix("").parts))
    above = [m for m in imports(path) if own is not None and (layer(m) or own) < own]

    assert above == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_effects_stay_in_the_shell(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imports(path)}
    strangers = [
        name
        for name in sorted(roots & set(ONLY))
        if not any(str(path).startswith(place) for place in ONLY[name])
    ]

    assert strangers == []


@pytest.mark.parametrize("path", sorted((ROOT / "app" / "core").glob("*.py")), ids=str)
def test_the_core_uses_the_standard_library_alone(path: Path) -> None:
    modules = imports(path.relative_to(ROOT))
    roots = {module.partition(".")[0] for module in modules} - {"app"}

    assert roots <= sys.stdlib_module_names


def test_the_environment_is_read_where_it_is_wired_only() -> None:
    readers = {
        str(path)
        for path in [*FILES, Path("wsgi.py"), Path("gunicorn.conf.py")]
        if "os.environ" in (ROOT / path).read_text()
    }

    assert readers == {
        "app/cli/declared.py",
        "app/cli/inputs.py",
        "app/engine.py",
        "wsgi.py",
        "gunicorn.conf.py",
    }
