"""Google's generateContent, for the Gemini API and (in vertex.py) for Vertex AI.

Sources: https://ai.google.dev/api/generate-content,
https://docs.cloud.google.com/vertex-ai/docs/reference/rest/v1beta1/GenerateContentResponse
"""

from collections.abc import Mapping
from typing import Any

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode
from ..safe_json import LOWEST_LOGPROB
from .declaration import Endpoint, ParamMapping, Provider, StreamReader, as_list
from .model_lists import models_request, openai_model_list
from .parsing import error_bodies
from .parsing.answer_fields import (
    answer_head,
    count_of,
    counts_in,
    finish_reason,
    usage_of,
)
from .parsing.json_answers import JSONStreamReader, read_object, read_whole
from .parsing.logprobs import LegacyLogprobs
from .protocols import openai_chat
from .upstream_request import (
    HTTPRequest,
    UpstreamRequest,
    key_header,
    quote_path_segment,
)

PARAMS = {
    "max_tokens": ParamMapping("generationConfig.maxOutputTokens"),
    "temperature": ParamMapping("generationConfig.temperature", high=2),
    "top_p": ParamMapping("generationConfig.topP"),
    "top_k": ParamMapping("generationConfig.topK"),
    "frequency_penalty": ParamMapping(
        "generationConfig.frequencyPenalty", low=-2, high=2
    ),
    "presence_penalty": ParamMapping(
        "generationConfig.presencePenalty", low=-2, high=2
    ),
    # An int32 there.
    "seed": ParamMapping("generationConfig.seed", low=-(2**31), high=2**31 - 1),
    "logprobs": ParamMapping("generationConfig.logprobs", high=20),
    "stop": ParamMapping(
        "generationConfig.stopSequences",
        max_items=5,
        convert=as_list,
    ),
}


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request: the prompt is the only content."""
    # The name as in its list of models: `models/gemini-2.5-flash`.
    model = upstream.request.model.removeprefix("models/")
    return upstream.post(
        f"/v1beta/models/{quote_path_segment(model)}:{method(upstream)}",
        request(upstream),
    )


def method(upstream: UpstreamRequest) -> str:
    """The verb at the end of the path."""
    # Without `alt=sse` a stream is one JSON array, which ends only with the answer.
    return (
        "streamGenerateContent?alt=sse"
        if upstream.request.stream
        else "generateContent"
    )


def request(upstream: UpstreamRequest) -> dict[str, Any]:
    """The body. Several candidates are not requested: few models generate them."""
    parts = [{"text": openai_chat.user_message(upstream)}]
    body = {"contents": [{"role": "user", "parts": parts}], **upstream.body()}
    if upstream.request.logprobs is not None:
        body["generationConfig"]["responseLogprobs"] = True
        # `logprobs` is the number of alternatives, from 1 to 20; Vertex refuses a 0.
        # Without it come the chosen tokens alone.
        upstream.request.logprobs or body["generationConfig"].pop("logprobs")
    if upstream.target.bridge.system:
        body["systemInstruction"] = {"parts": [{"text": upstream.target.bridge.system}]}
    return body


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole answer as a completion."""
    return read_whole(body, GeminiReader(upstream, whole=True).read, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The events of an answer as chunks of a completion."""
    return JSONStreamReader(upstream, GeminiReader(upstream, whole=False).read)


class GeminiReader:
    """Reads one answer: a *whole* one, or its chunks, which have the same shape."""

    def __init__(self, upstream: UpstreamRequest, *, whole: bool) -> None:
        self._upstream = upstream
        self._whole = whole
        top, start = upstream.request.logprobs, len(str(upstream.request.prompt))
        self._logprobs = None if top is None else LegacyLogprobs(start, top)

    def read(self, document: dict[str, Any]) -> Completion:
        error_bodies.raise_in_band_error(document)
        head = {"id": document.get("responseId"), "model": document.get("modelVersion")}
        candidates = document.get("candidates") or ()
        choices = [self._choice(candidate) for candidate in candidates]
        # By the API's contract there are no candidates only if the prompt was blocked.
        # The status is 200 then, and `promptFeedback` has the reason (recorded:
        # `MODEL_ARMOR`); OpenAI's counterpart is an empty text that ends with
        # `content_filter`. A candidate that is blocked later has SAFETY, RECITATION or
        # the like as its `finishReason`; parsing/finish_reasons.py maps these, too. A
        # chunk of a stream, unlike a whole answer, may have the usage alone.
        # Source: https://ai.google.dev/api/generate-content
        if not choices:
            if (document.get("promptFeedback") or {}).get("blockReason"):
                choices = [Choice("", 0, None, "content_filter")]
            elif self._whole:
                raise IndexError("no candidates")
        return Completion(
            *answer_head(head, self._upstream),
            choices=tuple(choices),
            usage=_parse_usage(counts_in(document.get("usageMetadata"))),
        )

    def _choice(self, candidate: Mapping[str, Any]) -> Choice:
        # Thoughts that use all of max_tokens leave a `content` without `parts`.
        parts = (candidate.get("content") or {}).get("parts") or ()
        text = "".join(p.get("text") or "" for p in parts if not p.get("thought"))
        reason = finish_reason(
            candidate.get("finishReason"), strict=self._upstream.target.strict
        )
        result, logprobs = candidate.get("logprobsResult"), None
        if result and self._logprobs is not None:
            # Two parallel lists, by token. The second has the alternatives; it is empty
            # if none were requested, and may be shorter.
            chosen = result.get("chosenCandidates") or []
            steps = result.get("topCandidates") or ()
            top = [step.get("candidates") or [] for step in steps]
            top += [[]] * (len(chosen) - len(top))
            pairs = zip(chosen, top, strict=False)
            logprobs = self._logprobs.read([_entry(*pair) for pair in pairs])
        return Choice(text, candidate.get("index") or 0, logprobs, reason)


def _entry(chosen: Mapping[str, Any], top: list[Any]) -> dict[str, Any]:
    """A token with its alternatives, in the shape of OpenAI's chat."""
    alternatives = [_entry(other, []) for other in top]
    token, logprob = chosen.get("token") or "", chosen.get("logProbability") or 0.0
    # Google's JSON writes what is no number in JSON as text: "-Infinity".
    # Source: https://protobuf.dev/programming-guides/json/
    logprob = LOWEST_LOGPROB if isinstance(logprob, str) else logprob
    return {"token": token, "logprob": logprob, "top_logprobs": alternatives}


def _parse_usage(counts: Mapping[str, Any]) -> Usage | None:
    """The usage so far; every chunk of a stream has it.

    Thoughts are billed, but are not part of the candidates' count:
    totalTokenCount = promptTokenCount + candidatesTokenCount + thoughtsTokenCount. The
    answer to a blocked prompt has none of these counts.
    """
    reasoning_tokens = count_of(counts.get("thoughtsTokenCount"))
    return usage_of(
        counts.get("promptTokenCount"),
        count_of(counts.get("candidatesTokenCount")) + reasoning_tokens,
        counts.get("totalTokenCount"),
        reasoning=reasoning_tokens,
        cached=counts.get("cachedContentTokenCount"),
    )


def convert_model_list(body: bytes) -> bytes:
    """The list of models in OpenAI's shape."""
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
    api_path="/v1beta",
    modes={CompletionMode.CHAT: ENDPOINT},
    auth=key_header("x-goog-api-key"),
    error=error_bodies.error,
    models=models_request("/v1beta/models"),
    model_list=convert_model_list,
)
