"""NVIDIA Triton's generate extension, as its backends for language models name inputs.

It does not say why a text ended. The custom host leads to the model:
`http://triton:8000/v2/models/ensemble`.

Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/
extension_generate.md
"""

from collections.abc import Iterable, Iterator
from typing import Any

from ..core.completion import Choice, Completion
from ..core.routing import Way
from ..core.sse import Event
from . import chat, failures
from .spec import Ask, Call, Endpoint, Param, Provider, read, same, several

_PARAMS = same(
    "bad_words",
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    seed="random_seed",
    stop=Param("stop_words", write=several),
)


def call(ask: Ask) -> Call:
    """The prompt as the text input."""
    streamed = {"stream": True} if ask.request.stream else {}
    body = {"text_input": ask.request.prompt, **ask.body(), **streamed}
    return ask.post("/generate_stream" if ask.request.stream else "/generate", body)


def completion(body: bytes, ask: Ask) -> Completion:
    """A whole answer as a completion."""
    return read(body, lambda document: _piece(document, ask, "stop"))


def chunks(events: Iterable[Event], ask: Ask) -> Iterator[Completion]:
    """The pieces of an answer. Its end is that of the stream, if that ends well."""
    seen = False
    for event in events:
        seen = True
        yield read(event.data, lambda document: _piece(document, ask, None))
    if seen:
        yield Completion(*chat.head({}, ask), (Choice("", 0, None, "stop"),))


def _piece(document: dict[str, Any], ask: Ask, reason: str | None) -> Completion:
    chat.refuse_error(document)
    named = {"model": document.get("model_name")}
    text = document["text_output"]
    # A batch of one.
    text = text[0] if isinstance(text, list) else text
    return Completion(*chat.head(named, ask), (Choice(text, 0, None, reason),))


TRITON = Provider(
    name="triton",
    docs="https://github.com/triton-inference-server/server/tree/main/docs/protocol",
    ways={
        Way.NATIVE: Endpoint(
            params=_PARAMS, call=call, completion=completion, chunks=chunks
        )
    },
    needs_key=False,
    error=failures.error,
)
