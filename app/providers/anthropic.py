"""Anthropic's Messages.

Its completions endpoint, /v1/complete, was shut down with the models behind it.

Sources: https://platform.claude.com/docs/en/api/messages/create,
https://platform.claude.com/docs/en/build-with-claude/streaming,
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode
from .declaration import (
    Endpoint,
    ParamMapping,
    Provider,
    Setting,
    StreamReader,
    as_list,
    same_named,
)
from .model_lists import model_list, models_request, openai_model_list
from .parsing import error_bodies
from .parsing.answer_fields import (
    answer_head,
    count_of,
    counts_in,
    finish_reason,
    usage_of,
)
from .parsing.json_answers import JSONStreamReader, read_whole
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest, key_header

# Not the newest: 2026-10-21 refuses temperature, top_p and top_k. A target may name
# another one by `anthropic_version`.
# Source: https://platform.claude.com/docs/en/api/versioning
VERSION = "2023-06-01"

# What may be no part of `metadata.user_id`: "user_id appears to contain an email
# address. Please send a uuid or hash value" is a 400, and so is a telephone number, or
# an id of more than 256 characters. A number without separators is one of those if
# it has as many digits as telephone numbers; ids of 16 and more are none.
# Sources: https://platform.claude.com/docs/en/api/messages/create (metadata),
# https://github.com/BerriAI/litellm/issues/10106 and its pull request 11432
_MAX_USER_ID = 256
_PERSONAL = re.compile(
    # name@host
    r"[^\s@]@[^\s@]"
    # +41 44 668 18 00
    r"|\+\d(?:[ ().-]{0,2}\d){6,14}(?!\d)"
    # (415) 555-2671, and with no more than digits: 4155552671
    r"|(?<![\w-])\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])"
    r"|\A\s*(?=(?:\D*\d){7,15}\D*\Z)[\d ().-]+\Z"
)


def takes_user_id(user: str) -> bool:
    """Whether *user* is an id as Anthropic wants it: opaque, and not too long."""
    return len(user) <= _MAX_USER_ID and not _PERSONAL.search(user)


PARAMS = same_named(
    "max_tokens",
    "top_k",
    "top_p",
    temperature=ParamMapping("temperature", high=1),
    # "each stop sequence must contain non-whitespace", or 400; the gateway then applies
    # all of them itself. Source: https://github.com/BerriAI/litellm/issues/3286
    stop=ParamMapping(
        "stop_sequences",
        takes=lambda stop: bool(stop.strip()),
        convert=as_list,
    ),
    user=ParamMapping("metadata.user_id", takes=takes_user_id),
)


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request: the prompt is the only message."""
    body = {"model": upstream.request.model, **request(upstream)}
    return upstream.post("/messages", body, {"anthropic-version": VERSION})


def request(upstream: UpstreamRequest) -> dict[str, Any]:
    """The body without the model."""
    user = {"role": "user", "content": openai_chat.user_message(upstream)}
    body = {"messages": [user], **upstream.body()}
    if upstream.target.bridge.system:
        body["system"] = upstream.target.bridge.system
    return body | {"stream": True} if upstream.request.stream else body


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole message as a completion."""
    return read_whole(body, AnthropicReader(upstream).whole, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of a message as chunks of a completion."""
    return JSONStreamReader(upstream, AnthropicReader(upstream).chunk)


