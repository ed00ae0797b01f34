"""llama.cpp's server, which differs from the contract in most that is not plain text.

It ignores echo, suffix and best_of in silence, draws no more choices than it has slots,
counts one choice of many, and speaks of log probabilities as the chat endpoint does.
So it is asked for one choice of one prompt a call, and its answers are rebuilt.

Sources: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, and
the recordings in tests/wire/llamacpp.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from ..core.completion import Choice, Completion, Usage
from ..core.routing import CompletionMode, Target
from ..core.sse import DONE
from ..errors import UpstreamStatus
from . import sampling
from .declaration import (
    Endpoint,
    HTTPRequest,
    ParamMapping,
    ParamMappings,
    Provider,
    StreamReader,
    UpstreamRequest,
    as_list,
    same_named,
)
from .model_lists import models_request
from .parsing import error_bodies
from .parsing.finish_reasons import finish_reason
from .parsing.json_bodies import read_completion, read_object
from .parsing.json_streams import JSONStreamReader
from .parsing.logprobs import LegacyLogprobs
from .parsing.usage import usage
from .protocols import openai_chat
from .protocols.openai_chat import EMPTY_DATA, refuse_error

# Its default seed, which stands for "a new one each time".
_RANDOM_SEED = 2**32 - 1


# What it is asked

_PARAMS = same_named(
    "frequency_penalty",
    "logit_bias",
    "max_tokens",
    "presence_penalty",
    "temperature",
    "top_p",
    "user",
    seed=ParamMapping("seed", write=lambda seed: seed % _RANDOM_SEED),
    stop=ParamMapping("stop", write=as_list),
    # 0 would mean none at all, instead of the chosen tokens' alone.
    logprobs=ParamMapping("logprobs", write=lambda top: max(top, 1)),
)
_GAP = _PARAMS | {
    "suffix": ParamMapping("input_suffix"),
    "max_tokens": ParamMapping("n_predict"),
    "logprobs": replace(_PARAMS["logprobs"], name="n_probs"),
}


def root(provider: Provider, target: Target) -> str:
    """Where the server lies; its paths outside of /v1 count as well."""
    return provider.address(target).removesuffix("/v1")


def _post(ask: UpstreamRequest, path: str, body: dict[str, Any]) -> HTTPRequest:
    streaming = {"stream": True} if ask.request.stream else {}
    sent = orjson.dumps(body | ask.body() | streaming)
    return HTTPRequest(
        "POST", root(ask.provider, ask.target) + path, ask.headers(), sent
    )


def call(ask: UpstreamRequest) -> HTTPRequest:
    """One prompt, one choice."""
    body = {"model": ask.request.model, "prompt": ask.request.prompt}
    return _post(ask, "/v1/completions", body)


def infill(ask: UpstreamRequest) -> HTTPRequest:
    """What stands between a prompt and a suffix."""
    return _post(ask, "/infill", {"input_prefix": ask.request.prompt})


def _chat(ask: UpstreamRequest) -> HTTPRequest:
    return _post(
        ask,
        "/v1/chat/completions",
        openai_chat.request(ask) | {"model": ask.request.model},
    )


# What it answers


def completion(body: bytes, ask: UpstreamRequest) -> Completion:
    """The whole answer, as the contract has it."""
    return read_completion(body, LlamaCppReader(ask).read)


def stream_reader(ask: UpstreamRequest) -> StreamReader:
    """The streamed answer, as the contract has it; usage on the last chunk."""
    read = LlamaCppReader(ask).read
    return JSONStreamReader(read, terminator=DONE, ignored=EMPTY_DATA)


class LlamaCppReader:
    """Reads the pieces of one choice, in order: offsets depend on it."""

    def __init__(self, ask: UpstreamRequest) -> None:
        self._ask = ask
        prompt, top = ask.request.prompt, ask.request.logprobs
        start = len(prompt) if isinstance(prompt, str) else 0
        self._legacy = None if top is None else LegacyLogprobs(start, top)

    def read(self, document: dict[str, Any]) -> Completion:
        """One piece, or the whole."""
        refuse_error(document)
        # Either of its two shapes.
        fields = _infilled if "content" in document else _completed
        text, content, reason, counted = fields(document)
        logprobs = self._legacy.read(content) if self._legacy else None
        known = logprobs if logprobs and logprobs.tokens else None
        ended = finish_reason(reason, strict=self._ask.target.strict)
        return Completion(
            *openai_chat.head(document, self._ask),
            choices=(Choice(text, 0, known, ended),),
            usage=counted,
        )


_Fields = tuple[str, list[dict[str, Any]], str | None, Usage | None]


def _completed(document: dict[str, Any]) -> _Fields:
    """From the shape of /v1/completions."""
    choice = document["choices"][0]
    content = (choice.get("logprobs") or {}).get("content") or []
    counted = usage(document.get("usage"))
    return choice["text"], content, choice.get("finish_reason"), counted


def _infilled(document: dict[str, Any]) -> _Fields:
    """From the native shape, in which /infill answers."""
    content = document.get("completion_probabilities") or []
    if not document["stop"]:
        return document["content"], content, None, None
    reason = "length" if document.get("stop_type") == "limit" else "stop"
    counted = Usage(document["tokens_evaluated"], document["tokens_predicted"])
    return document["content"], content, reason, counted


def error(status: int, body: bytes) -> UpstreamStatus:
    """Its errors; two of them by the names that callers know."""
    failure = error_bodies.error(status, body)
    if failure.type == "exceed_context_size_error":
        failure.type, failure.code = "invalid_request_error", "context_length_exceeded"
    if status == 501:
        failure = UpstreamStatus(
            f"This model cannot fill in before a suffix: {failure.message}",
            status=400,
            param="suffix",
            code="unsupported_parameter",
        )
    return failure


def models(provider: Provider, target: Target) -> HTTPRequest:
    """Its list of models stands beside its completions, under /v1."""
    at_root = replace(target, base_url=root(provider, target))
    return models_request("/v1/models")(provider, at_root)


def model_list(body: bytes) -> bytes:
    """The list without Ollama's shape, which it has beside OpenAI's."""
    keys = ("id", "object", "created", "owned_by")
    listed = read_object(body).get("data") or []
    data = [{key: model.get(key) for key in keys} for model in listed]
    return orjson.dumps({"object": "list", "data": data})


_NATIVE = Endpoint(
    params=_PARAMS,
    passes=True,
    tokens=True,
    call=call,
    completion=completion,
    reader=stream_reader,
)
_FIM = replace(_NATIVE, params=_GAP, tokens=False, call=infill)
# Its slots, not its patience, limit how many choices it draws at a time.
_CHAT = replace(
    openai_chat.endpoint(
        without=("n",),
        logprobs=replace(_PARAMS["logprobs"], name="top_logprobs"),
    ),
    call=_chat,
)
LLAMA_CPP = Provider(
    name="llama-cpp",
    docs="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    modes={
        CompletionMode.NATIVE: _NATIVE,
        CompletionMode.FIM: _FIM,
        CompletionMode.CHAT: _CHAT,
    },
    needs_key=False,
    error=error,
    models=models,
    model_list=model_list,
)


# The embedded engine is one process for all callers: parameters that are not known here
# stay out, and values are bounded. A llama-cpp server of somebody's own gets them all.


def _bounded(endpoint: Endpoint, params: ParamMappings) -> Endpoint:
    """*endpoint* with *params* of the engine's own, and none that is unknown."""

    def check(ask: UpstreamRequest) -> None:
        endpoint.check(ask)
        sampling.check(ask.request.params)

    return replace(
        endpoint, params={**endpoint.params, **params}, passes=False, check=check
    )


_LOCAL_WAYS: Mapping[CompletionMode, Endpoint] = {
    CompletionMode.NATIVE: _bounded(_NATIVE, sampling.PARAMS),
    CompletionMode.FIM: _bounded(_FIM, sampling.PARAMS),
    CompletionMode.CHAT: _bounded(_CHAT, sampling.CHAT_PARAMS),
}
LOCAL = replace(LLAMA_CPP, name="local", hosted=True, modes=_LOCAL_WAYS)
