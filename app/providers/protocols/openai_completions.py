"""The legacy endpoint's own shape, where it comes from upstream.

What such providers answer is observed, not rebuilt: bytes pass through as they came,
unless something in them has to be repaired for legacy clients to work, or the answer is
part of another.

Source: https://github.com/openai/openai-openapi (CreateCompletionRequest/Response)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ...core.completion import Choice, Completion, Logprobs, Usage, estimate
from ...core.post_processing import prompt_estimate
from ...errors import UpstreamProtocol
from ..declaration import (
    LEGACY_PARAMS,
    Endpoint,
    HTTPRequest,
    ParamMapping,
    RawCompletion,
    UpstreamAnswer,
    UpstreamRequest,
    same_named,
)
from ..parsing.json_bodies import read_completion, read_object
from .completion_repair import (
    check_prompt_logprobs,
    read_usage,
    repair_choice,
    repair_head,
    repair_usage,
)
from .frame_passthrough import FramePassthrough
from .openai_chat import refuse_error

# All of the endpoint's parameters, as OpenAI takes them.
PARAMS = same_named(*LEGACY_PARAMS)


def endpoint(
    path: str = "/completions",
    *,
    without: Iterable[str] = (),
    **others: ParamMapping,
) -> Endpoint:
    """OpenAI's completions endpoint at *path*, *without* some of its parameters.

    *others* are parameters that differ. Without `n` it draws one choice a call.
    """
    params = {k: v for k, v in PARAMS.items() if k not in without} | others
    return Endpoint(
        params=params,
        passes=True,
        tokens=True,
        batches=True,
        null=True,
        least=0,
        choices=128 if "n" in params else 1,
        raw=True,
        call=lambda ask: call(ask, path),
        completion=completion,
        reader=FramePassthrough,
    )


def call(ask: UpstreamRequest, path: str) -> HTTPRequest:
    """The request as it came: not one byte of a prompt changes."""
    return ask.post(path, request(ask))


def request(ask: UpstreamRequest) -> dict[str, Any]:
    """The body of the request, in the endpoint's own words."""
    asked = ask.request
    body = {"model": asked.model, "prompt": asked.prompt, **ask.body()}
    if "stream" in asked.params:
        body["stream"] = asked.stream
    return body


def completion(body: bytes, ask: UpstreamRequest) -> UpstreamAnswer:
    """The answer as it came, or with what clients need and it lacks."""
    document = read_object(body)
    refuse_error(document)
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UpstreamProtocol(f"the answer has no choices: {sorted(document)}")
    repairs = [repair_choice(choice, ask, final=True) for choice in choices]
    for choice in choices:
        check_prompt_logprobs(choice, ask)
    repairs += [repair_head(document, ask), repair_usage(document, ask)]
    answer = orjson.dumps(document) if any(repairs) else body
    counts = read_usage(document)
    if counts is None:
        # Upstream has counted, and says that it took nothing.
        prompt_tokens = sum(map(prompt_estimate, ask.request.prompts))
        completion_tokens = sum(estimate(choice["text"]) for choice in choices)
        counts = Usage(prompt_tokens, completion_tokens, estimated=True)
    return RawCompletion(answer, counts)


# As part of another answer


def rebuilt(answer: UpstreamAnswer) -> Completion:
    """*answer* as a value, whether or not it has been one all along."""
    if isinstance(answer, Completion):
        return answer
    if not answer.body:
        return Completion("", 0, "", usage=answer.usage)
    return read_completion(answer.body, _completion)


def _completion(document: Mapping[str, Any]) -> Completion:
    return Completion(
        id=document["id"],
        created=document["created"],
        model=str(document.get("model") or ""),
        choices=tuple(map(_choice, document["choices"])),
        usage=read_usage({"usage": None, **document}),
    )


def _choice(choice: Mapping[str, Any]) -> Choice:
    return Choice(
        choice["text"],
        choice["index"],
        _logprobs(choice.get("logprobs")),
        choice["finish_reason"],
    )


def _logprobs(given: Mapping[str, Any] | None) -> Logprobs | None:
    if not given or not given.get("tokens"):
        return None
    tokens = given["tokens"]
    nothing = [None] * len(tokens)
    return Logprobs(
        tokens,
        given.get("token_logprobs") or nothing,
        given.get("top_logprobs") or nothing,
        given.get("text_offset") or [0] * len(tokens),
    )
