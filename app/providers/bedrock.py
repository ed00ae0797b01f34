"""Amazon Bedrock: Converse for every model, InvokeModel for those that take plain text.

Sources, below https://docs.aws.amazon.com/bedrock/latest/:
APIReference/API_runtime_Converse.html, APIReference/API_runtime_ConverseStream.html,
userguide/model-parameters.html
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import safe_json
from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode, Target
from ..core.sse import Event
from ..errors import UpstreamInBand
from .declaration import (
    Endpoint,
    HTTPRequest,
    ModelFamilies,
    ParamMapping,
    ParamMappings,
    Provider,
    Setting,
    StreamReader,
    UpstreamRequest,
    as_list,
)
from .parsing import error_bodies
from .parsing.finish_reasons import finish_reason
from .parsing.json_bodies import read_completion
from .parsing.json_streams import JSONStreamReader
from .protocols import openai_chat
from .request_parts import bearer, quote_path_segment


def _auth(target: Target) -> dict[str, str]:
    """An API key of Bedrock's own; access keys sign the call instead."""
    return {} if target.has(_SIGNS) else bearer(target)


_SIGNS = ("aws_access_key_id", "aws_secret_access_key")


def _post(ask: UpstreamRequest, verb: str, body: object) -> HTTPRequest:
    return ask.post(f"/model/{quote_path_segment(ask.request.model)}/{verb}", body)


# Statuses that errors in a stream would have had before it began.
_STATUSES = {
    "throttlingException": 429,
    "validationException": 400,
    "modelTimeoutException": 408,
    "modelStreamErrorException": 424,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
}


def _refuse_error(event: Event) -> None:
    """Raise the exception that an event is, if it is one."""
    name = event.name.decode("utf-8", "replace")
    if name.endswith("Exception") or name in _STATUSES:
        raise _in_band(name, event.data)


def _in_band(name: str, payload: bytes) -> UpstreamInBand:
    try:
        told = safe_json.load(payload)
    except ValueError:
        told = None
    message = told.get("message") if isinstance(told, dict) else None
    details = {"message": message or name, "type": name}
    return error_bodies.in_band(
        {"error": details, "status_code": _STATUSES.get(name, 502)}
    )


# Converse

_CONVERSE: ParamMappings = {
    "max_tokens": ParamMapping("inferenceConfig.maxTokens"),
    "temperature": ParamMapping("inferenceConfig.temperature", high=1),
    "top_p": ParamMapping("inferenceConfig.topP"),
    "stop": ParamMapping(
        "inferenceConfig.stopSequences",
        takes=lambda stop: bool(stop.strip()),
        write=as_list,
    ),
    "top_k": ParamMapping("additionalModelRequestFields.top_k"),
}


def converse(ask: UpstreamRequest) -> HTTPRequest:
    """The prompt as the only message."""
    said = {"role": "user", "content": [{"text": openai_chat.user_message(ask)}]}
    body = {"messages": [said], **ask.body()}
    if ask.target.bridge.system:
        body["system"] = [{"text": ask.target.bridge.system}]
    return _post(ask, "converse-stream" if ask.request.stream else "converse", body)


def conversed(body: bytes, ask: UpstreamRequest) -> Completion:
    """A whole answer of Converse as a completion."""

    def whole(document: dict[str, Any]) -> Completion:
        blocks = document["output"]["message"]["content"]
        text = "".join(block.get("text") or "" for block in blocks)
        usage = _usage(document.get("usage") or {}, "inputTokens", "outputTokens")
        return _completion(ask, text, document["stopReason"], usage)

    return read_completion(body, whole)


def converse_reader(ask: UpstreamRequest) -> StreamReader:
    """The pieces of an answer of ConverseStream as pieces of a completion."""

    def piece(document: dict[str, Any]) -> Completion:
        text = (document.get("delta") or {}).get("text") or ""
        usage = _usage(document.get("usage") or {}, "inputTokens", "outputTokens")
        return _completion(ask, text, document.get("stopReason"), usage)

    def payload(event: Event) -> bytes:
        _refuse_error(event)
        return event.data

    return JSONStreamReader(piece, payload=payload)


def _completion(
    ask: UpstreamRequest, text: str, reason: Any, usage: Usage | None = None
) -> Completion:
    ended = finish_reason(reason, strict=ask.target.strict)
    choices = (Choice(text, 0, None, ended),) if text or ended else ()
    return Completion(*openai_chat.head({}, ask), choices, usage)


def _usage(given: Mapping[str, Any], sent: str, made: str) -> Usage | None:
    if sent not in given and made not in given:
        return None
    cached = given.get("cacheReadInputTokens") or 0
    written = given.get("cacheWriteInputTokens") or 0
    prompt = (given.get(sent) or 0) + cached + written
    return Usage(prompt, given.get(made) or 0, cached_tokens=cached)


# InvokeModel


