"""llama.cpp's server, which differs from the contract in most that is not plain text.

It ignores echo, suffix and best_of in silence, draws no more choices than it has slots,
counts one choice of many, and speaks of log probabilities as the chat endpoint does.
So it is asked for one choice of one prompt a call, and its answers are rebuilt.

Sources: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md, and
the recordings in tests/wire/llamacpp.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson

from ..core.completion import Choice, Completion, Logprobs, Usage
from ..core.request import CompletionRequest
from ..core.routing import Target
from ..core.sse import DONE, Event
from ..errors import (
    UnsupportedParameter,
    UpstreamCut,
    UpstreamProtocol,
    UpstreamStatus,
)
from . import failures
from .logprobs import LegacyLogprobs
from .spec import Call, Provider, bearer, excerpt, get_models, read_object, url

# Its default seed, which stands for "a new one each time".
_RANDOM_SEED = 2**32 - 1


# What it is asked


def check(request: CompletionRequest) -> None:
    """Refuse what it would ignore, or answer wrongly."""
    tokens = any(not isinstance(prompt, str) for prompt in request.prompts)
    if request.prompt is None:
        raise UnsupportedParameter(
            "This engine needs a prompt: null is none.", "prompt"
        )
    if request.echo and request.logprobs is not None:
        raise UnsupportedParameter(
            "This engine has no log probabilities for the prompt: 'echo' and "
            "'logprobs' cannot be had together.",
            "echo",
        )
    for param in ("echo", "suffix"):
        if tokens and getattr(request, param):
            raise UnsupportedParameter(
                f"'{param}' needs a prompt of text on this engine, not token ids.",
                param,
            )


def call(provider: Provider, request: CompletionRequest, target: Target) -> Call:
    """One prompt, one choice; with a suffix, a call for what stands between the two."""
    infill = bool(request.suffix)
    path = "/infill" if infill else "/v1/completions"
    body = _params(request) | (_gap(request) if infill else _text(request))
    return Call("POST", url(provider, target, path), bearer(target), orjson.dumps(body))


def _params(request: CompletionRequest) -> dict[str, Any]:
    ignored = ("echo", "suffix", "stream_options", "n", "best_of", "n_cmpl", "logprobs")
    params = {k: v for k, v in request.params.items() if k not in ignored}
    if "seed" in params:
        params["seed"] %= _RANDOM_SEED
    if isinstance(params.get("stop"), str):
        params["stop"] = [params["stop"]]
    if request.max_tokens == 0:
        params["max_tokens"] = 1  # It knows no fewer; `_choice` drops the token.
    return params


def _text(request: CompletionRequest) -> dict[str, Any]:
    body = {"model": request.model, "prompt": request.prompt}
    if request.logprobs is not None:
        # 0 would mean none at all, instead of the chosen tokens' alone.
        body["logprobs"] = max(request.logprobs, 1)
    return body


def _gap(request: CompletionRequest) -> dict[str, Any]:
    body = {"input_prefix": request.prompt, "input_suffix": request.suffix}
    if request.max_tokens is not None:
        body["n_predict"] = max(request.max_tokens, 1)
    if request.logprobs is not None:
        body["n_probs"] = max(request.logprobs, 1)
    return body


# What it answers


def completion(body: bytes, request: CompletionRequest) -> Completion:
    """The whole answer, as the contract has it."""
    document = _document(body)
    reader = _Reader(request)
    piece = reader.read(document)
    if not piece.choices[0].finish_reason:
        raise UpstreamCut("the engine ended the answer without a finish_reason")
    return piece


def chunks(events: Iterable[Event], request: CompletionRequest) -> Iterator[Completion]:
    """The streamed answer, as the contract has it; usage on the last chunk."""
    reader = _Reader(request)
    for event in events:
        if event.data == DONE:
            break
        if event.data not in (b"", b"null"):
            piece = reader.read(_document(event.data))
            if _says_something(piece.choices[0]):
                yield _without_empty_lists(piece)
    if not reader.finished:
        raise UpstreamCut("the engine ended the stream before the completion was done")


def _says_something(choice: Choice) -> bool:
    """Not so while text is held back that may begin a stop sequence."""
    tokens = choice.logprobs and choice.logprobs.tokens
    return bool(choice.text or choice.finish_reason or tokens)


def _without_empty_lists(piece: Completion) -> Completion:
    """A chunk without tokens has no log probabilities, as on the real endpoint."""
    choice = piece.choices[0]
    if choice.logprobs is None or choice.logprobs.tokens:
        return piece
    return replace(piece, choices=(replace(choice, logprobs=None),))


def _document(body: bytes) -> dict[str, Any]:
    document = read_object(body)
    if document.get("error"):
        raise failures.in_band(document)
    return document


class _Reader:
    """Reads the pieces of one choice, in order: offsets and echo depend on it."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._echo = request.prompt if request.echo else ""
        start = len(request.prompt) if isinstance(request.prompt, str) else 0
        self._legacy = LegacyLogprobs(start, request.logprobs or 0)
        self.finished = False

    def read(self, document: dict[str, Any]) -> Completion:
        """One piece, or the whole."""
        try:
            return self._read(document)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as e:
            raise UpstreamProtocol(
                f"the answer is not as expected: {excerpt(orjson.dumps(document))}"
            ) from e

    def _read(self, document: dict[str, Any]) -> Completion:
        choice, usage = _fields(document)
        self.finished = self.finished or bool(choice["finish_reason"])
        return Completion(
            id=_id(document) or self._request.id,
            created=document.get("created") or self._request.created,
            model=document.get("model") or self._request.model,
            choices=(self._choice(choice),),
            usage=self._usage(usage),
        )

    def _choice(self, choice: dict[str, Any]) -> Choice:
        nothing = self._request.max_tokens == 0
        prefix, self._echo = self._echo, ""
        text = prefix + ("" if nothing else choice["text"])
        logprobs = self._logprobs([] if nothing else choice["logprobs"])
        reason = "length" if nothing and self.finished else choice["finish_reason"]
        return Choice(text, 0, logprobs, reason)

    def _logprobs(self, content: Sequence[dict[str, Any]]) -> Logprobs | None:
        return None if self._request.logprobs is None else self._legacy.read(content)

    def _usage(self, usage: Usage | None) -> Usage | None:
        if usage is None or self._request.max_tokens != 0:
            return usage
        return replace(usage, completion_tokens=0)


