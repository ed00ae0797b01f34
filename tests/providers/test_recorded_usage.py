"""Usage of recorded answers of real providers, where the recordings are at hand.

They are public test recordings of other projects, and no part of this repository: each
test is skipped by name without its file. `RECORDINGS` names their folder.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from app.core.completion import Usage
from app.core.sse import Event
from app.upstream.event_decoders import event_decoder

from . import harness

BESIDE = Path(__file__).parents[3] / "shared" / "wire" / "real"
FOLDER = Path(os.environ.get("RECORDINGS", BESIDE))

NATIVE = {"to": {"via": "native"}}
TITAN = NATIVE | {"model": "amazon.titan-text-express-v1"}


@pytest.mark.parametrize(
    "file, provider, params, expected",
    [
        ("xai-whole-reasoning.json", "x-ai", {}, Usage(12, 229, 228, 2)),
        ("together-completions-whole.json", "together-ai", NATIVE, Usage(10, 512)),
        ("bedrock-invoke-titan-float-counts.json", "bedrock", TITAN, Usage(28, 197)),
        ("bedrock-invoke-titan-whole.json", "bedrock", TITAN, Usage(9, 17)),
        ("bedrock-invoke-titan-stream.frames", "bedrock", TITAN, Usage(5, 10)),
        ("bedrock-converse-whole.json", "bedrock", {}, Usage(50, 20)),
        ("google-max-tokens-no-parts.json", "google", {}, Usage(15, 2, 2)),
        ("google-stream-thoughts.sse", "google", {}, Usage(6, 36, 35)),
        ("cohere-stream.sse", "cohere", {}, Usage(1591, 38)),
        ("anthropic-whole.json", "anthropic", {}, Usage(32, 15)),
        ("mistral-stream.sse", "mistral-ai", {}, Usage(159, 28, 0, 128)),
        ("perplexity-stream-citations.sse", "perplexity-ai", {}, Usage(8, 5)),
        (
            "ollama-generate-whole-no-prompt-count.json",
            "ollama",
            {"prompt": "Tell me a joke about OpenTelemetry"},
            Usage(9, 38, estimated=True),
        ),
        (
            "bedrock-invoke-mistral-whole.json",
            "bedrock",
            NATIVE | {"model": "mistral.mistral-7b-instruct-v0:2"},
            Usage(1, 10, estimated=True),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_recorded_usage_is_read(
    file: str, provider: str, params: dict[str, Any], expected: Usage
) -> None:
    path = FOLDER / file
    if not path.is_file():
        pytest.skip(f"no recording {file}")
    recorded = path.read_bytes()
    if path.suffix == ".json":
        usage = harness.whole(provider, recorded, **params).usage
    else:
        pieces = harness.streamed(provider, events(path.suffix, recorded), **params)
        usage = [piece.usage for piece in pieces if piece.usage][-1]

    assert usage == expected


def events(suffix: str, recorded: bytes) -> list[Event]:
    content_type = {
        ".sse": "text/event-stream",
        ".frames": "application/vnd.amazon.eventstream",
    }[suffix]
    decoder = event_decoder(content_type, 2**20)
    assert decoder
    return [*decoder.feed(recorded), *decoder.end()]