@dataclass(frozen=True, slots=True)
class _Family:
    """How the models of one maker are spoken to.

    *prompt* is where the prompt stands; *text* and *reason* read a piece of the answer,
    whole or streamed; *usage* its counts, where it has them. *streaming* is what the
    body has to say for a stream, besides the path.
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
        )

    def call(self, ask: UpstreamRequest) -> HTTPRequest:
        body = {self.prompt: ask.request.prompt, **ask.body()}
        if ask.request.stream:
            return _post(ask, "invoke-with-response-stream", {**body, **self.streaming})
        return _post(ask, "invoke", body)

    def completion(self, body: bytes, ask: UpstreamRequest) -> Completion:
        return read_completion(body, lambda document: self._read(document, ask))

    def reader(self, ask: UpstreamRequest) -> StreamReader:
        def payload(event: Event) -> bytes:
            _refuse_error(event)
            return read_chunk(event.data)

        return JSONStreamReader(
            lambda document: self._read(document, ask), payload=payload
        )

    def _read(self, document: dict[str, Any], ask: UpstreamRequest) -> Completion:
        metrics = document.get("amazon-bedrock-invocationMetrics") or {}
        usage = _usage(metrics, "inputTokenCount", "outputTokenCount")
        text, reason = self.text(document), self.reason(document)
        return _completion(ask, text, reason, usage or self.usage(document))


def read_chunk(payload: bytes) -> bytes:
    """The JSON inside of an event of InvokeModelWithResponseStream."""
    found: list[bytes] = []

    def unwrap(document: dict[str, Any]) -> Completion:
        found.append(base64.b64decode(document["bytes"], validate=True))
        return Completion("", 0, "")

    read_completion(payload, unwrap)
    return found[0]


_META = _Family(
    {
        "max_tokens": ParamMapping("max_gen_len"),
        "temperature": ParamMapping("temperature", high=1),
        "top_p": ParamMapping("top_p"),
    },
    prompt="prompt",
    text=lambda piece: piece["generation"],
    reason=lambda piece: piece.get("stop_reason"),
    usage=lambda piece: (
        Usage(piece.get("prompt_token_count") or 0, piece["generation_token_count"])
        if piece.get("stop_reason")
        else None
    ),
)
_MISTRAL = _Family(
    {
        "max_tokens": ParamMapping("max_tokens"),
        "temperature": ParamMapping("temperature", high=1),
        "top_p": ParamMapping("top_p"),
        "top_k": ParamMapping("top_k"),
        "stop": ParamMapping("stop", most=10, write=as_list),
    },
    prompt="prompt",
    text=lambda piece: piece["outputs"][0]["text"],
    reason=lambda piece: piece["outputs"][0].get("stop_reason"),
)
_TITAN = _Family(
    {
        "max_tokens": ParamMapping("textGenerationConfig.maxTokenCount"),
        "temperature": ParamMapping("textGenerationConfig.temperature", high=1),
        "top_p": ParamMapping("textGenerationConfig.topP"),
        "stop": ParamMapping("textGenerationConfig.stopSequences", write=as_list),
    },
    prompt="inputText",
    text=lambda piece: _titan(piece)["outputText"],
    reason=lambda piece: _titan(piece).get("completionReason"),
    usage=lambda piece: (
        Usage(piece.get("inputTextTokenCount") or 0, _titan(piece)["tokenCount"])
        if "results" in piece
        else None
    ),
)
_COHERE = _Family(
    {
        "max_tokens": ParamMapping("max_tokens"),
        "temperature": ParamMapping("temperature"),
        "top_p": ParamMapping("p"),
        "top_k": ParamMapping("k"),
        "stop": ParamMapping("stop_sequences", write=as_list),
    },
    prompt="prompt",
    text=lambda piece: _cohere(piece).get("text") or "",
    reason=lambda piece: _cohere(piece).get("finish_reason"),
    streaming={"stream": True},
)


def _titan(piece: Mapping[str, Any]) -> Any:
    """The result, which a stream has without its wrapping."""
    return piece["results"][0] if "results" in piece else piece


def _cohere(piece: Mapping[str, Any]) -> Any:
    return piece["generations"][0] if "generations" in piece else piece


_FAMILIES = {
    "meta": _META.endpoint(),
    "mistral": _MISTRAL.endpoint(),
    "amazon": _TITAN.endpoint(),
    "cohere": _COHERE.endpoint(),
}


def _maker(model: str) -> str:
    """It stands before a point, behind the region: `us.meta.llama3-...`.

    In an ARN it stands behind a slash: `arn:...:foundation-model/meta.llama3-...`.
    """
    pieces = re.split(r"[./]", model)
    return next((piece for piece in pieces if piece in _FAMILIES), "")


_CHAT = Endpoint(
    params=_CONVERSE,
    exclusive=(("temperature", "top_p"),),
    check=openai_chat.check,
    call=converse,
    completion=conversed,
    reader=converse_reader,
)
BEDROCK = Provider(
    name="bedrock",
    docs="https://docs.aws.amazon.com/bedrock/latest/APIReference/"
    "API_runtime_Converse.html",
    base_url="https://bedrock-runtime.{aws_region}.amazonaws.com",
    modes={
        CompletionMode.CHAT: _CHAT,
        CompletionMode.NATIVE: ModelFamilies(_FAMILIES, _maker),
    },
    auth=_auth,
    signer="aws",
    keys=(_SIGNS,),
    settings=(
        Setting("aws_access_key_id"),
        Setting("aws_secret_access_key", secret=True),
        Setting("aws_session_token", secret=True),
        Setting("aws_region", default="us-east-1"),
    ),
    error=error_bodies.error,
)
