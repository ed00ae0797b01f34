"""NVIDIA Triton's generate extension, in what its backends have in common.

They have different names for stop sequences and seeds, and vLLM's fails on an unknown
name: so those are left to the gateway, or dropped. It also puts the prompt before the
text, unless `exclude_input_in_output` is set. None has finish reasons. The custom host
contains the model: `http://triton:8000/v2/models/ensemble`.

Sources: https://github.com/triton-inference-server/server/blob/main/docs/protocol/
extension_generate.md, and below https://github.com/triton-inference-server/:
vllm_backend/blob/main/src/utils/request.py, tensorrtllm_backend
"""

from typing import Any

from ..core.completion import Choice, Completion
from ..core.routing import CompletionMode
from .declaration import Endpoint, Provider, StreamReader, same_named
from .parsing import error_bodies
from .parsing.answer_fields import answer_head
from .parsing.json_answers import JSONStreamReader, read_whole
from .parsing.stream_ending import ReasonlessEnd
from .upstream_request import HTTPRequest, UpstreamRequest

# Those that both backends have, vLLM's and TensorRT-LLM's.
_PARAMS = same_named("max_tokens", "temperature", "top_k", "top_p")


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request: the prompt is the text input."""
    # Parameters may be beside the text: the extension hands what it does not know to
    # the model, as parameters or tensors.
    stream = upstream.request.stream
    body = {"text_input": upstream.request.prompt, "exclude_input_in_output": True}
    body |= upstream.body() | ({"stream": True} if stream else {})
    return upstream.post("/generate_stream" if stream else "/generate", body)


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole answer as a completion."""
    return read_whole(body, lambda document: _completion(document, upstream), upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of an answer as chunks of a completion."""
    # A body without any event is no empty text, but a failure.
    return JSONStreamReader(
        upstream,
        lambda document: _completion(document, upstream),
        reasonless_end=ReasonlessEnd.BODY,
    )


def _completion(document: dict[str, Any], upstream: UpstreamRequest) -> Completion:
    # An error after the first event is an event, {"error": "text"}, under status 200.
    error_bodies.raise_in_band_error(document)
    named = {"model": document.get("model_name")}
    text = document["text_output"]
    # Some models answer with a batch of one.
    text = text[0] if isinstance(text, list) else text
    return Completion(*answer_head(named, upstream), (Choice(text),))


TRITON = Provider(
    name="triton",
    docs="https://github.com/triton-inference-server/server/tree/main/docs/protocol",
    modes={
        CompletionMode.NATIVE: Endpoint(
            params=_PARAMS, call=call, completion=completion, reader=stream_reader
        )
    },
    needs_key=False,
    error=error_bodies.error,
)
