"""OpenAI's completions: the legacy endpoint, where upstream has it as well.

Answers pass through byte for byte, unless a legacy client would fail on something in
them (completion_repair.py), or the answer becomes part of another (`to_completion`).
Streams are read in frame_passthrough.py.

Source: https://github.com/openai/openai-openapi (CreateCompletionRequest/Response)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ...core.completion import Choice, Completion, Logprobs, Usage
from ...core.request import LEGACY_PARAMS
from ...errors import UpstreamProtocol
from ..declaration import (
    Endpoint,
    ParamMapping,
    RawCompletion,
    UpstreamAnswer,
    same_named,
)
from ..openai_rules import RANGED_PARAMS
from ..parsing.error_bodies import raise_in_band_error
from ..parsing.filter_results import choice_fields, prompt_fields
from ..parsing.json_answers import read_answer, read_completion
from ..parsing.stream_ending import inferred_reason
from ..upstream_request import HTTPRequest, UpstreamRequest
from .choice_logprobs import ChoiceLogprobs
from .completion_repair import (
    number_choices,
    read_usage,
    repair_choice,
    repair_head,
    repair_usage,
)
from .frame_passthrough import FramePassthrough

# All of the endpoint's parameters, as OpenAI takes them.
PARAMS = {
    **same_named(*LEGACY_PARAMS),
    **RANGED_PARAMS,
    "logprobs": ParamMapping("logprobs", high=20),
}


def endpoint(
    path: str = "/completions",
    *,
    without: Iterable[str] = (),
    **others: ParamMapping,
) -> Endpoint:
    """OpenAI's completions endpoint at *path*, *without* some of its parameters.

    *others* are parameters that differ. Without `n` it generates one choice a call.
    """
    params = {k: v for k, v in PARAMS.items() if k not in without} | others
    return Endpoint(
        params=params,
        passes_unknown=True,
        takes_token_ids=True,
        takes_batches=True,
        takes_null_prompt=True,
        min_tokens=0,
        choices_per_call=128 if "n" in params else 1,
        legacy_shape=True,
        call=lambda upstream: call(upstream, path),
        completion=completion,
        reader=FramePassthrough,
    )


def call(upstream: UpstreamRequest, path: str) -> HTTPRequest:
    """The request as it came: not one byte of a prompt changes."""
    return upstream.post(path, request(upstream))


def request(upstream: UpstreamRequest) -> dict[str, Any]:
    """The body of the request, by the endpoint's names."""
    legacy = upstream.request
    body = {"model": legacy.model, "prompt": legacy.prompt, **upstream.body()}
    # An explicit false stays: the body is the caller's.
    if "stream" in legacy.params:
        body["stream"] = legacy.stream
    return body


def completion(body: bytes, upstream: UpstreamRequest) -> UpstreamAnswer:
    """The answer as it came, or with what clients need and it lacks."""
    document, is_json = read_answer(body, keep_halves=False)
    raise_in_band_error(document)
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise UpstreamProtocol(f"the answer has no choices: {sorted(document)}")
    reason = inferred_reason(upstream, read_usage(document))
    # Nothing to repair: the bytes of the answer go on, not what was parsed.
    repairs = [number_choices(choices, upstream)]
    repairs += [repair_choice(choice, upstream, reason) for choice in choices]
    logprobs = [ChoiceLogprobs(upstream, choice["index"]) for choice in choices]
    repairs += [
        each.repair(choice) for each, choice in zip(logprobs, choices, strict=True)
    ]
    repairs += [repair_head(document, upstream), repair_usage(document, upstream)]
    usage = read_usage(document)
    for each in logprobs:
        each.check(usage if upstream.request.drawn == len(choices) == 1 else None)
    answer = body if is_json and not any(repairs) else orjson.dumps(document)
    usage = usage or Usage(estimated=True)
    return RawCompletion(answer, usage, choices=len(choices))


def to_completion(answer: UpstreamAnswer) -> Completion:
    """*answer* as a value: raw ones are parsed, to become part of another answer."""
    if isinstance(answer, Completion):
        return answer
    # The end of a stream whose caller has not asked for its usage.
    if not answer.body:
        return Completion("", 0, "", usage=answer.usage)
    return read_completion(answer.body, _parse_completion)


def _parse_completion(document: Mapping[str, Any]) -> Completion:
    choices = tuple(
        Choice(
            choice["text"],
            choice["index"],
            _parse_logprobs(choice.get("logprobs")),
            choice["finish_reason"],
            choice_fields(choice),
        )
        for choice in document["choices"]
    )
    return Completion(
        id=document["id"],
        created=document["created"],
        model=str(document.get("model") or ""),
        choices=choices,
        usage=read_usage(document),
        extra=prompt_fields(document),
    )


def _parse_logprobs(logprobs: Mapping[str, Any] | None) -> Logprobs | None:
    if not logprobs:
        return None
    # ChoiceLogprobs has made all four lists.
    return Logprobs(
        logprobs["tokens"],
        logprobs["token_logprobs"],
        logprobs["top_logprobs"],
        logprobs["text_offset"],
    )
