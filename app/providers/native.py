"""Rows: providers with a completions endpoint of OpenAI's shape, and what they lack.

What an endpoint ignores in silence counts as lacking: the gateway sees to it, or says
that it cannot be had.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..core.routing import Way
from . import chat, failures, legacy
from .spec import Endpoint, Param, Provider, Setting, model_list, models_at, several

# What hosts of open models do not know on their chat endpoint, or not all of them.
OPEN_MODELS_LACK = ("n", "logprobs", "logit_bias")


def row(
    name: str,
    docs: str,
    base_url: str,
    native: Endpoint,
    chatting: Endpoint | None,
    *,
    prefix: str = "",
    **others: Any,
) -> Provider:
    """A provider with a completions endpoint, and mostly a chat endpoint beside it.

    *prefix* is what its paths have before `/models`; *others* are as in Provider.
    """
    ways = {Way.NATIVE: native} | ({Way.CHAT: chatting} if chatting else {})
    return Provider(
        name=name,
        docs=docs,
        base_url=base_url,
        ways=ways,
        error=failures.error,
        models=models_at(f"{prefix}/models"),
        model_list=model_list,
        **others,
    )


def one_text(
    path: str = "/completions", *, without: Iterable[str], **others: Param
) -> Endpoint:
    """An endpoint that takes one text a call, and no fewer than one token."""
    whole = legacy.endpoint(path, without=without, **others)
    return replace(whole, tokens=False, batches=False, null=False, least=1)


def open_chat(path: str = "/chat/completions", *without: str) -> Endpoint:
    """The chat endpoint of a host of open models."""
    return chat.endpoint(path, without=(*OPEN_MODELS_LACK, *without))


OPENAI = row(
    "openai",
    "https://platform.openai.com/docs/api-reference/completions",
    "https://api.openai.com/v1",
    legacy.endpoint(),
    chat.endpoint(),
    settings=(
        Setting("openai_organization", sends="OpenAI-Organization"),
        Setting("openai_project", sends="OpenAI-Project"),
        Setting("openai_beta", sends="OpenAI-Beta", also="openai-beta"),
    ),
)

HOSTED: Sequence[Provider] = (
    OPENAI,
    row(
        "together-ai",
        "https://docs.together.ai/reference/completions-1",
        "https://api.together.xyz",
        one_text(
            "/v1/completions",
            # Its echo is no prefix of the text, but a list beside the choices.
            without=("best_of", "echo", "stream_options", "suffix", "user"),
            logprobs=Param("logprobs", high=20),
            stop=Param("stop", write=several),
        ),
        chat.endpoint("/v1/chat/completions", without=("logprobs", "user")),
        prefix="/v1",
    ),
    row(
        "fireworks-ai",
        "https://docs.fireworks.ai/api-reference/post-completions",
        "https://api.fireworks.ai/inference/v1",
        legacy.endpoint(
            without=("best_of", "suffix"), logprobs=Param("logprobs", high=5)
        ),
        chat.endpoint(logprobs=Param("top_logprobs", high=5)),
        settings=(Setting("fireworks_account_id"),),
    ),
    row(
        "deepinfra",
        "https://deepinfra.com/docs/openai_api",
        "https://api.deepinfra.com/v1/openai",
        # Log probabilities come on its own endpoint only:
        # https://deepinfra.com/docs/advanced/log_probs
        one_text(without=("best_of", "logit_bias", "logprobs", "suffix")),
        open_chat(),
    ),
    row(
        "cerebras",
        "https://inference-docs.cerebras.ai/api-reference/completions",
        "https://api.cerebras.ai/v1",
        legacy.endpoint(
            without=(
                "best_of",
                "frequency_penalty",
                "logit_bias",
                "n",
                "presence_penalty",
                "suffix",
            )
        ),
        chat.endpoint(
            without=("frequency_penalty", "logit_bias", "n", "presence_penalty")
        ),
    ),
    row(
        "sambanova",
        "https://docs.sambanova.ai/docs/api-reference/completions",
        "https://api.sambanova.ai",
        one_text(
            "/v1/completions",
            without=(
                "best_of",
                "echo",
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "n",
                "presence_penalty",
                "seed",
                "suffix",
                "user",
            ),
        ),
        open_chat("/v1/chat/completions", "seed", "user"),
        prefix="/v1",
    ),
    row(
        "nebius",
        "https://docs.tokenfactory.nebius.com/api-reference/",
        "https://api.tokenfactory.nebius.com/v1",
        legacy.endpoint(without=("best_of", "suffix")),
        chat.endpoint(),
    ),
    row(
        "novita-ai",
        "https://novita.ai/docs/api-reference/model-apis-llm-create-completion",
        "https://api.novita.ai/openai/v1",
        one_text(without=("best_of", "echo", "logprobs", "suffix", "user")),
        chat.endpoint(without=("logprobs", "user")),
    ),
    row(
        "featherless-ai",
        "https://featherless.ai/docs/api-reference-completions",
        "https://api.featherless.ai/v1",
        one_text(
            without=(
                "best_of",
                "echo",
                "logit_bias",
                "logprobs",
                "n",
                "suffix",
                "user",
            )
        ),
        open_chat(),
    ),
    row(
        "x-ai",
        "https://docs.x.ai/docs/api-reference#completions-legacy",
        "https://api.x.ai/v1",
        legacy.endpoint(),
        chat.endpoint(),
    ),
    row(
        "openrouter",
        "https://openrouter.ai/docs/api-reference/overview",
        "https://openrouter.ai/api",
        one_text(
            "/v1/completions",
            without=("best_of", "echo", "logprobs", "n", "suffix"),
        ),
        open_chat("/v1/chat/completions"),
        prefix="/v1",
    ),
    row(
        "siliconflow",
        "https://docs.siliconflow.cn/en/userguide/guides/fim",
        "https://api.siliconflow.cn/v1",
        one_text(
            without=("best_of", "echo", "logit_bias", "logprobs", "n", "seed", "user")
        ),
        open_chat("/chat/completions", "seed", "user"),
        own_ways=(Way.CHAT, Way.NATIVE),
    ),
    row(
        "dashscope",
        "https://www.alibabacloud.com/help/en/model-studio/qwen-coder",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        # For the coder models; the others chat.
        one_text(
            without=(
                "best_of",
                "echo",
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "n",
                "user",
            )
        ),
        open_chat("/chat/completions", "frequency_penalty", "user"),
        own_ways=(Way.CHAT, Way.NATIVE),
    ),
    row(
        "huggingface",
        "https://huggingface.co/docs/inference-providers/tasks/chat-completion",
        "https://router.huggingface.co",
        # Its router only chats; endpoints of one's own run TGI or vLLM.
        one_text(
            "/v1/completions",
            without=("best_of", "echo", "logprobs", "n", "stream_options", "suffix"),
            stop=Param("stop", write=several),
        ),
        open_chat("/v1/chat/completions"),
        prefix="/v1",
        own_ways=(Way.CHAT,),
        settings=(Setting("huggingface_base_url", url=True),),
    ),
    row(
        "nextbit",
        "https://www.nextbit256.com/docs/api",
        "https://api.nextbit256.com/v1",
        one_text(without=("best_of", "echo", "logit_bias", "logprobs", "n", "suffix")),
        open_chat(),
    ),
    row(
        "modal",
        "https://modal.com/docs/examples/vllm_inference",
        "",
        # What runs there is one's own; Modal's example is a vLLM.
        legacy.endpoint(without=("best_of",)),
        chat.endpoint(),
        needs_key=False,
    ),
    row(
        "predibase",
        "https://docs.predibase.com/user-guide/inference/rest_api",
        "https://serving.app.predibase.com/{predibase_tenant}"
        "/deployments/v2/llms/{predibase_deployment}/v1",
        one_text(without=("best_of", "echo", "logit_bias", "logprobs", "n", "suffix")),
        open_chat(),
        settings=(Setting("predibase_tenant"), Setting("predibase_deployment")),
    ),
)

# Services that are gone. Their names still reach a host of one's own.
RETIRED: Sequence[Provider] = (
    row(
        "anyscale",
        "https://docs.anyscale.com/",
        "https://api.endpoints.anyscale.com/v1",
        legacy.endpoint(without=("seed", "suffix")),
        open_chat(),
        retired="Anyscale Endpoints, its public service, ended in August 2024",
    ),
    row(
        "lepton",
        "https://docs.nvidia.com/dgx-cloud/lepton/",
        "https://api.lepton.ai",
        legacy.endpoint("/api/v1/completions", without=("best_of",)),
        open_chat("/api/v1/chat/completions"),
        prefix="/api/v1",
        retired="its public service ended when Lepton became a part of NVIDIA in 2025",
    ),
    row(
        "lambda",
        "https://docs.lambda.ai/",
        "https://api.lambda.ai/v1",
        legacy.endpoint(without=("best_of", "suffix")),
        open_chat(),
        retired="Lambda's inference API ended in September 2025",
    ),
    row(
        "hyperbolic",
        "https://docs.hyperbolic.xyz/",
        "https://api.hyperbolic.xyz",
        legacy.endpoint("/v1/completions", without=("best_of", "suffix")),
        open_chat("/v1/chat/completions"),
        prefix="/v1",
        retired="its inference endpoints are decommissioned, as they answer themselves",
    ),
)

# Servers that people run themselves: the custom host says where.
ENGINES: Sequence[Provider] = (
    row(
        "vllm",
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        "",
        # A suffix is for models that it knows to fill in; it says so for the others.
        legacy.endpoint(without=("best_of",), logprobs=Param("logprobs", high=20)),
        chat.endpoint(),
        needs_key=False,
    ),
    row(
        "sglang",
        "https://docs.sglang.ai/basic_usage/openai_api_completions.html",
        "",
        # best_of and suffix it takes, and ignores.
        replace(legacy.endpoint(without=("best_of", "suffix")), null=False, least=1),
        chat.endpoint(),
        needs_key=False,
    ),
    row(
        "tgi",
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        "",
        # The usage of a batch would be that of its last prompt.
        one_text(
            without=("best_of", "echo", "logprobs", "n", "stream_options", "suffix"),
            stop=Param("stop", write=several),
        ),
        chat.endpoint(without=("n",), logprobs=Param("top_logprobs", high=5)),
        needs_key=False,
    ),
    row(
        "lm-studio",
        "https://lmstudio.ai/docs/developer/openai-compat/completions",
        "",
        one_text(
            without=("best_of", "echo", "logprobs", "n", "suffix", "user"),
        ),
        open_chat("/chat/completions", "user"),
        needs_key=False,
    ),
)
