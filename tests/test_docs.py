"""Every config of the documentation, sent to a gateway."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Caller

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
