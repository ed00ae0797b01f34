"""The commands, as an operator types them."""

import json
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.providers import PROVIDERS
from app.settings import Settings

PROVIDERS_PAGE = Path(__file__).parent.parent / "docs" / "providers.md"


def flask(*words: str) -> Any:
    return create_app(Settings()).test_cli_runner().invoke(args=words)


def test_providers_are_listed_with_a_row_for_each_way() -> None:
    listed = flask("providers").output.splitlines()

    assert listed[0].split()[:3] == ["provider", "way", "parameters"]
    assert {line.split()[0] for line in listed[1:]} == {
        name for name, provider in PROVIDERS.items() if provider.modes
    }
    assert len({line.index(line.split()[1]) for line in listed}) == 1


def test_some_of_them_are_listed_alone() -> None:
    listed = flask("providers", "groq", "deepseek").output.splitlines()

    assert [line.split()[0] for line in listed] == [
        "provider",
        "deepseek",
        "deepseek",
        "groq",
    ]


def test_scripts_get_json() -> None:
    (row,) = json.loads(flask("providers", "anthropic", "--json").output)

    assert (row["way"], row["logprobs"], row["suffix"], row["n"]) == (
        "chat",
        "-",
        "-",
        "1",
    )


def test_an_unknown_provider_is_named() -> None:
    answer = flask("providers", "nobody")

    assert answer.exit_code == 2 and "nobody" in answer.output


def test_the_page_about_providers_says_what_is_declared() -> None:
    _, _, generated = PROVIDERS_PAGE.read_text().partition("app/providers. -->\n\n")

    assert generated == flask("providers", "--markdown").output, "run `make docs`"


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_provider_is_on_the_page(name: str) -> None:
    assert f"| {name} |" in PROVIDERS_PAGE.read_text()
