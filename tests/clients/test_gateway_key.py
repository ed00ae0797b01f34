"""A legacy client that can only set a base URL and a key."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.hosts import LOCALHOST
from app.settings import Settings
from tests.cli_runner import Operator
from tests.e2e.server import Server
from tests.upstream import Upstream, reply, whole

from .test_clients import ENVIRONMENTS, TIMEOUT

pytestmark = pytest.mark.e2e

SEALED = "sk-sealed-in-the-store"
SCRIPT = """
import json, sys
import openai

openai.api_base, openai.api_key = sys.argv[1:]
answer = openai.Completion.create(engine="text-davinci-003", prompt="Hi", n=2)
print(json.dumps([choice["text"] for choice in answer["choices"]]))
try:
    openai.api_key = "lw-" + "x" * 32
    openai.Completion.create(engine="text-davinci-003", prompt="Hi")
except openai.error.AuthenticationError as e:
    print(json.dumps(e.json_body["error"]["code"]))
"""


@pytest.fixture
def operator(tmp_path: Path, script: Any) -> Iterator[tuple[Operator, Upstream]]:
    """An operator whose aliases lead to a chat-only upstream."""
    settings = Settings(instance=str(tmp_path), trusted_custom_hosts=LOCALHOST)
    operator = Operator(settings)
    upstream = script(whole(reply("Yes")))
    operator(
        *("virtual-keys", "create", "groq-1", "--provider", "groq", "--key-from", "-"),
        *("--custom-host", upstream.url),
        stdin=SEALED,
    )
    words = ("text-davinci-003", "llama-3.1-8b", "--virtual-key", "groq-1")
    operator("aliases", "create", *words)
    yield operator, upstream


def test_openai_0_28_with_gateway_key(
    operator: tuple[Operator, Upstream], tmp_path: Path
) -> None:
    """Only its base URL and its key are set."""
    commands, upstream = operator
    key = commands("keys", "create", "legacy").strip()
    server = Server(GATEWAY_INSTANCE=str(tmp_path))
    python = ENVIRONMENTS / "openai-0.28.1" / "bin" / "python"
    ran = subprocess.run(
        [python, "-c", SCRIPT, server.url + "/v1", key],
        env={},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    server.stop()

    answered, refused = map(json.loads, ran.stdout.splitlines())
    assert (answered, refused) == (["Yes", "Yes"], "invalid_api_key"), ran.stderr
    assert upstream.last.headers["authorization"] == f"Bearer {SEALED}"
    assert upstream.last.json["model"] == "llama-3.1-8b"
