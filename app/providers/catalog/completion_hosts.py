"""Rows: providers with a completions endpoint of OpenAI's shape, and what they lack.

What an endpoint ignores in silence counts as lacking: the gateway does it in its place,
or refuses it.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...core.routing import CompletionMode
from .. import openai_rules
from ..declaration import ParamMapping, Provider, Setting, same_named
from ..protocols import openai_chat, openai_completions
from ..upstream_request import HTTPRequest, UpstreamRequest
from .rows import (
    ENGINE_CHAT_PARAMS,
    STOP_LIST,
    completion_row,
    one_text,
    open_chat,
    prompted,
    with_params,
)
from .self_hosted import TGI, VLLM_PARAMS

# A seed where it has to be a signed integer of 32 bits.
_SEED_32 = ParamMapping("seed", low=-(2**31), high=2**31 - 1)


# What Qwen's coder models take in both modes; infilling takes a suffix besides.
_QWEN = one_text(
    without=(
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "n",
        "suffix",
        "user",
    )
)


def call_qwen_infill(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of Qwen's coder models: prefix and suffix in the prompt, with marks.

    Source: https://www.alibabacloud.com/help/en/model-studio/completions
    """
    # It has no parameter for a suffix: the special tokens with which the models were
    # trained join both texts. Such tokens within the texts are not escaped.
    body = openai_completions.request(upstream)
    prefix, suffix = body["prompt"], body.pop("suffix", "")
    body["prompt"] = f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    return upstream.post("/completions", body)


OPENAI = completion_row(
    "openai",
    "https://platform.openai.com/docs/api-reference/completions",
    "https://api.openai.com/v1",
    replace(openai_completions.endpoint(), rules=openai_rules.check),
    replace(
        openai_chat.endpoint(user=openai_chat.OPENAI_USER), rules=openai_rules.check
    ),
    settings=(
        Setting("openai_organization", upstream_header="OpenAI-Organization"),
        Setting("openai_project", upstream_header="OpenAI-Project"),
        Setting(
            "openai_beta",
            upstream_header="OpenAI-Beta",
            alternative_header="openai-beta",
        ),
    ),
)

