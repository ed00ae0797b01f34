"""Rows: self-hosted servers with a completions endpoint, which need a custom host."""

from collections.abc import Sequence
from dataclasses import replace

from ..declaration import ParamMapping, Provider
from ..protocols import openai_chat, openai_completions
from .rows import STOP_LIST, completion_row, one_text, open_chat

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
    stop=STOP_LIST,
)

SELF_HOSTED: Sequence[Provider] = (
    completion_row(
        "vllm",
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        "",
        # It refuses a suffix for models without infilling, and a null prompt without
        # embeddings in its place.
        openai_completions.endpoint(
            without=("best_of",), logprobs=ParamMapping("logprobs", high=20)
        ),
        openai_chat.endpoint(),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "sglang",
        "https://docs.sglang.ai/basic_usage/openai_api_completions.html",
        "",
        # It accepts best_of and suffix, and ignores them.
        replace(
            openai_completions.endpoint(without=("best_of", "suffix")),
            takes_null_prompt=False,
            min_tokens=1,
        ),
        openai_chat.endpoint(),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "tgi",
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        "",
        TGI,
        openai_chat.endpoint(
            without=("n",), logprobs=ParamMapping("top_logprobs", high=5)
        ),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "lm-studio",
        "https://lmstudio.ai/docs/developer/openai-compat/completions",
        "",
        one_text(
            without=("best_of", "echo", "logprobs", "n", "suffix", "user"),
        ),
        open_chat("/chat/completions", "user"),
        api_path="/v1",
        needs_key=False,
    ),
)
