"""Commands, targets of make and settings that pages mention exist."""

import re
from pathlib import Path

import pytest

from app import create_app
from app.settings import Settings, setting_fields, variable

from .pages import PAGES, ROOT

COMMANDS = re.compile(r"(?<![\w.-])flask ([a-z-]+)(?: ([a-z-]+))?")
TARGETS = re.compile(r"`make ([a-z-]+)")
VARIABLES = re.compile(r"\bGATEWAY_[A-Z_]+\b")


@pytest.fixture(scope="module")
def groups() -> dict[str, set[str]]:
    """All commands with their subcommands."""
    commands = create_app(Settings()).cli.commands
    return {
        name: {*getattr(command, "commands", {})} for name, command in commands.items()
    }


pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pages
def test_documented_commands_exist(page: Path, groups: dict[str, set[str]]) -> None:
    for command, below in COMMANDS.findall(page.read_text()):
        assert command in groups, command
        assert not below or below in (groups[command] or {below}), f"{command} {below}"


@pages
def test_documented_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()

    for target in TARGETS.findall(page.read_text()):
        assert re.search(rf"^{target}:", makefile, re.M), target


@pages
def test_documented_settings_exist(page: Path) -> None:
    variables = {*map(variable, setting_fields())}

    assert set(VARIABLES.findall(page.read_text())) <= variables