class AnthropicReader:
    """Reads one message: its head comes first, its finish reason and usage last."""

    # A stream is `message_start` (id, model, counts so far), then for each block of
    # content `content_block_start`, `_delta` and `_stop`, then `message_delta` (stop
    # reason, final counts) and `message_stop`. `ping` comes anywhere. No event is
    # `[DONE]`: the end of the body is the end. Blocks of thinking come first, with
    # deltas of other types (`thinking_delta`, `signature_delta`); only `text_delta` is
    # part of the completion.

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        self._head = answer_head({}, upstream)
        self._counts: dict[str, int] = {}

    def whole(self, message: dict[str, Any]) -> Completion:
        self._begin(message)
        blocks = message["content"]
        text = "".join(b["text"] for b in blocks if b["type"] == "text")
        strict = self._upstream.target.strict
        reason = finish_reason(message.get("stop_reason"), strict=strict)
        choices = (Choice(text, 0, None, reason),)
        return Completion(*self._head, choices, self._usage())

    def chunk(self, event: dict[str, Any]) -> Completion:
        """What one event adds; for most, a completion without choices."""
        kind, delta = event.get("type"), event.get("delta") or {}
        # `{"type": "error", "error": {"type": "overloaded_error", "message": ...}}`
        if kind in ("error", None):
            error_bodies.raise_in_band_error(event)
        if kind == "message_start":
            self._begin(event["message"])
            # Preliminary: the count of what is about to be written.
            self._counts.pop("output_tokens", None)
        if kind == "message_delta":
            self._update_counts(event.get("usage"))
            return self._completion("", delta.get("stop_reason"))
        # Events of unknown types are passed over. New ones may come at any time, and
        # Vertex AI adds `vertex_event`: https://github.com/vercel/ai/pull/13576
        text = delta["text"] if delta.get("type") == "text_delta" else ""
        return self._completion(text, None)

    def _begin(self, message: Mapping[str, Any]) -> None:
        self._head = answer_head(message, self._upstream)
        self._update_counts(message.get("usage"))

    def _update_counts(self, usage: Mapping[str, Any] | None) -> None:
        """Keep the latest counts: they are totals, not differences.

        Null and 0 are no change: proxies send them for what they have not counted.
        """
        counts = {name: count_of(value) for name, value in counts_in(usage).items()}
        self._counts |= {name: count for name, count in counts.items() if count}

    def _completion(self, text: str, stop_reason: str | None) -> Completion:
        reason = finish_reason(stop_reason, strict=self._upstream.target.strict)
        choices = (Choice(text, 0, None, reason),) if text or reason else ()
        # The last event has the final counts.
        return Completion(*self._head, choices, self._usage() if reason else None)

    def _usage(self) -> Usage | None:
        """The counts so far. Those of the cache are not part of `input_tokens`."""
        uncached = self._counts.get("input_tokens", 0)
        written = self._counts.get("cache_creation_input_tokens", 0)
        read = self._counts.get("cache_read_input_tokens", 0)
        output_tokens = self._counts.get("output_tokens")
        return usage_of(uncached + written + read, output_tokens, cached=read)


def convert_model_list(body: bytes) -> bytes:
    """The list of models in OpenAI's shape."""
    # The list is under `data`, as OpenAI's; the entries have other fields.
    models = orjson.loads(model_list(body))["data"]
    return openai_model_list((m["id"] for m in models), "anthropic")


ENDPOINT = Endpoint(
    params=PARAMS,
    # It is required; reasoning counts, and every model may write this much.
    default_max_tokens=4096,
    # Models since Claude Opus 4.1 refuse both together.
    # Source: https://github.com/anomalyco/opencode/issues/1644
    exclusive_params=(("temperature", "top_p"),),
    check=openai_chat.check,
    call=call,
    completion=completion,
    reader=stream_reader,
)
ANTHROPIC = Provider(
    name="anthropic",
    docs="https://platform.claude.com/docs/en/api/messages/create",
    base_url="https://api.anthropic.com/v1",
    modes={CompletionMode.CHAT: ENDPOINT},
    auth=key_header("x-api-key"),
    settings=(
        Setting(
            "anthropic_version",
            alternative_header="anthropic-version",
            upstream_header="anthropic-version",
        ),
        Setting(
            "anthropic_beta",
            alternative_header="anthropic-beta",
            upstream_header="anthropic-beta",
        ),
    ),
    error=error_bodies.error,
    models=models_request("/models"),
    model_list=convert_model_list,
)
