"""llama.cpp's server, which differs from the contract in all but plain text.

It ignores echo, suffix and best_of, generates no more choices than it has slots, counts
one choice of many, and sends log probabilities in the shape of the chat endpoint. So a
call is for one choice of one prompt, and its answer is parsed and written anew.

Sources: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, and
the recordings in tests/wire/llamacpp.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from ..core.completion import Choice, Completion, Usage
from ..core.post_processing import incomplete
from ..core.routing import CompletionMode
from ..errors import UpstreamStatus
from . import openai_rules, sampling
from .catalog.rows import with_params
from .declaration import (
    Endpoint,
    ParamMapping,
    ParamMappings,
    Provider,
    StreamReader,
    as_list,
    same_named,
)
from .model_lists import models_request
from .parsing import error_bodies
from .parsing.answer_fields import (
    answer_head,
    finish_reason,
    parse_usage,
    usage_of,
)
from .parsing.json_answers import JSONStreamReader, read_object, read_whole
from .parsing.logprobs import LegacyLogprobs
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest

# Its default seed, -1 as an unsigned number of 32 bits, which means a random one.
_RANDOM_SEED = 2**32 - 1


# Requests

_PARAMS = same_named(
    "frequency_penalty",
    "logit_bias",
    "max_tokens",
    "presence_penalty",
    "temperature",
    "top_p",
    "user",
    # Callers send any integer. The modulo maps -1, and a number that is too large, to a
    # seed that is not random.
    seed=ParamMapping("seed", convert=lambda seed: seed % _RANDOM_SEED),
    stop=ParamMapping("stop", convert=as_list),
    # In the contract 0 means those of the chosen tokens, there none at all. So one
    # alternative is requested, and dropped by LegacyLogprobs.
    logprobs=ParamMapping("logprobs", convert=lambda top: max(top, 1)),
)
_INFILL_PARAMS = _PARAMS | {
    "suffix": ParamMapping("input_suffix"),
    "max_tokens": ParamMapping("n_predict"),
    "logprobs": replace(_PARAMS["logprobs"], name="n_probs"),
}


def _post(upstream: UpstreamRequest, path: str, body: dict[str, Any]) -> HTTPRequest:
    streaming = {"stream": True} if upstream.request.stream else {}
    return upstream.post(path, body | upstream.body() | streaming)


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The request for one choice of one prompt."""
    body = {"model": upstream.request.model, "prompt": upstream.request.prompt}
    return _post(upstream, "/v1/completions", body)


def infill(upstream: UpstreamRequest) -> HTTPRequest:
    """The request for the text between a prompt and a suffix."""
    # Only its native API has infilling, with names (`n_predict`, `n_probs`) and an
    # answer of its own. The server puts the model's special tokens around both parts.
    return _post(upstream, "/infill", {"input_prefix": upstream.request.prompt})


# The chat as on other hosts, but below the server's root.
def _chat(upstream: UpstreamRequest) -> HTTPRequest:
    return _post(
        upstream,
        "/v1/chat/completions",
        openai_chat.request(upstream) | {"model": upstream.request.model},
    )


