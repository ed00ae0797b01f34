"""Ollama's own generate endpoint, since its /v1/completions is none.

That one puts the model's chat template around the prompt, and knows neither batches
nor log probabilities. With `raw` this one continues the prompt itself; a suffix needs
the model's template for filling in, which says so when there is none.

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
    HTTPRequest,
    ParamMapping,
    Provider,
    StreamReader,
    UpstreamRequest,
    as_list,
    same_named,
)
from .llama_cpp import models, root
from .model_lists import model_list
from .parsing import error_bodies
from .parsing.finish_reasons import finish_reason
from .parsing.json_bodies import read_completion
from .parsing.json_streams import JSONStreamReader
from .parsing.logprobs import LegacyLogprobs
from .protocols import openai_chat

_PARAMS = {
    "max_tokens": ParamMapping("options.num_predict"),
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
    # An int of Go's runner, which has 32 bits of it.
    "seed": ParamMapping("options.seed", write=lambda seed: seed % 2**31),
    "stop": ParamMapping("options.stop", write=as_list),
    **same_named("keep_alive"),
}


def check(ask: UpstreamRequest) -> None:
    """Refuse an empty prompt: it only loads the model, and gets no text.

    Source: https://github.com/ollama/ollama/blob/main/server/routes.go
    """
    if not ask.request.prompt:
        raise UnsupportedParameter(
            "Provider ollama continues no empty prompt: it would only load the model.",
            "prompt",
        )


def call(ask: UpstreamRequest) -> HTTPRequest:
    """The prompt as it is, or with its suffix."""
    asked = ask.request
    body = {"model": asked.model, "prompt": asked.prompt, "stream": asked.stream}
    body |= ask.body() | ({} if asked.suffix else {"raw": True})
    # Its defaults are the model's own; the endpoint's are these.
    options = {"temperature": 1.0, "top_p": 1.0} | body.get("options", {})
    if "top_logprobs" in body:
        body["logprobs"] = True
    sent = orjson.dumps(body | {"options": options})
    url = root(ask.provider, ask.target) + "/api/generate"
    return HTTPRequest("POST", url, ask.headers(), sent)


def completion(body: bytes, ask: UpstreamRequest) -> Completion:
    """A whole answer as a completion."""
    return read_completion(body, OllamaReader(ask).read)


def stream_reader(ask: UpstreamRequest) -> StreamReader:
    """The lines of an answer as pieces of a completion."""
    return JSONStreamReader(OllamaReader(ask).read)


class OllamaReader:
    def __init__(self, ask: UpstreamRequest) -> None:
        self._ask = ask
        top = ask.request.logprobs
        self._legacy = LegacyLogprobs(len(str(ask.request.prompt)), top or 0)

    def read(self, document: dict[str, Any]) -> Completion:
        openai_chat.refuse_error(document)
        done, content = document["done"], document.get("logprobs")
        wanted = self._ask.request.logprobs is not None
        logprobs = self._legacy.read(content) if wanted and content else None
        reason = document.get("done_reason") or "stop" if done else None
        ended = finish_reason(reason, strict=self._ask.target.strict)
        made = document.get("eval_count")
        counted = Usage(document.get("prompt_eval_count") or 0, made) if made else None
        return Completion(
            *openai_chat.head({"model": document.get("model")}, self._ask),
            (Choice(document.get("response") or "", 0, logprobs, ended),),
            counted if done else None,
        )


def error(status: int, body: bytes) -> UpstreamStatus:
    """Its errors; a model that cannot fill in says so about the suffix."""
    failure = error_bodies.error(status, body)
    if "insert" in failure.message:
        failure.param, failure.code = "suffix", "unsupported_parameter"
    return failure


def _chat(ask: UpstreamRequest) -> HTTPRequest:
    body = openai_chat.request(ask) | {"model": ask.request.model}
    url = root(ask.provider, ask.target) + "/v1/chat/completions"
    return HTTPRequest("POST", url, ask.headers(), orjson.dumps(body))


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
