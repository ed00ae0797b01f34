"""Cloudflare's Workers AI: a prompt as it is, or a chat.

With `raw` no template is put around the prompt. It has no stop sequences, and older
models send no finish reason; `length` is then inferred from the usage.

Sources, below https://developers.cloudflare.com/workers-ai/:
configuration/open-ai-compatibility/, guides/prompting/ (raw and templates), models/
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode
from ..core.sse import DONE, Event
from ..errors import UpstreamError
from .declaration import Endpoint, ParamMapping, Provider, Setting, same_named
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, finish_reason, parse_usage
from .parsing.json_answers import read_completion, read_object
from .parsing.stream_ending import check_body_ended
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
        result = document["result"]
        usage = parse_usage(result.get("usage"))
        text, reason = _text_and_reason(result)
        return _completion(
            upstream, text, usage, reason or _inferred_reason(upstream, usage)
        )

    return read_completion(body, whole)


class WorkersAIReader:
    """Reads a stream. Only `[DONE]` says that it is complete: a reason that came
    before it, and the usage, wait for it.
    """

    # Events are {"response": "text", "p": "abc"}; the last one has the usage. `p` is
    # padding, since the sizes of packets would give the text away:
    # https://blog.cloudflare.com/ai-side-channel-attack-mitigated

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        self.done = False
        self._usage: Usage | None = None
        self._reason: str | None = None

    def feed(self, event: Event) -> Sequence[Completion]:
        upstream = self._upstream
        if event.data == DONE:
            self.done = True
            last = self._reason or _inferred_reason(upstream, self._usage)
            return (_completion(upstream, "", self._usage, last),)
        document = read_object(event.data)
        error_bodies.raise_in_band_error(document)
        self._usage = parse_usage(document.get("usage")) or self._usage
        # The event with the usage may have no text at all.
        text, reason = _text_and_reason({"response": ""} | document)
        self._reason = reason or self._reason
        return (_completion(upstream, text),)

    def end(self, failure: UpstreamError | None = None) -> Sequence[Completion]:
        check_body_ended(failure)
        return ()


def _text_and_reason(result: Mapping[str, Any]) -> tuple[str, str | None]:
    """Text and reason; newer models answer in the shape of OpenAI's completions."""
    if not result.get("choices"):
        # A text that looks like a number is one in the JSON: {"response": 5}.
        text = result["response"]
        return "" if text is None else str(text), None
    choice = result["choices"][0]
    return str(choice.get("text") or ""), finish_reason(choice.get("finish_reason"))


def _completion(
    upstream: UpstreamRequest,
    text: str,
    usage: Usage | None = None,
    reason: str | None = None,
) -> Completion:
    choices = (Choice(text, 0, None, reason),) if text or reason else ()
    return Completion(*answer_head({}, upstream), choices, usage)


def _inferred_reason(upstream: UpstreamRequest, usage: Usage | None) -> str:
    # Models that answer with `response` say nothing of why they ended.
    limit = upstream.request.max_tokens
    if usage and limit is not None and usage.completion_tokens >= limit:
        return "length"
    return "stop"


_NATIVE = Endpoint(
    params=_PARAMS,
    call=call,
    completion=completion,
    reader=WorkersAIReader,
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
