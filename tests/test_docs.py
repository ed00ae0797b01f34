"""Every config of the documentation, sent to a gateway; every command, typed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.cli_runner import Operator
from tests.conftest import Caller

KEYS = (Path(__file__).parent.parent / "docs" / "keys.md").read_text()
ROUTING = (Path(__file__).parent.parent / "docs" / "routing.md").read_text()
CONFIGS = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", ROUTING, re.S)]


def names(config: Any) -> str:
    return str(config.get("strategy", {}).get("mode", "target"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{CONFIGS.index(c)}")
def test_the_configs_of_the_documentation_work(call, upstream, config: Any) -> None:
    caller: Caller = call(upstream)
    caller.headers["x-portkey-config"] = json.dumps(config)
    response = caller.complete()

    assert response.status_code == 200, response.get_data(as_text=True)
    assert response.headers["x-portkey-last-used-option-index"].startswith("config")


def test_every_strategy_is_documented() -> None:
    assert {"target", "fallback", "loadbalance", "conditional"} == set(
        map(names, CONFIGS)
    )


def test_the_commands_about_keys_work(settings: Settings) -> None:
    operator = Operator(settings)
    blocks = re.findall(r"```sh\n(.*?)```", KEYS, re.S)
    lines = [line for block in blocks for line in block.strip().splitlines()]
    printed = []
    for line in lines:
        flask, *words = shlex.split(line)
        printed.append(operator(*words, stdin="sk-of-openai\n"))
        assert flask == "flask"

    assert len(lines) == 5 and printed[2].startswith("lw-")


def test_the_file_about_keys_can_be_applied(settings: Settings, tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", KEYS, re.S)
    secret = tmp_path / "aws"
    secret.write_text("secret")
    told = Operator(settings)(
        *("apply", "-"),
        stdin=text.replace("/run/secrets/aws", str(secret)),
        OPENAI_API_KEY="sk-1",
        AWS_ACCESS_KEY_ID="AK",
    )

    assert told.count("+ ") == 5 and "lw-" in told
