"""Rows: self-hosted servers with a completions endpoint, which need a custom host."""

from collections.abc import Sequence

from ...core.request import NO_LIMIT
from ..declaration import ParamMapping, Provider, same_named
from ..protocols import openai_chat, openai_completions
from .rows import (
    ENGINE_CHAT_PARAMS,
    ENGINE_PARAMS,
    STOP_LIST,
    completion_row,
    one_text,
    open_chat,
    with_params,
)

# text-generation-inference, also behind the endpoints that users of Hugging Face
# deploy. It answers 422 to a suffix, and ignores in silence all else that is listed
# here. The usage of a stream always comes, with the last chunk. In a batch each prompt
# has such a chunk of its own, and the last one would pass for the sum: so it gets one
# prompt a call.
# Source: completions in https://github.com/huggingface/text-generation-inference/blob/
# main/router/src/server.rs
TGI = one_text(
    without=(
        "best_of",
        "echo",
        "logit_bias",
        "logprobs",
        "n",
        "presence_penalty",
        "stream_options",
        "suffix",
        "user",
    ),
    # Its `--max-stop-sequences` is 4 by default.
    stop=STOP_LIST,
    temperature=ParamMapping("temperature"),
)


def null_for_no_limit(max_tokens: int) -> int | None:
    """vLLM's max_tokens: null is as many as fit, while an absent one is 16.

    Source: CompletionRequest and its `to_sampling_params` below
    https://github.com/vllm-project/vllm/tree/main/vllm/entrypoints/openai
    """
    return None if max_tokens == NO_LIMIT else max_tokens


_LLAMA_CPP_PARAMS = same_named(
    "frequency_penalty", "presence_penalty", "stop", "temperature"
)
VLLM_PARAMS = {
    **ENGINE_PARAMS,
    "max_tokens": ParamMapping("max_tokens", convert=null_for_no_limit),
}

SELF_HOSTED: Sequence[Provider] = (
    completion_row(
        "vllm",
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        "",
        # It refuses a suffix for models without infilling, and a null prompt without
        # embeddings in its place.
        with_params(
            openai_completions.endpoint(without=("best_of",)),
            VLLM_PARAMS,
            takes_no_limit=True,
        ),
        with_params(openai_chat.endpoint(), ENGINE_CHAT_PARAMS),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "sglang",
        "https://docs.sglang.ai/basic_usage/openai_api_completions.html",
        "",
        # It accepts best_of and suffix, and ignores them.
        with_params(
            openai_completions.endpoint(without=("best_of", "suffix")),
            ENGINE_PARAMS,
            takes_null_prompt=False,
            min_tokens=1,
        ),
        with_params(openai_chat.endpoint(), ENGINE_CHAT_PARAMS),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "tgi",
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        "",
        TGI,
        openai_chat.endpoint(
            without=("n",),
            logprobs=ParamMapping("top_logprobs", high=5),
            stop=STOP_LIST,
            temperature=ParamMapping("temperature"),
        ),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "lm-studio",
        "https://lmstudio.ai/docs/developer/openai-compat/completions",
        "",
        # It runs llama.cpp, which bounds none of these.
        with_params(
            one_text(without=("best_of", "echo", "logprobs", "n", "suffix", "user")),
            {**_LLAMA_CPP_PARAMS, **same_named("logit_bias")},
            takes_no_limit=True,
        ),
        with_params(open_chat("/chat/completions", "user"), _LLAMA_CPP_PARAMS),
        api_path="/v1",
        needs_key=False,
    ),
)
