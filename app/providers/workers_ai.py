"""Cloudflare's Workers AI: a prompt as it is, or a chat.

With `raw` no template is put around the prompt. It has no stop sequences, and older
models send no finish reason; `length` is then inferred from the usage.

Sources, below https://developers.cloudflare.com/workers-ai/:
configuration/open-ai-compatibility/, guides/prompting/ (raw and templates), models/
"""

from collections.abc import Mapping
from typing import Any

import orjson

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode
from ..errors import UpstreamProtocol, UpstreamStatus
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
from .parsing.json_answers import JSONStreamReader, read_object, read_whole
from .parsing.stream_ending import ReasonlessEnd
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest, quote_path_segment

_PARAMS = same_named(
    "max_tokens",
    "repetition_penalty",
    # The ranges of the models' schemas.
    frequency_penalty=ParamMapping("frequency_penalty", low=-2, high=2),
    presence_penalty=ParamMapping("presence_penalty", low=-2, high=2),
    temperature=ParamMapping("temperature", high=5),
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
    return read_whole(body, lambda document: _whole(document, upstream), upstream)


def _whole(document: Mapping[str, Any], upstream: UpstreamRequest) -> Completion:
    # The envelope of Cloudflare's API: {"success", "errors", "messages", "result"}. The
    # events of a stream are bare results.
    if not document.get("success", True):
        error = {"message": _error_message(document)}
        raise error_bodies.in_band_error({"error": error})
    result, reader = document["result"], _ResultReader(upstream)
    text, reason = reader.read(result)
    choice = Choice(text + reader.rest(), 0, None, reason)
    return _completion(upstream, choice, parse_usage(result.get("usage")))


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of an answer as chunks of a completion."""
    # Events are {"response": "text", "p": "abc"}; the last one has the usage. `p` is
    # padding, since the sizes of packets would give the text away:
    # https://blog.cloudflare.com/ai-side-channel-attack-mitigated
    # Models that cannot stream answer with a whole document all the same:
    # https://github.com/cloudflare/ai/pull/396
    reader = _ResultReader(upstream)

    def read_chunk(document: dict[str, Any]) -> Completion:
        error_bodies.raise_in_band_error(document)
        if "result" in document:
            return completion(orjson.dumps(document), upstream)
        # The event with the usage may have no text at all.
        text, reason = reader.read({"response": ""} | document)
        usage = parse_usage(document.get("usage"))
        return _completion(upstream, Choice(text, 0, None, reason), usage)

    # Of older models only `[DONE]` says that the text is complete.
    return JSONStreamReader(
        upstream,
        read_chunk,
        last_chunk=lambda: _completion(upstream, Choice(reader.rest())),
        reasonless_end=ReasonlessEnd.TERMINATOR,
    )


class _ResultReader:
    """Reads the results of one answer, the only one or those of its events.

    They have the text as `response`; newer models answer in the shape of OpenAI's
    completions, or of its chats.

    Source: https://github.com/BerriAI/litellm/pull/29354
    """

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._chat = openai_chat.ChatReader(upstream, whole=False)

    def read(self, result: Mapping[str, Any]) -> tuple[str, str | None]:
        """The text of *result*, and why it ended, if it did."""
        choices = result.get("choices")
        text, reason = self._read_choice(choices[0]) if choices else ("", None)
        if text or choices and "response" not in result:
            return text, reason
        # A text that looks like a number is one in the JSON: {"response": 5}.
        response = result["response"]
        return "" if response is None else str(response), reason

    def _read_choice(self, choice: Mapping[str, Any]) -> tuple[str, str | None]:
        if choice.get("delta") or choice.get("message"):
            # A chat's, without its reasoning.
            (read,) = self._chat.read({"choices": [choice]}).choices
            return read.text, read.finish_reason
        reason = finish_reason(choice.get("finish_reason"))
        return str(choice.get("text") or ""), reason

    def rest(self) -> str:
        """The text that was held back, as it might have been reasoning."""
        return "".join(choice.text for choice in self._chat.last_chunk().choices)


def _completion(
    upstream: UpstreamRequest, choice: Choice, usage: Usage | None = None
) -> Completion:
    return Completion(*answer_head({}, upstream), (choice,), usage)


def error(status: int, body: bytes) -> UpstreamStatus:
    """Reads an error: {"success": false, "errors": [{"code": 1, "message": "..."}]}."""
    failure = error_bodies.error(status, body)
    try:
        failure.message = _error_message(read_object(body)) or failure.message
    except (UpstreamProtocol, TypeError):
        return failure
    return failure


def _error_message(document: Mapping[str, Any]) -> str:
    errors = document.get("errors") or ()
    messages = (e.get("message") for e in errors if isinstance(e, dict))
    return "; ".join(str(message) for message in messages if message)


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
    # Models are run below `/run`, and OpenAI's API is below `/v1`.
    other_api_paths=("/v1", "/run"),
    modes={
        CompletionMode.NATIVE: _NATIVE,
        CompletionMode.CHAT: openai_chat.endpoint(
            "/v1/chat/completions", without=("n", "logprobs", "logit_bias", "user")
        ),
    },
    settings=(Setting("workers_ai_account_id"),),
    error=error,
)