def _fields(document: dict[str, Any]) -> tuple[dict[str, Any], Usage | None]:
    """The choice and the usage, from either of its two shapes."""
    return _infilled(document) if "content" in document else _completed(document)


def _completed(document: dict[str, Any]) -> tuple[dict[str, Any], Usage | None]:
    """From the shape of /v1/completions."""
    choice, usage = document["choices"][0], document.get("usage")
    counted = usage and Usage(usage["prompt_tokens"], usage["completion_tokens"])
    return {
        "text": choice["text"],
        "logprobs": (choice.get("logprobs") or {}).get("content") or [],
        "finish_reason": choice.get("finish_reason"),
    }, counted


def _infilled(document: dict[str, Any]) -> tuple[dict[str, Any], Usage | None]:
    """From the native shape, in which /infill answers."""
    stop = document["stop"]
    reason = "length" if document.get("stop_type") == "limit" else "stop"
    counted = stop and Usage(document["tokens_evaluated"], document["tokens_predicted"])
    return {
        "text": document["content"],
        "logprobs": document.get("completion_probabilities") or [],
        "finish_reason": reason if stop else None,
    }, counted or None


def _id(document: dict[str, Any]) -> str | None:
    """Its id, with the prefix of a text completion instead of a chat's."""
    given = document.get("id")
    return given and "cmpl-" + str(given).removeprefix("chatcmpl-")


def error(status: int, body: bytes) -> UpstreamStatus:
    """Its errors; two of them by the names that callers know."""
    failure = failures.error(status, body)
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


def models(provider: Provider, target: Target) -> Call:
    """Its list of models stands beside its completions, under /v1."""
    call = get_models(provider, target)
    return replace(call, url=url(provider, target, "/v1/models"))


def model_list(body: bytes) -> bytes:
    """The list without Ollama's shape, which it has beside OpenAI's."""
    keys = ("id", "object", "created", "owned_by")
    listed = read_object(body).get("data") or []
    data = [{key: model.get(key) for key in keys} for model in listed]
    return orjson.dumps({"object": "list", "data": data})


LOCAL = Provider(
    name="local",
    base_url="",
    needs_key=False,
    one_by_one=True,
    hosted=True,
    check=check,
    call=call,
    completion=completion,
    chunks=chunks,
    error=error,
    models=models,
    model_list=model_list,
)
