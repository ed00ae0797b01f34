"""Rows: providers with a completions endpoint of OpenAI's shape, and what they lack.

What an endpoint ignores in silence counts as lacking: the gateway does it in its place,
or refuses it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...core.routing import CompletionMode
from ..declaration import (
    Endpoint,
    HTTPRequest,
    ParamMapping,
    Provider,
    Setting,
    UpstreamRequest,
    as_list,
    same_named,
)
from ..protocols import openai_chat, openai_completions
from . import rows
from .rows import one_text, open_chat, prompted

# Stop sequences where they have to be a list.
_STOP_LIST = ParamMapping("stop", write=as_list)
# A seed where it has to be an integer of 32 bits.
_SEED_32 = ParamMapping("seed", low=-(2**31), high=2**31 - 1)


def row(
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

    *fim* is one for infilling; *others* are as in `rows.row`.
    """
    modes = {CompletionMode.NATIVE: native, CompletionMode.CHAT: chat}
    if fim:
        modes[CompletionMode.FIM] = fim
    return rows.row(name, docs, base_url, modes, **others)


_TGI = one_text(
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
    stop=_STOP_LIST,
)
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


def call_qwen_infill(ask: UpstreamRequest) -> HTTPRequest:
    """The request of Qwen's coder models: prefix and suffix in the prompt, with marks.

    Source: https://www.alibabacloud.com/help/en/model-studio/completions
    """
    body = openai_completions.request(ask)
    prefix, suffix = body["prompt"], body.pop("suffix", "")
    body["prompt"] = f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    return ask.post("/completions", body)


OPENAI = row(
    "openai",
    "https://platform.openai.com/docs/api-reference/completions",
    "https://api.openai.com/v1",
    openai_completions.endpoint(),
    openai_chat.endpoint(),
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
            # Its echo is a list beside the choices, not a prefix of the text.
            without=("best_of", "echo", "stream_options", "suffix", "user"),
            logprobs=ParamMapping("logprobs", high=20),
            stop=_STOP_LIST,
        ),
        # It has log probabilities, but in the legacy shape even there.
        openai_chat.endpoint(
            "/v1/chat/completions", without=("logprobs", "user"), stop=_STOP_LIST
        ),
        prefix="/v1",
    ),
    row(
        "fireworks-ai",
        "https://docs.fireworks.ai/api-reference/post-completions",
        "https://api.fireworks.ai/inference/v1",
        prompted(
            without=("best_of", "suffix"), logprobs=ParamMapping("logprobs", high=5)
        ),
        openai_chat.endpoint(logprobs=ParamMapping("top_logprobs", high=5)),
        settings=(Setting("fireworks_account_id"),),
    ),
    row(
        "deepinfra",
        "https://docs.deepinfra.com/api-reference/openai-completions-1",
        "https://api.deepinfra.com/v1/openai",
        replace(one_text(without=("best_of", "logit_bias", "suffix")), choices=4),
        # It has no alternatives there, only the chosen tokens.
        openai_chat.endpoint(
            without=("logit_bias",),
            choices=4,
            logprobs=ParamMapping("top_logprobs", high=0),
        ),
    ),
    row(
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
    row(
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
    row(
        "nebius",
        "https://docs.tokenfactory.nebius.com/api-reference/introduction",
        "https://api.tokenfactory.nebius.com/v1",
        prompted(without=("best_of", "seed", "suffix")),
        openai_chat.endpoint(without=("seed",)),
    ),
    row(
        "novita-ai",
        "https://novita.ai/docs/api-reference/model-apis-llm-create-completion",
        "https://api.novita.ai/openai/v1",
        one_text(without=("best_of", "echo", "suffix", "user")),
        openai_chat.endpoint(without=("user",)),
    ),
    row(
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
            stop=_STOP_LIST,
        ),
        open_chat("/chat/completions", "user", stop=_STOP_LIST),
    ),
    row(
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
            stop=_STOP_LIST,
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
        # Reasoning models only chat.
        own_modes=(CompletionMode.CHAT, CompletionMode.NATIVE),
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
        own_modes=(CompletionMode.CHAT, CompletionMode.NATIVE),
    ),
    row(
        "dashscope",
        "https://www.alibabacloud.com/help/en/model-studio/completions",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        # For the coder models; the others chat.
        _QWEN,
        open_chat("/chat/completions", "frequency_penalty", "user"),
        fim=replace(
            _QWEN,
            params={**_QWEN.params, **same_named("suffix")},
            call=call_qwen_infill,
        ),
        # Only the host in Beijing has completions: dashscope.aliyuncs.com.
        own_modes=(CompletionMode.CHAT,),
    ),
    row(
        "huggingface",
        "https://huggingface.co/docs/inference-providers/tasks/chat-completion",
        "https://router.huggingface.co",
        # Its router only chats; endpoints deployed by users mostly run TGI.
        replace(_TGI, call=lambda ask: openai_completions.call(ask, "/v1/completions")),
        open_chat("/v1/chat/completions", "user", stop=_STOP_LIST),
        prefix="/v1",
        own_modes=(CompletionMode.CHAT,),
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
        # Users deploy their own servers; the example in the documentation is vLLM.
        prompted(without=("best_of",), logprobs=ParamMapping("logprobs", high=20)),
        openai_chat.endpoint(),
        needs_key=False,
    ),
    row(
        "predibase",
        "https://docs.predibase.com/inference/querying",
        "https://serving.app.predibase.com/{predibase_tenant}"
        "/deployments/v2/llms/{predibase_deployment}/v1",
        one_text(
            without=("best_of", "echo", "logit_bias", "logprobs", "n", "suffix"),
            stop=_STOP_LIST,
        ),
        open_chat(stop=_STOP_LIST),
        settings=(Setting("predibase_tenant"), Setting("predibase_deployment")),
        model_settings=("predibase_deployment",),
    ),
)

