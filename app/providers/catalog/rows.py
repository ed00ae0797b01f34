"""What OpenAI-compatible providers share, so that each of them is a row."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...core.routing import CompletionMode
from ..declaration import (
    Endpoint,
    ModelFamilies,
    ParamMapping,
    ParamMappings,
    Provider,
    as_list,
    same_named,
)
from ..model_lists import model_list, models_request
from ..parsing import error_bodies
from ..protocols import openai_chat, openai_completions

# What the chat endpoints of hosts of open models do not support, or not for all models.
# Some accept these and ignore them: `n: 3` then gives one choice, and no error.
OPEN_MODELS_LACK = ("n", "logprobs", "logit_bias")
# Stop sequences where they have to be a list.
STOP_LIST = ParamMapping("stop", max_items=4, convert=as_list)

# What engines take beyond OpenAI's ranges: any temperature from 0 on, any number of
# stop sequences and of alternatives. Source: the check of SamplingParams in
# https://github.com/vllm-project/vllm/blob/main/vllm/sampling_params.py, which SGLang
# has as well. (vLLM refuses more log probabilities than its `--max-logprobs` itself.)
ENGINE_PARAMS = same_named("logit_bias", "logprobs", "stop", "temperature")
ENGINE_CHAT_PARAMS = same_named(
    "logit_bias", "stop", "temperature", logprobs="top_logprobs"
)


def with_params(endpoint: Endpoint, params: ParamMappings, **others: Any) -> Endpoint:
    """*endpoint* with *params* in place of some of its own; *others* are fields."""
    return replace(endpoint, params={**endpoint.params, **params}, **others)


def row(
    name: str,
    docs: str,
    base_url: str,
    modes: Mapping[CompletionMode, Endpoint | ModelFamilies],
    *,
    prefix: str = "",
    api_path: str = "",
    **others: Any,
) -> Provider:
    """A provider with OpenAI's errors and list of models.

    *prefix* comes before `/models` in its path, and before those of its endpoints, if
    *base_url* does not have it; *others* are fields of Provider.
    """
    return Provider(
        name=name,
        docs=docs,
        base_url=base_url,
        api_path=api_path or prefix,
        modes=modes,
        error=error_bodies.error,
        models=models_request(f"{prefix}/models"),
        model_list=model_list,
        **others,
    )


def completion_row(
    name: str,
    docs: str,
    base_url: str,
    native: Endpoint,
    chat: Endpoint,
    *,
    fim: Endpoint | None = None,
    **others: Any,
) -> Provider:
    """A provider with a completions endpoint, and a chat endpoint beside it.

    *fim* is one for infilling; *others* are as in `row`.
    """
    modes = {CompletionMode.NATIVE: native, CompletionMode.CHAT: chat}
    if fim:
        modes[CompletionMode.FIM] = fim
    return row(name, docs, base_url, modes, **others)


def prompted(
    path: str = "/completions", *, without: Iterable[str], **others: ParamMapping
) -> Endpoint:
    """A completions endpoint that needs at least one prompt a call."""
    return replace(
        openai_completions.endpoint(path, without=without, **others),
        takes_null_prompt=False,
    )


def one_text(
    path: str = "/completions", *, without: Iterable[str], **others: ParamMapping
) -> Endpoint:
    """A completions endpoint that takes one text a call, and max_tokens from 1."""
    # OpenAI takes a max_tokens of 0 as well, to score a prompt (echo and logprobs).
    batched = prompted(path, without=without, **others)
    return replace(batched, takes_token_ids=False, takes_batches=False, min_tokens=1)


def open_chat(
    path: str = "/chat/completions", *without: str, **others: Any
) -> Endpoint:
    """The chat endpoint of a host of open models."""
    return openai_chat.endpoint(path, without=(*OPEN_MODELS_LACK, *without), **others)
