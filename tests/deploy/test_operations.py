"""docs/operations.md names commands and settings that there are."""

import re

import pytest

from app import create_app
from app.settings import Settings

from .files import ROOT, VARIABLES

TEXT = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = sorted(set(re.findall(r"\bflask ((?:[a-z-]+)(?: [a-z-]+)?)", TEXT)))


@pytest.fixture(scope="module")
def words() -> set[str]:
    """All commands and groups, with their subcommands."""
    found = set()
    for name, command in create_app(Settings()).cli.commands.items():
        below = getattr(command, "commands", {})
        found |= {f"{name} {each}" for each in below} or {name}
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one(command: str, words: set[str]) -> None:
    assert command in words or command.split()[0] in words


def test_all_settings_are_settings() -> None:
    assert set(re.findall(r"\bGATEWAY_[A-Z_]+", TEXT)) <= VARIABLES