# Services that were shut down. Their names can still be used with a custom host.
RETIRED: Sequence[Provider] = (
    row(
        "anyscale",
        "https://docs.anyscale.com/",
        "https://api.endpoints.anyscale.com/v1",
        openai_completions.endpoint(without=("seed", "suffix")),
        open_chat(),
        retired="Anyscale Endpoints, its public service, ended in August 2024",
    ),
    row(
        "lepton",
        "https://docs.nvidia.com/dgx-cloud/lepton/",
        "https://api.lepton.ai",
        openai_completions.endpoint("/api/v1/completions", without=("best_of",)),
        open_chat("/api/v1/chat/completions"),
        prefix="/api/v1",
        retired="its public service ended when Lepton became a part of NVIDIA in 2025",
    ),
    row(
        "lambda",
        "https://docs.lambda.ai/",
        "https://api.lambda.ai/v1",
        openai_completions.endpoint(without=("best_of", "suffix")),
        open_chat(),
        retired="Lambda has wound down its inference API",
    ),
    row(
        "hyperbolic",
        "https://docs.hyperbolic.xyz/",
        "https://api.hyperbolic.xyz",
        openai_completions.endpoint("/v1/completions", without=("best_of", "suffix")),
        open_chat("/v1/chat/completions"),
        prefix="/v1",
        retired="its inference endpoints are decommissioned, as they answer themselves",
    ),
)

# Self-hosted servers, which need a custom host.
ENGINES: Sequence[Provider] = (
    row(
        "vllm",
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        "",
        # It refuses a suffix for models without infilling.
        # A null prompt needs embeddings in its place.
        openai_completions.endpoint(
            without=("best_of",), logprobs=ParamMapping("logprobs", high=20)
        ),
        openai_chat.endpoint(),
        needs_key=False,
    ),
    row(
        "sglang",
        "https://docs.sglang.ai/basic_usage/openai_api_completions.html",
        "",
        # It accepts best_of and suffix, and ignores them.
        replace(
            openai_completions.endpoint(without=("best_of", "suffix")),
            null=False,
            least=1,
        ),
        openai_chat.endpoint(),
        needs_key=False,
    ),
    row(
        "tgi",
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        "",
        # The usage of a batch would be that of its last prompt.
        _TGI,
        openai_chat.endpoint(
            without=("n",), logprobs=ParamMapping("top_logprobs", high=5)
        ),
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
