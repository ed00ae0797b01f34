"""deploy/Dockerfile, as far as it can be tested without a Docker daemon."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from .files import DEPLOY, INSTANCE, PORT, ROOT, USER, instructions, last_stage


def copied() -> Iterator[tuple[str, str]]:
    """The sources of each COPY in this folder, and their destinations."""
    for name, rest in last_stage():
        if name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            yield from ((source, target) for source in sources)


def test_hadolint_reports_no_problems() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), str(DEPLOY / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


def test_copied_files_suffice_to_start(tmp_path: Path) -> None:
    for source, target in copied():
        path = tmp_path / (source if target == "./" else target)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, path)
    code = "import app, runpy, wsgi; runpy.run_path('gunicorn.conf.py');"
    code += "print(app.__file__, wsgi.app.name)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"GATEWAY_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == [str(tmp_path / "app" / "__init__.py"), "lastword"]


def test_build_context_holds_copied_files() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignore if line.startswith("!")}
    copies = [rest.split() for name, rest in instructions() if name == "COPY"]
    sources = {s for words in copies if "--" not in words[0] for s in words[:-1]}

    assert "*" in ignore
    assert {source.partition("/")[0] for source in sources} == let_through
    assert all((ROOT / source).exists() for source in sources)


def test_image_user_owns_its_volume() -> None:
    stage = dict(last_stage())
    environment = " ".join(rest for name, rest in last_stage() if name == "ENV")
    makes_folder = f"install -d -o {USER} -g {USER} -m 0700 {INSTANCE}"

    assert stage["USER"] == f"{USER}:{USER}"
    assert stage["VOLUME"] == INSTANCE
    assert stage["EXPOSE"] == str(PORT)
    assert makes_folder in stage["RUN"]
    assert f"GATEWAY_INSTANCE={INSTANCE}" in environment
    assert f"GATEWAY_BIND=0.0.0.0:{PORT}" in environment
    assert json.loads(stage["CMD"]) == ["gunicorn"]


def test_base_image_is_pinned() -> None:
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    arguments = [rest for name, rest in instructions() if name == "ARG"]

    assert bases == ["python:${PYTHON}"] * 2
    assert re.fullmatch(r"PYTHON=3\.\d+-slim-\w+", arguments[0])


@pytest.mark.parametrize("status, healthy", [(200, True), (503, False)])
def test_healthcheck_follows_readiness(status: int, healthy: bool) -> None:
    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    _, _, check = dict(last_stage())["HEALTHCHECK"].partition("CMD ")
    _, *arguments = json.loads(check)
    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        code = arguments[1].replace(f":{PORT}/", f":{server.server_port}/")
        done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        thread.join()

    assert (done.returncode == 0) == healthy
