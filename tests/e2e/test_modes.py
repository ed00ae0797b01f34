"""A gateway's files are readable by their owner only, whatever the umask."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.upstream import Upstream, completion, whole

from .server import ROOT, Server, eventually

pytestmark = pytest.mark.e2e


@contextmanager
def umask(number: int) -> Iterator[None]:
    before = os.umask(number)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """The modes of a folder and of everything in it."""
    paths = {".": folder} | {path.name: path for path in folder.rglob("*")}
    return {
        name: f"{stat.S_IMODE(path.stat().st_mode):04o}" for name, path in paths.items()
    }


def flask(*command: str, **environ: str) -> str:
    """The output of a `flask` command."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "flask", *command],
        cwd=ROOT,
        env=inherited | environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


CACHED = (
    '{"provider": "openai", "api_key": "k", "custom_host": "%s", '
    '"cache": {"mode": "simple"}}'
)


def test_all_files_are_private(script: Any, tmp_path: Path) -> None:
    upstream: Upstream = script(whole(completion()))
    instance, metrics = tmp_path / "a" / "instance", tmp_path / "metrics"
    with umask(0):
        metrics.mkdir(mode=0o700)
        environ = {"GATEWAY_INSTANCE": str(instance)}
        limit = ("--limit", "requests_per_minute=100")
        output = flask("keys", "create", "job", *limit, "--json", **environ)
        server = Server(
            WEB_CONCURRENCY="2",
            GATEWAY_TRUSTED_CUSTOM_HOSTS="127.0.0.1",
            PROMETHEUS_MULTIPROC_DIR=str(metrics),
            **environ,
        )
    try:
        sent = {
            "x-portkey-config": CACHED % upstream.url,
            "x-portkey-api-key": json.loads(output)[0]["key"],
        }
        for _ in range(4):
            assert server.complete(sent).status_code == 200
        eventually(lambda: "cache.db-wal" in modes(instance))
        eventually(lambda: "gateway.db-wal" in modes(instance))
        files = modes(instance) | {f"m/{k}": v for k, v in modes(metrics).items()}
    finally:
        server.stop()

    folders = {files.pop("."): 1, files.pop("m/."): 1}
    assert set(folders) == {"0700"}
    assert {"gateway.db", "gateway.db-shm", "limits.db", "secret.key"} <= set(files)
    assert any(name.startswith("m/") for name in files)
    assert set(files.values()) == {"0600"}, files
    assert modes(tmp_path)["a"] == "0755"


def test_modes_of_existing_files_are_corrected(tmp_path: Path) -> None:
    instance = tmp_path / "instance"
    environ = {"GATEWAY_INSTANCE": str(instance)}
    flask("keys", "create", "job", **environ)
    for path in (instance, *instance.iterdir()):
        path.chmod(0o755 if path == instance else 0o644)
    server = Server(WEB_CONCURRENCY="1", **environ)
    try:
        assert server.get("/healthz").ok
        now = modes(instance)
    finally:
        server.stop()

    assert now.pop(".") == "0700" and set(now.values()) == {"0600"}
    message = f"{instance / 'gateway.db'}: mode was 0644, and is 0600 now"
    assert any(message in line for line in server.log), server.log_text
    assert any(f"{instance}: mode was 0755" in line for line in server.log)