# Answers


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """The whole answer, as the contract has it."""
    return read_whole(body, LlamaCppReader(upstream, whole=True).read, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The streamed answer, as the contract has it; usage on the last chunk."""
    return JSONStreamReader(upstream, LlamaCppReader(upstream, whole=False).read)


class LlamaCppReader:
    """Reads one answer: a *whole* one, or its chunks in order, on which the offsets of
    tokens depend.
    """

    def __init__(self, upstream: UpstreamRequest, *, whole: bool) -> None:
        self._upstream = upstream
        self._whole = whole
        prompt, top = upstream.request.prompt, upstream.request.logprobs
        start = len(prompt) if isinstance(prompt, str) else 0
        self._logprobs = None if top is None else LegacyLogprobs(start, top)

    def read(self, document: dict[str, Any]) -> Completion:
        error_bodies.raise_in_band_error(document)
        # /infill answers in the native shape, {"content", "stop", ...}; /v1/completions
        # in OpenAI's, {"choices": [...]}.
        is_native = "content" in document
        if is_native and self._whole and not document["stop"]:
            raise incomplete("answer", 0, 1)
        read_fields = _native_fields if is_native else _completions_fields
        text, entries, word, usage = read_fields(document)
        logprobs = self._logprobs.read(entries) if self._logprobs else None
        reason = finish_reason(word, strict=self._upstream.target.strict)
        choice = Choice(
            text, 0, logprobs if logprobs and logprobs.tokens else None, reason
        )
        head = answer_head(document, self._upstream)
        return Completion(*head, choices=(choice,), usage=usage)


_Fields = tuple[str, list[dict[str, Any]], str | None, Usage | None]


def _completions_fields(document: dict[str, Any]) -> _Fields:
    """From the shape of /v1/completions."""
    choice = document["choices"][0]
    entries = (choice.get("logprobs") or {}).get("content") or []
    usage = parse_usage(document.get("usage"))
    if not {"text", "message", "delta"} & set(choice):
        raise KeyError("text")
    return openai_chat.choice_text(choice), entries, choice.get("finish_reason"), usage


def _native_fields(document: dict[str, Any]) -> _Fields:
    """From the native shape."""
    # In a stream the last event has no text, but `"stop": true`, the counts and all
    # settings; `stop_type` is `limit`, `eos` or `word`.
    text, entries = document["content"], document.get("completion_probabilities") or []
    if not document["stop"]:
        return text, entries, None, None
    reason = "length" if document.get("stop_type") == "limit" else "stop"
    counts = document.get("tokens_evaluated"), document.get("tokens_predicted")
    usage = usage_of(*counts)
    return text, entries, reason, usage


def error(status: int, body: bytes) -> UpstreamStatus:
    """Reads an error; that of a model without infilling names the parameter."""
    failure = error_bodies.error(status, body)
    # "Infill is not supported by this model: prefix token is missing. ...": what the
    # server calls not implemented is, for the caller, a parameter that the model lacks.
    if status == 501:
        failure = UpstreamStatus(
            f"This model cannot fill in before a suffix: {failure.message}",
            status=400,
            param="suffix",
            code="unsupported_parameter",
        )
    return failure


def model_list(body: bytes) -> bytes:
    """The list in OpenAI's shape alone; it comes in Ollama's as well.

    It has `models` besides `data`, and the latter's entries have a `meta` of their own.
    """
    keys = ("id", "object", "created", "owned_by")
    models = read_object(body).get("data") or []
    data = [{key: model.get(key) for key in keys} for model in models]
    return orjson.dumps({"object": "list", "data": data})


_NATIVE = Endpoint(
    params=_PARAMS,
    passes_unknown=True,
    takes_token_ids=True,
    takes_no_limit=True,
    call=call,
    completion=completion,
    reader=stream_reader,
)
# A prompt of token ids has no counterpart in /infill.
_FIM = replace(_NATIVE, params=_INFILL_PARAMS, takes_token_ids=False, call=infill)
# It generates no more choices at a time than it has slots.
_CHAT = with_params(
    openai_chat.endpoint(without=("n",)),
    {
        **{name: _PARAMS[name] for name in openai_rules.RANGED_PARAMS},
        "logprobs": replace(_PARAMS["logprobs"], name="top_logprobs"),
    },
    call=_chat,
)
LLAMA_CPP = Provider(
    name="llama-cpp",
    docs="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    api_path="/v1",
    # Its own API is at the root.
    other_api_paths=("/v1",),
    modes={
        CompletionMode.NATIVE: _NATIVE,
        CompletionMode.FIM: _FIM,
        CompletionMode.CHAT: _CHAT,
    },
    needs_key=False,
    error=error,
    models=models_request("/v1/models"),
    model_list=model_list,
)


# The embedded engine is one process for all callers, and single requests have ended it,
# or stalled it for minutes: so it gets no unknown parameters, and values are bounded
# (sampling.py). A caller's own llama-cpp server gets them all.


def _bounded(endpoint: Endpoint, params: ParamMappings) -> Endpoint:
    """*endpoint* with the engine's own *params*, and without unknown ones."""

    def check(upstream: UpstreamRequest) -> None:
        if endpoint.check:
            endpoint.check(upstream)
        sampling.check(upstream.request.params)

    return replace(
        endpoint,
        params={**endpoint.params, **params},
        passes_unknown=False,
        rules=openai_rules.check_ranges,
        check=check,
    )


_LOCAL_MODES: Mapping[CompletionMode, Endpoint] = {
    CompletionMode.NATIVE: _bounded(_NATIVE, sampling.PARAMS),
    CompletionMode.FIM: _bounded(_FIM, sampling.PARAMS),
    CompletionMode.CHAT: _bounded(_CHAT, sampling.CHAT_PARAMS),
}
LOCAL = replace(LLAMA_CPP, name="local", embedded=True, modes=_LOCAL_MODES)
