"""The commands of the command line."""

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


def test_providers_list_row_for_each_mode() -> None:
    listed = flask("providers").output.splitlines()

    assert listed[0].split()[:3] == ["provider", "way", "parameters"]
    assert {line.split()[0] for line in listed[1:]} == {
        name for name, provider in PROVIDERS.items() if provider.modes
    }
    assert len({line.index(line.split()[1]) for line in listed}) == 1


def test_providers_list_by_name() -> None:
    listed = flask("providers", "groq", "deepseek").output.splitlines()

    assert [line.split()[0] for line in listed] == [
        "provider",
        "deepseek",
        "deepseek",
        "groq",
    ]


def test_providers_as_json() -> None:
    (row,) = json.loads(flask("providers", "anthropic", "--json").output)

    assert (row["way"], row["logprobs"], row["suffix"], row["n"]) == (
        "chat",
        "-",
        "-",
        "1",
    )


def test_unknown_provider_is_named() -> None:
    answer = flask("providers", "nobody")

    assert answer.exit_code == 2 and "nobody" in answer.output


def test_provider_docs_match_declarations() -> None:
    _, _, generated = PROVIDERS_PAGE.read_text().partition("app/providers. -->\n\n")

    assert generated == flask("providers", "--markdown").output, "run `make docs`"


@pytest.mark.parametrize("name", PROVIDERS)
def test_provider_docs_name_every_provider(name: str) -> None:
    assert f"| {name} |" in PROVIDERS_PAGE.read_text()
