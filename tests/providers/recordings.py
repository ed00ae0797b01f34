"""Every mode of every provider, with a recording of its answers.

A recording is a folder in tests/wire: `SOURCE` (the documentation that it follows),
`whole.json` and `stream.*`. It is named after the provider and the mode, after the
provider for its first mode, or after the provider and a family of models. A mode
without its own recording uses one of another provider with the same dialect.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from app.core.routing import CompletionMode
from app.core.sse import Event
from app.providers import PROVIDERS, Provider
from app.providers.declaration import Endpoint
from app.upstream.client import ByteBudget
from app.upstream.event_decoders import StreamDecoder
from tests.wire.frames import frames

Decode = Callable[[Iterable[bytes], int], Iterator[Event]]

WIRE = Path(__file__).parent.parent / "wire"

# The text of every recording.
TEXT = " Paris – of course."

# A model of each family, where a mode of a provider differs by model.
_FAMILIES = {
    ("bedrock", CompletionMode.NATIVE): {
        "meta": "meta.llama3-1-8b-instruct-v1:0",
        "mistral": "mistral.mixtral-8x7b-instruct-v0:1",
        "amazon": "amazon.titan-text-express-v1",
        "cohere": "cohere.command-light-text-v14",
    },
    ("vertex-ai", CompletionMode.CHAT): {
        "google": "gemini-2.0-flash",
        "anthropic": "anthropic.claude-3-5-haiku",
        "mistralai": "mistralai.mistral-medium-3",
        "meta": "meta.llama-4-scout-17b",
        "others": "deepseek-ai/deepseek-v3.2-maas",
        "endpoints": "endpoints.123",
    },
}

# The recordings of shared dialects.
_DIALECTS = {
    "gemini": "google",
    "llama_cpp": "llama-cpp",
    "openai_chat": "chat",
    "openai_completions": "legacy",
}

_CONTENT_TYPES = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".frames": "application/vnd.amazon.eventstream",
}


@dataclass(frozen=True, repr=False)
class ModeCase:
    """One mode of one provider, with a model for it."""

    provider: Provider
    mode: CompletionMode
    family: str = ""
    model: str = "m"

    def __str__(self) -> str:
        return "-".join(filter(None, [self.provider.name, self.mode, self.family]))

    # A test that fails shows it.
    __repr__ = __str__

    @property
    def endpoint(self) -> Endpoint:
        return self.provider.endpoint(self.mode, self.model)

    @property
    def folder(self) -> Path:
        """The folder of the recording."""
        name = self.provider.name
        own = [f"{name}-{self.family}", f"{name}-{self.mode}"]
        own += [name] if self.mode == next(iter(self.provider.modes)) else []
        folders = (WIRE / folder for folder in own if (WIRE / folder).is_dir())
        module = self.endpoint.completion.__module__.rpartition(".")[2]
        return next(folders, WIRE / _DIALECTS.get(module, module))

    @property
    def whole(self) -> bytes:
        return (self.folder / "whole.json").read_bytes()

    @property
    def stream(self) -> tuple[Decode, bytes]:
        """The decoder of the recorded stream, and its bytes."""
        (file,) = self.folder.glob("stream.*")
        content_type = _CONTENT_TYPES[file.suffix]

        def decode(blocks: Iterable[bytes], limit: int) -> Iterator[Event]:
            decoder = StreamDecoder(content_type, limit, ByteBudget(limit))
            for block in blocks:
                yield from decoder.feed(block)
            yield from decoder.end()

        recorded = file.read_bytes()
        listed = file.suffix == ".frames"
        return decode, frames(recorded.decode()) if listed else recorded


def _all() -> Iterator[ModeCase]:
    for provider in PROVIDERS.values():
        for mode in provider.modes:
            families = _FAMILIES.get((provider.name, mode), {"": "m"})
            for family, model in families.items():
                yield ModeCase(provider, mode, family, model)


MODE_CASES = tuple(_all())
