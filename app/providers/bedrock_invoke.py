"""Amazon Bedrock's InvokeModel, for the models that take plain text.

The body is the model's own, and each vendor has its own names for everything. All get
the prompt as it is, without a template.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.completion import Completion, Usage
from ..core.sse import Event
from .bedrock_runtime import (
    HEADER_COUNTS,
    METRIC_COUNTS,
    completion_of,
    parse_usage,
    post,
    raise_event_error,
)
from .declaration import (
    Endpoint,
    ModelFamilies,
    ParamMapping,
    ParamMappings,
    StreamReader,
    as_list,
)
from .parsing.answer_fields import counts_in, usage_of
from .parsing.error_bodies import raise_in_band_error
from .parsing.json_answers import (
    JSONStreamReader,
    malformed_as_upstream_error,
    read_object,
    read_whole,
)
from .parsing.stream_ending import is_empty, is_terminator
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest


@dataclass(frozen=True, slots=True)
class InvokeFamily:
    """The format of requests and answers of one vendor's models.

    *prompt* is the key of the prompt; *text* and *reason* read a document of the
    answer, whole or streamed; *usage* its counts, where it has them. *streaming* is
    what the body of a streamed request needs besides the path.
    """

    params: ParamMappings
    prompt: str
    text: Callable[[Mapping[str, Any]], str]
    reason: Callable[[Mapping[str, Any]], Any]
    usage: Callable[[Mapping[str, Any]], Usage | None] = lambda piece: None
    streaming: Mapping[str, Any] = field(default_factory=dict)

    def endpoint(self) -> Endpoint:
        return Endpoint(
            params=self.params,
            call=self.call,
            completion=self.completion,
            reader=self.reader,
            header_usage=lambda headers: parse_usage(headers, HEADER_COUNTS),
        )

    def call(self, upstream: UpstreamRequest) -> HTTPRequest:
        body = {self.prompt: upstream.request.prompt, **upstream.body()}
        if upstream.request.stream:
            return post(
                upstream, "invoke-with-response-stream", {**body, **self.streaming}
            )
        return post(upstream, "invoke", body)

    def completion(self, body: bytes, upstream: UpstreamRequest) -> Completion:
        return read_whole(
            body, lambda document: self._read(document, upstream), upstream
        )

    def reader(self, upstream: UpstreamRequest) -> StreamReader:
        return JSONStreamReader(
            upstream,
            lambda document: self._read(document, upstream),
            payload=unwrap_chunk,
        )

    def _read(self, document: dict[str, Any], upstream: UpstreamRequest) -> Completion:
        raise_in_band_error(document)
        # Bedrock's own counts are in the last document of a stream, for each model, and
        # in the headers of a whole answer. They win over those of the vendor, if any.
        metrics = counts_in(document.get("amazon-bedrock-invocationMetrics"))
        counted, usage = parse_usage(metrics, METRIC_COUNTS), self.usage(document)
        if counted and usage:
            usage = usage.updated(counted)
        text, reason = self.text(document), self.reason(document)
        return completion_of(upstream, text, reason, usage or counted)


def unwrap_chunk(event: Event) -> bytes:
    """The model's JSON in an event of InvokeModelWithResponseStream.

    The payload of each frame is `{"bytes": "BASE64", "p": "padding"}`.
    """
    raise_event_error(event)
    if is_empty(event.data) or is_terminator(event.data):
        return event.data
    document = read_object(event.data)
    if "bytes" not in document:
        raise_in_band_error(document)
    with malformed_as_upstream_error(event.data):
        return base64.b64decode(document["bytes"], validate=True)


_META = InvokeFamily(
    {
        "max_tokens": ParamMapping("max_gen_len"),
        "temperature": ParamMapping("temperature", high=1),
        "top_p": ParamMapping("top_p"),
    },
    prompt="prompt",
    text=lambda piece: piece["generation"],
    reason=lambda piece: piece.get("stop_reason"),
    # In a stream each document has the total so far, and only the first the prompt's
    # count.
    usage=lambda piece: (
        usage_of(piece.get("prompt_token_count"), piece.get("generation_token_count"))
        if piece.get("stop_reason") or piece.get("prompt_token_count")
        else None
    ),
)
# Bodies of Mistral's whole answers have no counts, and older ones no headers either:
# then the gateway estimates the usage.
# Source: https://github.com/aws-samples/bedrock-access-gateway/issues/15
_MISTRAL = InvokeFamily(
    {
        "max_tokens": ParamMapping("max_tokens"),
        "temperature": ParamMapping("temperature", high=1),
        "top_p": ParamMapping("top_p"),
        "top_k": ParamMapping("top_k"),
        "stop": ParamMapping("stop", max_items=10, convert=as_list),
    },
    prompt="prompt",
    text=lambda piece: openai_chat.choice_text(_mistral_output(piece)),
    reason=lambda piece: _mistral_output(piece).get("stop_reason")
    or _mistral_output(piece).get("finish_reason"),
)
# Titan nests its parameters, and has one result in a list.
_TITAN = InvokeFamily(
    {
        "max_tokens": ParamMapping("textGenerationConfig.maxTokenCount"),
        "temperature": ParamMapping("textGenerationConfig.temperature", high=1),
        "top_p": ParamMapping("textGenerationConfig.topP"),
        "stop": ParamMapping(
            "textGenerationConfig.stopSequences", max_items=4, convert=as_list
        ),
    },
    prompt="inputText",
    text=lambda piece: _titan_result(piece)["outputText"],
    reason=lambda piece: _titan_result(piece).get("completionReason"),
    usage=lambda piece: usage_of(
        piece.get("inputTextTokenCount"),
        _titan_result(piece).get("tokenCount")
        # The name in a stream.
        or piece.get("totalOutputTextTokenCount"),
    ),
)
_COHERE = InvokeFamily(
    {
        "max_tokens": ParamMapping("max_tokens"),
        "temperature": ParamMapping("temperature", high=5),
        "top_p": ParamMapping("p"),
        "top_k": ParamMapping("k"),
        "stop": ParamMapping("stop_sequences", max_items=4, convert=as_list),
    },
    prompt="prompt",
    text=lambda piece: _cohere_text(_cohere_generation(piece)),
    reason=lambda piece: _cohere_generation(piece).get("finish_reason"),
    # "Required to support streaming": otherwise one event has the whole text.
    streaming={"stream": True},
)


def _mistral_output(piece: Mapping[str, Any]) -> Any:
    """The output; models that only chat answer in the shape of a chat."""
    return piece["outputs" if "outputs" in piece else "choices"][0]


def _titan_result(piece: Mapping[str, Any]) -> Any:
    """The result. A whole answer has a list of one; a stream sends it bare."""
    return piece["results"][0] if "results" in piece else piece


def _cohere_generation(piece: Mapping[str, Any]) -> Any:
    # As with Titan: a list of one in a whole answer, bare in a stream.
    return piece["generations"][0] if "generations" in piece else piece


def _cohere_text(generation: Mapping[str, Any]) -> Any:
    # The last event of a stream has only the reason.
    if generation.get("is_finished") or generation.get("finish_reason"):
        return generation.get("text") or ""
    return generation["text"]


_FAMILIES = {
    "meta": _META.endpoint(),
    "mistral": _MISTRAL.endpoint(),
    "amazon": _TITAN.endpoint(),
    "cohere": _COHERE.endpoint(),
}


def _family_of(model: str) -> str:
    """The vendor in a model's name, which may follow a region: `us.meta.llama3-...`.

    In an ARN it follows a slash: `arn:...:foundation-model/meta.llama3-...`. Empty for
    a vendor that has no plain text here.
    """
    parts = re.split(r"[./]", model)
    return next((part for part in parts if part in _FAMILIES), "")


INVOKE = ModelFamilies(_FAMILIES, _family_of)
