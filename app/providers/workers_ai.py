"""Cloudflare's Workers AI: a prompt as it is, or a chat.

With `raw` no template is put around the prompt. It has no stop sequences, and older
models send no finish reason; `length` is then inferred from the usage.

Sources, below https://developers.cloudflare.com/workers-ai/:
configuration/open-ai-compatibility/, guides/prompting/ (raw and templates), models/
"""

from collections.abc import Mapping
from typing import Any

from ..core.completion import Choice, Completion
from ..core.routing import CompletionMode
from .declaration import (
    Endpoint,
    ParamMapping,
    Provider,
    Setting,
    StreamReader,
    same_named,
)
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, finish_reason, parse_usage
from .parsing.json_answers import JSONStreamReader, read_whole
from .parsing.stream_ending import ReasonlessEnd
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest, quote_path_segment

_PARAMS = same_named(
    "frequency_penalty",
    "max_tokens",
    "presence_penalty",
    "repetition_penalty",
    "temperature",
    # The ranges of the models' schemas.
    top_k=ParamMapping("top_k", low=1, high=50),
    top_p=ParamMapping("top_p", low=0.001, high=1),
    seed=ParamMapping("seed", low=1, high=9_999_999_999),
)


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request for a raw prompt."""
    # `/run/@cf/meta/llama-3.1-8b-instruct`: the slashes of a name are segments.
    body = {"prompt": upstream.request.prompt, "raw": True, **upstream.body()}
    path = f"/run/{quote_path_segment(upstream.request.model, safe='@/')}"
    return upstream.post(path, body | {"stream": upstream.request.stream})


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole answer as a completion."""

    def whole(document: dict[str, Any]) -> Completion:
        # The envelope of Cloudflare's API: {"success", "errors", "messages", "result"}.
        # The events of a stream are bare results.
        error_bodies.raise_in_band_error(document)
        return _completion(upstream, document["result"])

    return read_whole(body, whole, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of an answer as chunks of a completion."""
    # Events are {"response": "text", "p": "abc"}; the last one has the usage. `p` is
    # padding, since the sizes of packets would give the text away:
    # https://blog.cloudflare.com/ai-side-channel-attack-mitigated

    def read_chunk(document: dict[str, Any]) -> Completion:
        error_bodies.raise_in_band_error(document)
        # The event with the usage may have no text at all.
        return _completion(upstream, {"response": ""} | document)

    # Of older models only `[DONE]` says that the text is complete.
    return JSONStreamReader(
        upstream, read_chunk, reasonless_end=ReasonlessEnd.TERMINATOR
    )


def _completion(upstream: UpstreamRequest, result: Mapping[str, Any]) -> Completion:
    """A result; newer models answer in the shape of OpenAI's completions."""
    reason = None
    if not result.get("choices"):
        # A text that looks like a number is one in the JSON: {"response": 5}.
        text = result["response"]
        text = "" if text is None else str(text)
    else:
        choice = result["choices"][0]
        text = str(choice.get("text") or "")
        reason = finish_reason(choice.get("finish_reason"))
    usage = parse_usage(result.get("usage"))
    choices = (Choice(text, 0, None, reason),)
    return Completion(*answer_head({}, upstream), choices, usage)


_NATIVE = Endpoint(
    params=_PARAMS,
    call=call,
    completion=completion,
    reader=stream_reader,
)
WORKERS_AI = Provider(
    name="workers-ai",
    docs="https://developers.cloudflare.com/workers-ai/configuration/"
    "open-ai-compatibility/",
    base_url="https://api.cloudflare.com/client/v4/accounts/{workers_ai_account_id}/ai",
    modes={
        CompletionMode.NATIVE: _NATIVE,
        CompletionMode.CHAT: openai_chat.endpoint(
            "/v1/chat/completions", without=("n", "logprobs", "logit_bias", "user")
        ),
    },
    settings=(Setting("workers_ai_account_id"),),
    error=error_bodies.error,
)
