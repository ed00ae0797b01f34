"""An operator of a gateway with requests in its ledger."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from app import create_app
from app.settings import Settings

from .demo import TOKEN

Console = Callable[..., "Operator"]

# The CSRF token of a console page, which its forms send.
CSRF = re.compile(r'<meta name="csrf" content="(\w+)">')


@dataclass
class Operator:
    """A user of the console, with a browser's cookies."""

    app: Flask
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    def get(self, path: str = "/", **options: Any) -> TestResponse:
        return self.client.get(f"/console{path}", **options)

    def post(self, path: str, csrf: str | None = None, **options: Any) -> TestResponse:
        """Post a form with the CSRF token of the open page, or *csrf*."""
        token = self.csrf() if csrf is None else csrf
        headers = {"X-CSRF-Token": token} | options.pop("headers", {})
        return self.client.post(f"/console{path}", headers=headers, **options)

    def csrf(self) -> str:
        match = CSRF.search(self.text("/login", follow_redirects=True))
        assert match
        return match[1]

    def text(self, path: str = "/", **options: Any) -> str:
        return self.get(path, **options).get_data(as_text=True)

    def log_in(self, token: str = TOKEN) -> TestResponse:
        return self.post("/login", data={"token": token})

    def leave(self) -> None:
        for part in ("", ".directory", ".ledger"):
            self.app.extensions[f"lastword{part}"].close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, ledger=True, console_token=TOKEN, secret_key="s" * 16)


@pytest.fixture
def visitor(settings: Settings) -> Iterator[Console]:
    """Creates operators that are not logged in."""
    operators: list[Operator] = []

    def make(**changes: Any) -> Operator:
        operators.append(Operator(create_app(replace(settings, **changes))))
        return operators[-1]

    yield make
    for operator in operators:
        operator.leave()


@pytest.fixture
def operator(visitor: Console) -> Operator:
    """An operator that is logged in."""
    operator = visitor()
    operator.log_in()
    return operator
