"""All deployments agree on names of settings and on the time to stop."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from yamllint import linter
from yamllint.config import YamlLintConfig

from app.settings import Settings

from .files import (
    DEPLOY,
    KUBERNETES,
    ROOT,
    VARIABLES,
    documents,
    env_file,
    load,
    seconds,
)
from .test_systemd import SERVICE

FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
COMPOSE = load(DEPLOY / "compose.yaml")["services"]

RULES = """
extends: default
rules:
  document-start: disable
  line-length: {max: 120}
  comments: {min-spaces-from-content: 1}
  indentation: {indent-sequences: consistent}
"""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_deploy_files_use_existing_settings(path: Path) -> None:
    named = set(re.findall(r"\bGATEWAY_[A-Z][A-Z_]*", path.read_text()))

    assert named <= VARIABLES


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".yaml"], ids=lambda p: p.name
)
def test_yamllint_reports_no_problems(path: Path) -> None:
    problems = linter.run(path.read_text(), YamlLintConfig(RULES))

    assert [str(each) for each in problems] == []


def test_proxied_deployments_trust_the_proxy() -> None:
    """gunicorn and the gateway trust one proxy; nginx sends the client's address."""
    environments = [
        COMPOSE["gateway-1"]["environment"],
        env_file(KUBERNETES / "gateway.env"),
    ]
    nginx = (DEPLOY / "nginx.conf").read_text()
    passes = nginx.count("proxy_pass http://lastword;")

    for environ in environments:
        assert "FORWARDED_ALLOW_IPS" in environ
        settings = Settings.from_environ(environ | {"GATEWAY_PRICES": ""})
        assert settings.trusted_proxies and settings.auth == "keys"
    assert "GATEWAY_TRUSTED_PROXIES=127.0.0.1" in nginx
    assert nginx.count("proxy_set_header X-Forwarded-For $remote_addr;") == passes


def graceful_timeout(drain: str) -> float:
    """gunicorn's graceful timeout, from our gunicorn.conf.py."""
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--print-config"],
        cwd=ROOT,
        env=os.environ | {"GATEWAY_DRAIN_TIMEOUT": drain, "GATEWAY_ENGINE": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    match = re.search(r"^graceful_timeout\s*= (\d+)$", done.stdout, re.M)
    assert match
    return float(match[1])


@pytest.fixture(scope="module")
def graceful() -> float:
    """The graceful timeout with the drain time of all deployments."""
    drains = {
        COMPOSE["gateway-1"]["environment"]["GATEWAY_DRAIN_TIMEOUT"],
        env_file(KUBERNETES / "gateway.env")["GATEWAY_DRAIN_TIMEOUT"],
        # systemd uses the default.
        "60",
    }
    assert len(drains) == 1
    return graceful_timeout(drains.pop())


def test_stop_timeouts_exceed_graceful_timeout(graceful: float) -> None:
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pod["terminationGracePeriodSeconds"] >= before + graceful + 5
    assert seconds(SERVICE["TimeoutStopSec"]) >= graceful + 5
    for name in ("gateway-1", "gateway-2", "nginx"):
        assert seconds(COMPOSE[name]["stop_grace_period"]) >= graceful + 5
