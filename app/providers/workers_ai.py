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
from ..errors import UpstreamError, UpstreamProtocol, UpstreamStatus
from .declaration import Endpoint, ParamMapping, Provider, Setting, same_named
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, finish_reason, parse_usage
from .parsing.json_answers import read_completion, read_object
from .parsing.stream_ending import check_body_ended
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

    return read_completion(body, lambda document: _whole(document, upstream))


def _whole(document: Mapping[str, Any], upstream: UpstreamRequest) -> Completion:
    # The envelope of Cloudflare's API: {"success", "errors", "messages", "result"}. The
    # events of a stream are bare results.
    if not document.get("success", True):
        error = {"message": _error_message(document)}
        raise error_bodies.in_band_error({"error": error})
    reader, usage = _ResultReader(upstream), parse_usage(
        document["result"].get("usage")
    )
    text = reader.read(document["result"])
    rest, reason = reader.end(usage)
    return _completion(upstream, text + rest, usage, reason)


class WorkersAIReader:
    """Reads a stream. Only `[DONE]` says that it is complete: a reason that came
    before it, and the usage, wait for it.
    """

    # Events are {"response": "text", "p": "abc"}; the last one has the usage. `p` is
    # padding, since the sizes of packets would give the text away:
    # https://blog.cloudflare.com/ai-side-channel-attack-mitigated
    # Models that cannot stream answer with a whole document all the same:
    # https://github.com/cloudflare/ai/pull/396

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        self.done = False
        self._usage: Usage | None = None
        self._results = _ResultReader(upstream)

    def feed(self, event: Event) -> Sequence[Completion]:
        upstream = self._upstream
        if event.data == DONE:
            self.done = True
            rest, reason = self._results.end(self._usage)
            return (_completion(upstream, rest, self._usage, reason),)
        document = read_object(event.data)
        error_bodies.raise_in_band_error(document)
        if "result" in document:
            self.done = True
            return (completion(event.data, upstream),)
        usage = parse_usage(document.get("usage"))
        if usage is not None:
            self._usage = (self._usage or usage).updated(usage)
        # The event with the usage may have no text at all.
        text = self._results.read({"response": ""} | document)
        return (_completion(upstream, text),)

    def end(self, failure: UpstreamError | None = None) -> Sequence[Completion]:
        check_body_ended(failure)
        return ()


class _ResultReader:
    """Reads the results of one answer, the only one or those of its events.

    They have the text as `response`; newer models answer in the shape of OpenAI's
    completions, or of its chats.

    Source: https://github.com/BerriAI/litellm/pull/29354
    """

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        self._chat = openai_chat.ChatReader(upstream, whole=False)
        self._reason: str | None = None

    def read(self, result: Mapping[str, Any]) -> str:
        """The text of *result*."""
        choices = result.get("choices")
        text = self._choice_text(choices[0]) if choices else ""
        if text or choices and "response" not in result:
            return text
        # A text that looks like a number is one in the JSON: {"response": 5}.
        response = result["response"]
        return "" if response is None else str(response)

    def _choice_text(self, choice: Mapping[str, Any]) -> str:
        if choice.get("delta") or choice.get("message"):
            return self._chat_text(choice)
        self._reason = finish_reason(choice.get("finish_reason")) or self._reason
        return str(choice.get("text") or "")

    def _chat_text(self, choice: Mapping[str, Any]) -> str:
        """The text of a chat's choice, without its reasoning."""
        (read,) = self._chat.read({"choices": [choice]}).choices
        self._reason = read.finish_reason or self._reason
        return read.text

    def end(self, usage: Usage | None) -> tuple[str, str]:
        """The text that was held back, as it might be reasoning; and why it ended."""
        reason = self._reason or _inferred_reason(self._upstream, usage)
        rest = self._chat_text({"delta": {}, "finish_reason": reason})
        return rest, self._reason or reason


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
    reader=WorkersAIReader,
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
