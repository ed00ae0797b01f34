"""Every config of the documentation is sent to a gateway; every file is applied."""

import json
from typing import Any

import pytest

from app.api.config.parsing import validate_config
from app.core.hosts import LOCALHOST
from app.core.prices import prices
from app.settings import Settings
from tests.cli_runner import Operator
from tests.conftest import Caller

from .pages import PAGES, ROOT, blocks

DOCUMENTS = {
    str(block): json.loads(block.text)
    for page in PAGES
    for block in blocks(page)
    if block.language == "json"
}
ROUTES = ("provider", "virtual_key", "targets")
CONFIGS = {
    location: document
    for location, document in DOCUMENTS.items()
    if isinstance(document, dict) and any(key in document for key in ROUTES)
}
# The others refer to records of a store.
SENT = {k: v for k, v in CONFIGS.items() if "virtual_key" not in json.dumps(v)}


def mode(config: Any) -> str:
    return str(config.get("strategy", {}).get("mode", "target"))


@pytest.mark.parametrize("location", CONFIGS)
def test_documented_configs_are_valid(location: str) -> None:
    assert validate_config(CONFIGS[location], LOCALHOST)


@pytest.mark.parametrize("location", SENT)
def test_documented_configs_answer_requests(call, upstream, location: str) -> None:
    caller: Caller = call(upstream)
    caller.headers["x-portkey-config"] = json.dumps(SENT[location])
    response = caller.complete()

    assert response.status_code == 200, response.get_data(as_text=True)
    assert response.headers["x-portkey-last-used-option-index"].startswith("config")


def test_every_strategy_is_documented() -> None:
    documented = {mode(c) for location, c in CONFIGS.items() if "routing" in location}

    assert {"target", "fallback", "loadbalance", "conditional"} == documented


def test_documented_price_lists_are_read() -> None:
    lists = [d for d in DOCUMENTS.values() if isinstance(d, list)]

    assert lists and all(prices(listed) for listed in lists)


def test_documented_keys_file_is_applied(settings: Settings, tmp_path) -> None:
    keys = blocks(ROOT / "docs" / "keys.md")
    (text,) = [block.text for block in keys if block.language == "yaml"]
    secret = tmp_path / "aws"
    secret.write_text("secret")
    output = Operator(settings)(
        *("apply", "-"),
        stdin=text.replace("/run/secrets/aws", str(secret)),
        OPENAI_API_KEY="sk-1",
        AWS_ACCESS_KEY_ID="AK",
    )

    assert output.count("+ ") == 5 and "lw-" in output
