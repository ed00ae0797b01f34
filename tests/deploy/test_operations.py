"""docs/operations.md names commands, settings, files and places that there are."""

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


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        name, _, place = link.partition("#")
        path = ROOT / "docs" / (name or "operations.md")
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M) if place else []

        assert path.exists()
        assert not place or place in map(anchor, headings)
