"""The files of deploy/, parsed for the tests."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import setting_fields, variable

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"

VARIABLES = {variable(setting) for setting in setting_fields()}

# User, port and folder of the image; the other deployments have to agree.
USER, PORT, INSTANCE = 10001, 8787, "/var/lib/lastword"


def needs(program: str) -> pytest.MarkDecorator:
    """Skip tests whose *program* is not installed; no Python package has it."""
    missing = shutil.which(program) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def env_file(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and line[0] != "#")
    return {name: value for name, value in pairs}


def seconds(text: str) -> float:
    """The seconds of a duration such as `75s`."""
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return float(match[1])


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments on one line."""
    text = (DEPLOY / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        name, _, rest = line.partition(" ")
        yield name, " ".join(rest.split())


def last_stage() -> list[tuple[str, str]]:
    lines = list(instructions())
    begin = max(i for i, (name, _) in enumerate(lines) if name == "FROM")
    return lines[begin:]
