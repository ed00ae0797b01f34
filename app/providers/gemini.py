"""Google's generateContent, as the Gemini API has it, and Vertex AI as well.

Sources: https://ai.google.dev/api/generate-content,
https://docs.cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/GenerateContentResponse
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.completion import Choice, Completion, Logprobs, Usage
from ..core.routing import CompletionMode
from ..errors import UpstreamStatus
from .declaration import (
    Endpoint,
    HTTPRequest,
    ParamMapping,
    Provider,
    StreamReader,
    UpstreamRequest,
    as_list,
)
from .model_lists import models_request, openai_model_list
from .parsing import error_bodies
from .parsing.finish_reasons import finish_reason
from .parsing.json_bodies import read_completion, read_object
from .parsing.json_streams import JSONStreamReader
from .parsing.logprobs import LegacyLogprobs
from .protocols import openai_chat
from .request_parts import key_header, quote_path_segment

PARAMS = {
    "max_tokens": ParamMapping("generationConfig.maxOutputTokens"),
    "temperature": ParamMapping("generationConfig.temperature"),
    "top_p": ParamMapping("generationConfig.topP"),
    "top_k": ParamMapping("generationConfig.topK"),
    "frequency_penalty": ParamMapping("generationConfig.frequencyPenalty"),
    "presence_penalty": ParamMapping("generationConfig.presencePenalty"),
    # An int32 on its side.
    "seed": ParamMapping("generationConfig.seed", low=-(2**31), high=2**31 - 1),
    "logprobs": ParamMapping("generationConfig.logprobs", high=20),
    "stop": ParamMapping(
        "generationConfig.stopSequences",
        most=5,
        write=as_list,
    ),
}


def call(ask: UpstreamRequest) -> HTTPRequest:
    """The prompt as the only content."""
    model = ask.request.model.removeprefix("models/")
    return ask.post(
        f"/v1beta/models/{quote_path_segment(model)}:{method(ask)}", request(ask)
    )


def method(ask: UpstreamRequest) -> str:
    """The verb at the end of the path."""
    return "streamGenerateContent?alt=sse" if ask.request.stream else "generateContent"


def request(ask: UpstreamRequest) -> dict[str, Any]:
    """The body. More candidates than one would need a model that draws them."""
    parts = [{"text": openai_chat.user_message(ask)}]
    body = {"contents": [{"role": "user", "parts": parts}], **ask.body()}
    if ask.request.logprobs is not None:
        body["generationConfig"]["responseLogprobs"] = True
        # Those of the chosen tokens come anyway, and Vertex refuses a 0.
        ask.request.logprobs or body["generationConfig"].pop("logprobs")
    if ask.target.bridge.system:
        body["systemInstruction"] = {"parts": [{"text": ask.target.bridge.system}]}
    return body


def completion(body: bytes, ask: UpstreamRequest) -> Completion:
    """A whole answer as a completion."""
    return read_completion(body, GeminiReader(ask, whole=True).read)


def stream_reader(ask: UpstreamRequest) -> StreamReader:
    """The pieces of an answer as pieces of a completion; all have the same shape."""
    return JSONStreamReader(GeminiReader(ask, whole=False).read)


class GeminiReader:
    def __init__(self, ask: UpstreamRequest, *, whole: bool) -> None:
        self._ask = ask
        self._whole = whole
        top, start = ask.request.logprobs, len(str(ask.request.prompt))
        self._legacy = None if top is None else LegacyLogprobs(start, top)

    def read(self, document: dict[str, Any]) -> Completion:
        openai_chat.refuse_error(document)
        named = {
            "id": document.get("responseId"),
            "model": document.get("modelVersion"),
        }
        return Completion(
            *openai_chat.head(named, self._ask),
            choices=tuple(self._choices(document)),
            usage=_usage(document.get("usageMetadata") or {}),
        )

    def _choices(self, document: Mapping[str, Any]) -> Iterator[Choice]:
        blocked = (document.get("promptFeedback") or {}).get("blockReason")
        if blocked and not document.get("candidates"):
            yield Choice("", 0, None, "content_filter")
        for candidate in document.get("candidates") or ():
            yield self._choice(candidate)
        if self._whole and not blocked and not document.get("candidates"):
            raise IndexError("no candidates")

    def _choice(self, candidate: Mapping[str, Any]) -> Choice:
        parts = (candidate.get("content") or {}).get("parts") or ()
        text = "".join(p.get("text") or "" for p in parts if not p.get("thought"))
        reason = candidate.get("finishReason") or ("STOP" if self._whole else None)
        ended = finish_reason(reason, strict=self._ask.target.strict)
        return Choice(text, 0, self._logprobs(candidate.get("logprobsResult")), ended)

    def _logprobs(self, given: Any) -> Logprobs | None:
        if not given or self._legacy is None:
            return None
        top = [t.get("candidates") or [] for t in given.get("topCandidates") or ()]
        chosen = given.get("chosenCandidates") or []
        top += [[]] * (len(chosen) - len(top))
        pairs = zip(chosen, top, strict=False)
        return self._legacy.read([_entry(*pair) for pair in pairs])


def _entry(chosen: Mapping[str, Any], top: list[Any]) -> dict[str, Any]:
    """A token in the shape of OpenAI's chat."""
    likely = [_entry(other, []) for other in top]
    token, logprob = chosen.get("token") or "", chosen.get("logProbability") or 0.0
    return {"token": token, "logprob": logprob, "top_logprobs": likely}


def _usage(given: Mapping[str, Any]) -> Usage | None:
    """Thoughts are counted beside the candidates, and paid as they are."""
    if "promptTokenCount" not in given:
        return None
    thoughts = given.get("thoughtsTokenCount") or 0
    return Usage(
        given["promptTokenCount"],
        (given.get("candidatesTokenCount") or 0) + thoughts,
        reasoning_tokens=thoughts,
        cached_tokens=given.get("cachedContentTokenCount") or 0,
    )


def error(status: int, body: bytes) -> UpstreamStatus:
    """Its errors; those of streams may stand in an array of one."""
    inner = body.strip()
    return error_bodies.error(status, inner[1:-1] if inner.startswith(b"[") else body)


def _listed(body: bytes) -> bytes:
    names = [m["name"].removeprefix("models/") for m in read_object(body)["models"]]
    return openai_model_list(names, "google")


ENDPOINT = Endpoint(
    params=PARAMS,
    check=openai_chat.check,
    call=call,
    completion=completion,
    reader=stream_reader,
)
GOOGLE = Provider(
    name="google",
    docs="https://ai.google.dev/api/generate-content",
    base_url="https://generativelanguage.googleapis.com",
    modes={CompletionMode.CHAT: ENDPOINT},
    auth=key_header("x-goog-api-key"),
    error=error,
    models=models_request("/v1beta/models"),
    model_list=_listed,
)
