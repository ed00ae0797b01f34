"""Ollama's own generate endpoint, in place of its /v1/completions.

The latter puts the model's chat template around the prompt, and supports neither
batches nor log probabilities. With `raw`, /api/generate continues the prompt itself; a
suffix needs a model with a template for infilling.

Sources: https://docs.ollama.com/openapi.yaml, https://docs.ollama.com/api/generate
"""

from dataclasses import replace
from typing import Any

import orjson

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode
from ..errors import UnsupportedParameter, UpstreamStatus
from .declaration import (
    Endpoint,
    ParamMapping,
    Provider,
    StreamReader,
    as_list,
    same_named,
)
from .llama_cpp import models, server_root
from .model_lists import model_list
from .parsing import error_bodies
from .parsing.answer_fields import answer_head, finish_reason
from .parsing.json_answers import JSONStreamReader, read_completion
from .parsing.logprobs import LegacyLogprobs
from .parsing.stream_ending import check_ended, inferred_reason
from .protocols import openai_chat
from .upstream_request import HTTPRequest, UpstreamRequest

# What shapes the sampling is in `options`, by the names of a Modelfile; what concerns
# the request is beside it.
_PARAMS = {
    "max_tokens": ParamMapping("options.num_predict"),
    # More is a 400.
    "logprobs": ParamMapping("top_logprobs", high=20),
    **{
        name: ParamMapping(f"options.{name}")
        for name in (
            "frequency_penalty",
            "min_p",
            "presence_penalty",
            "repeat_penalty",
            "temperature",
            "top_k",
            "top_p",
        )
    },
    # An int in Go, of which the runner takes 32 bits; the modulo leaves it positive.
    "seed": ParamMapping("options.seed", convert=lambda seed: seed % 2**31),
    "stop": ParamMapping("options.stop", convert=as_list),
    **same_named("keep_alive"),
}


def check(upstream: UpstreamRequest) -> None:
    """Refuse an empty prompt: it only loads the model, without generating text.

    The answer would be a 200 with the `done_reason` "load".

    Source: https://github.com/ollama/ollama/blob/main/server/routes.go
    """
    if not upstream.request.prompt:
        raise UnsupportedParameter(
            "Provider ollama continues no empty prompt: it would only load the model.",
            "prompt",
        )


def call(upstream: UpstreamRequest) -> HTTPRequest:
    """The prompt as it is, or with its suffix."""
    legacy = upstream.request
    body = {"model": legacy.model, "prompt": legacy.prompt, "stream": legacy.stream}
    # `raw` bypasses the model's template, which is the only place that knows how to put
    # prompt and suffix together: with both, the suffix would be ignored.
    body |= upstream.body() | ({} if legacy.suffix else {"raw": True})
    # Its own defaults are overridden by a model's Modelfile, and that by the request;
    # these are the legacy endpoint's.
    options = {"temperature": 1.0, "top_p": 1.0} | body.get("options", {})
    if "top_logprobs" in body:
        body["logprobs"] = True
    url = server_root(upstream.provider, upstream.target) + "/api/generate"
    return HTTPRequest(
        "POST", url, upstream.headers(), orjson.dumps(body | {"options": options})
    )


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole answer as a completion."""
    answer = read_completion(body, OllamaReader(upstream).read)
    check_ended(answer)
    return answer


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The lines of an answer as chunks of a completion."""
    return JSONStreamReader(upstream, OllamaReader(upstream).read)


class OllamaReader:
    """Reads one answer, or its lines, which have the same shape."""

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        top, start = upstream.request.logprobs, len(str(upstream.request.prompt))
        self._logprobs = None if top is None else LegacyLogprobs(start, top)

    def read(self, document: dict[str, Any]) -> Completion:
        error_bodies.raise_in_band_error(document)
        # The last line has no text, but the counts and `done_reason`, which older
        # versions lack.
        done, entries = document["done"], document.get("logprobs")
        logprobs = self._logprobs.read(entries) if self._logprobs and entries else None
        completion_tokens = document.get("eval_count")
        usage = None
        # Counts of 0 are left out of the JSON, and some answers lack the prompt's.
        if done and completion_tokens:
            usage = Usage(document.get("prompt_eval_count") or 0, completion_tokens)
        reason = None
        if done:
            word, strict = document.get("done_reason"), self._upstream.target.strict
            reason = finish_reason(word, strict=strict)
            reason = reason or inferred_reason(self._upstream, usage)
        return Completion(
            *answer_head({"model": document.get("model")}, self._upstream),
            (Choice(document.get("response") or "", 0, logprobs, reason),),
            usage,
        )


def error(status: int, body: bytes) -> UpstreamStatus:
    """Reads an error; a model without a template for infilling refuses the suffix."""
    # "... does not support insert". Its errors have neither type nor code.
    failure = error_bodies.error(status, body)
    if "insert" in failure.message:
        failure.param, failure.code = "suffix", "unsupported_parameter"
    return failure


def _chat(upstream: UpstreamRequest) -> HTTPRequest:
    body = openai_chat.request(upstream) | {"model": upstream.request.model}
    url = server_root(upstream.provider, upstream.target) + "/v1/chat/completions"
    return HTTPRequest("POST", url, upstream.headers(), orjson.dumps(body))


_NATIVE = Endpoint(
    params=_PARAMS, check=check, call=call, completion=completion, reader=stream_reader
)
OLLAMA = Provider(
    name="ollama",
    docs="https://docs.ollama.com/api/generate",
    modes={
        CompletionMode.NATIVE: _NATIVE,
        CompletionMode.FIM: replace(_NATIVE, params=_PARAMS | same_named("suffix")),
        CompletionMode.CHAT: replace(
            openai_chat.endpoint(without=("n", "logit_bias", "user", "logprobs")),
            call=_chat,
        ),
    },
    needs_key=False,
    error=error,
    models=models,
    model_list=model_list,
)
