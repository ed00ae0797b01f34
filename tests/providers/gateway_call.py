"""Answers of providers, through the whole gateway, as a legacy client reads them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from app.core.hosts import LOCALHOST
from app.settings import Settings
from tests.upstream import Upstream

from . import harness

_AWS_KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}


@contextmanager
def running_app(folder: Path) -> Iterator[Flask]:
    """A gateway whose state is in *folder*, and which may call this machine."""
    app = create_app(
        Settings(
            default_max_tokens=None,
            instance=str(folder),
            ledger=False,
            trusted_custom_hosts=LOCALHOST,
        )
    )
    try:
        yield app
    finally:
        for name in ("", ".directory", ".ledger"):
            app.extensions[f"lastword{name}"].close()


def ask(
    app: Flask,
    upstream: Upstream,
    provider: str,
    config: dict[str, Any],
    **body: Any,
) -> TestResponse:
    """A completion of *provider*, which *upstream* plays. Close the response."""
    config = {
        "provider": provider,
        "api_key": "k",
        "custom_host": upstream.url,
        **harness.OPTIONS.get(provider, {}),
        **(_AWS_KEYS if provider == "bedrock" else {}),
        **config,
    }
    return app.test_client().post(
        "/v1/completions",
        json={"model": "m", "prompt": "Hi"} | body,
        headers={"x-portkey-config": json.dumps(config)},
    )


class Received:
    """What a legacy client reads of an answer with *count* choices.

    *texts* and *reasons* are by index, *usage* as it came, with *is_estimated* beside
    it; *is_whole* says that the answer claims to be complete.
    """

    def __init__(self, response: TestResponse, count: int = 1) -> None:
        self.texts = [""] * count
        self.reasons: list[list[str]] = [[] for _ in range(count)]
        self.is_whole = False
        self.error: dict[str, Any] | None = None
        self.usage: dict[str, Any] | None = None
        self.is_estimated = False
        self.status = response.status_code
        self.raw = response.get_data(as_text=True)
        if response.content_type.startswith("text/event-stream"):
            # As the oldest clients split lines.
            lines = [line for line in self.raw.splitlines() if line]
            assert all(line.startswith("data: ") for line in lines), self.raw
            for line in lines:
                assert not self.is_whole and not self.error, self.raw
                self._read(line.removeprefix("data: "))
        else:
            self._read(self.raw)
            self.is_whole = self.error is None

    def _read(self, data: str) -> None:
        if data == "[DONE]":
            self.is_whole = True
            return
        document = json.loads(data, parse_constant=pytest.fail)
        if "error" in document:
            self.error = document["error"]
            return
        self.usage = document.get("usage") or self.usage
        self.is_estimated |= "usage_estimated" in document
        for choice in document["choices"]:
            index = choice["index"]
            assert not self.reasons[index], f"text behind the reason: {self.raw}"
            self.texts[index] += choice["text"]
            self.reasons[index] += filter(None, [choice["finish_reason"]])

    def check_whole(self, texts: list[str]) -> None:
        """All the text, one reason for each choice, and the end."""
        assert self.texts == texts, self.raw
        assert [len(reasons) for reasons in self.reasons] == [1] * len(texts), self.raw
        assert self.is_whole and self.error is None, self.raw

    def check_whole_or_error(self, texts: list[str]) -> None:
        """All of that; or a beginning of the text, an error, and no end."""
        if self.is_whole:
            self.check_whole(texts)
        else:
            assert self.error, self.raw
            pairs = zip(self.texts, texts, strict=True)
            assert all(text.startswith(received) for received, text in pairs), self.raw