HOSTED: Sequence[Provider] = (
    OPENAI,
    completion_row(
        "together-ai",
        "https://docs.together.ai/reference/completions-1",
        "https://api.together.xyz",
        one_text(
            "/v1/completions",
            # Its echo is a list beside the choices, not a prefix of the text.
            without=("best_of", "echo", "stream_options", "suffix", "user"),
            logprobs=ParamMapping("logprobs", high=20),
            stop=STOP_LIST,
        ),
        # It has log probabilities, but even there in the legacy shape, which the bridge
        # does not read.
        openai_chat.endpoint(
            "/v1/chat/completions", without=("logprobs", "user"), stop=STOP_LIST
        ),
        prefix="/v1",
    ),
    completion_row(
        "fireworks-ai",
        "https://docs.fireworks.ai/api-reference/post-completions",
        "https://api.fireworks.ai/inference/v1",
        prompted(
            without=("best_of", "suffix"), logprobs=ParamMapping("logprobs", high=5)
        ),
        openai_chat.endpoint(logprobs=ParamMapping("top_logprobs", high=5)),
        settings=(Setting("fireworks_account_id"),),
    ),
    completion_row(
        "deepinfra",
        "https://docs.deepinfra.com/api-reference/openai-completions-1",
        "https://api.deepinfra.com/v1/openai",
        replace(
            one_text(without=("best_of", "logit_bias", "suffix")), choices_per_call=4
        ),
        # In a chat it has log probabilities of the chosen tokens, but no alternatives.
        openai_chat.endpoint(
            without=("logit_bias",),
            choices_per_call=4,
            logprobs=ParamMapping("top_logprobs", high=0),
        ),
    ),
    completion_row(
        "cerebras",
        "https://inference-docs.cerebras.ai/api-reference/completions",
        "https://api.cerebras.ai/v1",
        prompted(
            without=(
                "best_of",
                "frequency_penalty",
                "logit_bias",
                "n",
                "presence_penalty",
                "suffix",
            ),
            temperature=ParamMapping("temperature", high=1.5),
        ),
        openai_chat.endpoint(
            without=("frequency_penalty", "logit_bias", "n", "presence_penalty"),
            temperature=ParamMapping("temperature", high=1.5),
        ),
    ),
    completion_row(
        "sambanova",
        "https://docs.sambanova.ai/docs/api-reference/completions/create-completion",
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
        # It accepts penalties for compatibility only, as documented.
        open_chat(
            "/v1/chat/completions",
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "user",
        ),
        prefix="/v1",
    ),
    completion_row(
        "nebius",
        "https://docs.tokenfactory.nebius.com/api-reference/introduction",
        "https://api.tokenfactory.nebius.com/v1",
        prompted(without=("best_of", "seed", "suffix")),
        openai_chat.endpoint(without=("seed",)),
    ),
    completion_row(
        "novita-ai",
        "https://novita.ai/docs/api-reference/model-apis-llm-create-completion",
        # With the version in the endpoints' paths, as Portkey has it: its custom hosts
        # for this provider end before the version, `https://api.novita.ai/v3/openai`.
        # Source: https://github.com/Portkey-AI/gateway/blob/main/src/providers/
        # novita-ai/api.ts
        "https://api.novita.ai/openai",
        one_text("/v1/completions", without=("best_of", "echo", "suffix", "user")),
        openai_chat.endpoint("/v1/chat/completions", without=("user",)),
        prefix="/v1",
    ),
    completion_row(
        "featherless-ai",
        "https://featherless.ai/docs/completions",
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
            ),
            stop=STOP_LIST,
        ),
        open_chat("/chat/completions", "user", stop=STOP_LIST),
    ),
    completion_row(
        "x-ai",
        "https://docs.x.ai/docs/api-reference#completions-legacy",
        "https://api.x.ai/v1",
        # logprobs is a boolean here, and newer models ignore it.
        one_text(
            without=(
                "best_of",
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "presence_penalty",
                "suffix",
            ),
            seed=_SEED_32,
            stop=STOP_LIST,
        ),
        # All newer models reason, and refuse penalties and stop sequences.
        openai_chat.endpoint(
            without=(
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "presence_penalty",
                "stop",
            ),
            seed=_SEED_32,
        ),
        # Its current models reason, and those only chat: so that is the default here.
        own_host_modes=(CompletionMode.CHAT, CompletionMode.NATIVE),
    ),
    completion_row(
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
    completion_row(
        "siliconflow",
        "https://docs.siliconflow.cn/en/userguide/guides/fim",
        "https://api.siliconflow.cn/v1",
        one_text(
            without=(
                "best_of",
                "echo",
                "logit_bias",
                "logprobs",
                "n",
                "presence_penalty",
                "seed",
                "user",
            )
        ),
        open_chat("/chat/completions", "presence_penalty", "seed", "user"),
        own_host_modes=(CompletionMode.CHAT, CompletionMode.NATIVE),
    ),
    completion_row(
        "dashscope",
        "https://www.alibabacloud.com/help/en/model-studio/completions",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        # For the coder models; the other ones only chat.
        _QWEN,
        open_chat("/chat/completions", "frequency_penalty", "user"),
        fim=replace(
            _QWEN,
            params={**_QWEN.params, **same_named("suffix")},
            call=call_qwen_infill,
        ),
        # Only the host in Beijing has completions: dashscope.aliyuncs.com.
        own_host_modes=(CompletionMode.CHAT,),
    ),
    completion_row(
        "huggingface",
        "https://huggingface.co/docs/inference-providers/tasks/chat-completion",
        "https://router.huggingface.co",
        # Its router only chats. Endpoints that users deploy have their own hosts, and
        # most run text-generation-inference: the native mode is for them.
        replace(
            TGI,
            call=lambda upstream: openai_completions.call(upstream, "/v1/completions"),
        ),
        open_chat("/v1/chat/completions", "user", stop=STOP_LIST),
        prefix="/v1",
        own_host_modes=(CompletionMode.CHAT,),
        settings=(Setting("huggingface_base_url", is_base_url=True),),
    ),
    completion_row(
        "nextbit",
        "https://www.nextbit256.com/docs/api",
        "https://api.nextbit256.com/v1",
        one_text(without=("best_of", "echo", "logit_bias", "logprobs", "n", "suffix")),
        open_chat(),
    ),
    completion_row(
        "modal",
        "https://modal.com/docs/examples/vllm_inference",
        "",
        # Users deploy their own servers; the example in the documentation is vLLM.
        with_params(prompted(without=("best_of",)), VLLM_PARAMS, takes_no_limit=True),
        with_params(openai_chat.endpoint(), ENGINE_CHAT_PARAMS),
        api_path="/v1",
        needs_key=False,
    ),
    completion_row(
        "predibase",
        "https://docs.predibase.com/inference/querying",
        "https://serving.app.predibase.com/{predibase_tenant}"
        "/deployments/v2/llms/{predibase_deployment}/v1",
        one_text(
            without=("best_of", "echo", "logit_bias", "logprobs", "n", "suffix"),
            stop=STOP_LIST,
        ),
        open_chat(stop=STOP_LIST),
        settings=(Setting("predibase_tenant"), Setting("predibase_deployment")),
        model_settings=("predibase_deployment",),
    ),
)
