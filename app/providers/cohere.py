"""Cohere's chat, version 2. Its /v1/generate was shut down in 2025.

Sources: https://docs.cohere.com/reference/chat-stream,
https://docs.cohere.com/v2/docs/migrating-v1-to-v2
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode
from .declaration import (
    Endpoint,
    ParamMapping,
    Provider,
    StreamReader,
    as_list,
    same_named,
)
from .model_lists import models_request, openai_model_list
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, counts_in, finish_reason, usage_of
from .parsing.json_answers import JSONStreamReader, read_object, read_whole
from .parsing.logprobs import LegacyLogprobs
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest

PARAMS = same_named(
    "max_tokens",
    "seed",
    # The ranges of the reference, which are narrower than OpenAI's.
    temperature=ParamMapping("temperature", low=0, high=1),
    top_p=ParamMapping("p", low=0.01, high=0.99),
    top_k=ParamMapping("k", low=0, high=500),
    frequency_penalty=ParamMapping("frequency_penalty", low=0, high=1),
    presence_penalty=ParamMapping("presence_penalty", low=0, high=1),
    # A boolean there. It gives those of the chosen tokens, and no alternatives.
    logprobs=ParamMapping("logprobs", high=0, convert=lambda top: True),
    stop=ParamMapping(
        "stop_sequences",
        max_items=5,
        convert=as_list,
    ),
)


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request: the prompt is the only message."""
    body = {
        "model": upstream.request.model,
        "messages": openai_chat.messages(upstream),
        **upstream.body(),
    }
    return upstream.post("/v2/chat", body | {"stream": upstream.request.stream})


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole chat as a completion."""
    return read_whole(body, CohereReader(upstream).whole, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of a chat as chunks of a completion."""
    return JSONStreamReader(upstream, CohereReader(upstream).chunk)


class CohereReader:
    """Reads one chat; its id comes first, its finish reason and usage last."""

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        self._id: str | None = None
        self._logprobs = LegacyLogprobs(len(str(upstream.request.prompt)), 0)

    def whole(self, document: dict[str, Any]) -> Completion:
        # Parts of type `thinking` come before those of type `text`.
        parts = document["message"].get("content") or ()
        text = "".join(p["text"] for p in parts if p["type"] == "text")
        self._id = document.get("id")
        entries = document.get("logprobs") or ()
        reason = document.get("finish_reason")
        return self._completion(text, reason, document.get("usage"), entries)

    def chunk(self, event: dict[str, Any]) -> Completion:
        """What one event adds; for most, a completion without choices."""
        # message-start has the id; then for each part content-start, -delta and -end;
        # message-end has the finish reason and the usage. Recorded streams end in an
        # undocumented `[DONE]`, which is not required.
        if "error" in event:
            error_bodies.raise_in_band_error(event)
        self._id = event.get("id") or self._id
        delta = event.get("delta") or {}
        if event.get("type") == "message-end":
            # The HTTP status is already 200.
            if delta.get("error"):
                raise error_bodies.in_band_error({"message": delta["error"]})
            word = delta.get("finish_reason")
            return self._completion("", word, delta.get("usage"))
        if event.get("type") != "content-delta":
            return self._completion("", None)
        # A part of the reasoning has `thinking` in place of `text`.
        text = delta["message"]["content"].get("text") or ""
        entry = event.get("logprobs") or delta.get("logprobs")
        # An entry without text belongs to the reasoning.
        return self._completion(text, None, None, [entry] if entry and text else ())

    def _completion(
        self,
        text: str,
        word: str | None,
        usage: Mapping[str, Any] | None = None,
        entries: Iterable[Mapping[str, Any]] = (),
    ) -> Completion:
        reason = finish_reason(word, strict=self._upstream.target.strict)
        logprobs = None
        if self._upstream.request.logprobs is not None:
            # An entry is a piece of text that may consist of several tokens, with the
            # log probability of each. The legacy shape has one for each text: the sum.
            tokens = [
                {"token": e.get("text") or "", "logprob": sum(e["logprobs"])}
                for e in entries
            ]
            logprobs = self._logprobs.read(tokens)
        choices = (Choice(text, 0, logprobs, reason),)
        head = answer_head({"id": self._id}, self._upstream)
        return Completion(*head, choices, _parse_usage(counts_in(usage)))


def _parse_usage(usage: Mapping[str, Any]) -> Usage | None:
    # `billed_units` has only what is billed: one recorded answer counts 68 tokens of
    # input there, and 1591 in `tokens`. Both are declared as floats.
    tokens = counts_in(usage.get("tokens"))
    billed = counts_in(usage.get("billed_units"))
    return usage_of(
        tokens.get("input_tokens") or billed.get("input_tokens"),
        tokens.get("output_tokens") or billed.get("output_tokens"),
    )


def convert_model_list(body: bytes) -> bytes:
    """The list of models in OpenAI's shape."""
    return openai_model_list((m["name"] for m in read_object(body)["models"]), "cohere")


COHERE = Provider(
    name="cohere",
    docs="https://docs.cohere.com/reference/chat-stream",
    base_url="https://api.cohere.com",
    api_path="/v2",
    modes={
        CompletionMode.CHAT: Endpoint(
            params=PARAMS,
            check=openai_chat.check,
            call=call,
            completion=completion,
            reader=stream_reader,
        )
    },
    error=error_bodies.error,
    models=models_request("/v1/models"),
    model_list=convert_model_list,
)
