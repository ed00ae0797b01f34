"""Rows: providers of which chat, in OpenAI's shape, is the default mode.

Unless a provider's documentation has several choices, or log probabilities, it is
assumed to ignore them: then the gateway makes one call for each choice, and refuses
log probabilities.
"""

from collections.abc import Sequence
from typing import Any

from ...core.routing import CompletionMode, Target
from ..declaration import Endpoint, ParamMapping, Provider, Setting, as_list
from ..protocols import openai_chat
from ..upstream_request import bearer
from . import rows
from .rows import OPEN_MODELS_LACK, one_text, open_chat


def row(
    name: str,
    docs: str,
    base_url: str,
    endpoint: Endpoint | None = None,
    *,
    native: Endpoint | None = None,
    prefix: str = "",
    **others: Any,
) -> Provider:
    """A provider with a chat endpoint at `/chat/completions` below *prefix*.

    A *native* endpoint beside that is only used when a target selects it.
    """
    chat = endpoint or open_chat(f"{prefix}/chat/completions")
    modes = {CompletionMode.CHAT: chat}
    if native:
        modes[CompletionMode.NATIVE] = native
    return rows.row(name, docs, base_url, modes, prefix=prefix, **others)


def oracle_auth(target: Target) -> dict[str, str]:
    """An API key of the service, unless requests are signed."""
    # A signature is in the header Authorization, too, where a key would replace it.
    return {} if target.has(_ORACLE_SIGNING_SETTINGS) else bearer(target)


_ORACLE_SIGNING_SETTINGS = (
    "oracle_tenancy",
    "oracle_user",
    "oracle_fingerprint",
    "oracle_private_key",
)

# Not documented for either endpoint of Bytez.
_BYTEZ_LACKS = ("seed", "stop", "user")

# One service under two names, in China (zhipu) and abroad (z-ai).
_ZHIPU_CHAT = openai_chat.endpoint(
    without=(
        *OPEN_MODELS_LACK,
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "stream_options",
    ),
    temperature=ParamMapping("temperature", high=1),
    top_p=ParamMapping("top_p", low=0.01),
    # Characters of an id.
    user=ParamMapping("user_id", takes=lambda user: 6 <= len(user) <= 128),
    # A list of one.
    stop=ParamMapping("stop", max_items=1, convert=as_list),
)

CHAT_HOSTS: Sequence[Provider] = (
    row(
        "302ai",
        "https://doc.302.ai/en",
        "https://api.302.ai",
        prefix="/v1",
    ),
    row("aibadgr", "https://aibadgr.com/docs", "https://aibadgr.com/api/v1"),
    row(
        "bytez",
        "https://docs.bytez.com/http-reference/oaiCompliant/chatCompletions",
        "https://api.bytez.com/models/v2/openai/v1",
        open_chat("/chat/completions", *_BYTEZ_LACKS),
        # For base models, of which it has few.
        native=one_text(
            without=(
                *OPEN_MODELS_LACK,
                *_BYTEZ_LACKS,
                "best_of",
                "echo",
                "suffix",
            )
        ),
    ),
    row("cometapi", "https://api.cometapi.com/doc", "https://api.cometapi.com/v1"),
    row(
        "cortex",
        "https://docs.snowflake.com/en/user-guide/snowflake-cortex/open_ai_sdk",
        "https://{snowflake_account}.snowflakecomputing.com/api/v2/cortex/v1",
        # What only some of its models take counts as lacking: the row is for all.
        openai_chat.endpoint(
            without=(
                *OPEN_MODELS_LACK,
                "frequency_penalty",
                "presence_penalty",
                "seed",
                "stop",
                "user",
            ),
            max_tokens=ParamMapping("max_completion_tokens"),
        ),
        settings=(Setting("snowflake_account"),),
    ),
    row(
        "deepbricks",
        "https://deepbricks.ai/api-ref",
        "https://api.deepbricks.ai/v1",
    ),
    row(
        "groq",
        "https://console.groq.com/docs/api-reference#chat-create",
        "https://api.groq.com/openai/v1",
        # Penalties are "not yet supported by any of our models".
        openai_chat.endpoint(
            without=(*OPEN_MODELS_LACK, "frequency_penalty", "presence_penalty")
        ),
    ),
    row(
        "inference-net",
        "https://docs.inference.net/api",
        "https://api.inference.net/v1",
    ),
    row(
        "iointelligence",
        "https://docs.io.net/reference/get-started-with-io-intelligence-api",
        "https://api.intelligence.io.solutions/api/v1",
    ),
    row(
        "krutrim",
        "https://docs.olakrutrim.com/",
        "https://cloud.olakrutrim.com/v1",
    ),
    row(
        "lemonfox-ai",
        "https://www.lemonfox.ai/apis/chat",
        "https://api.lemonfox.ai/v1",
    ),
    row(
        "lingyi",
        "https://platform.lingyiwanwu.com/docs",
        "https://api.lingyiwanwu.com",
        prefix="/v1",
    ),
    row("matterai", "https://docs.matterai.so/", "https://api.matterai.so/v1"),
    row(
        "moonshot",
        "https://platform.kimi.ai/docs/api/models-overview",
        "https://api.moonshot.ai",
        # Without n: up to five choices, but at temperature 0 only one.
        openai_chat.endpoint(
            "/v1/chat/completions",
            without=("logit_bias", "n", "seed"),
            max_tokens=ParamMapping("max_completion_tokens"),
            temperature=ParamMapping("temperature", high=1),
            # Five sequences of at most 32 bytes each.
            stop=ParamMapping(
                "stop", max_items=5, takes=lambda stop: len(stop.encode()) <= 32
            ),
            user=ParamMapping("safety_identifier"),
        ),
        prefix="/v1",
    ),
    row("ncompass", "https://docs.ncompass.tech/", "https://api.ncompass.tech/v1"),
    row(
        "nscale",
        "https://docs.nscale.com/api-reference/inference/create-a-chat-completion",
        "https://inference.api.nscale.com/v1",
    ),
    row(
        "oracle",
        "https://docs.oracle.com/en-us/iaas/Content/generative-ai/"
        "openai-compatible-api.htm",
        "https://inference.generativeai.{oracle_region}.oci.oraclecloud.com/openai/v1",
        auth=oracle_auth,
        signer="oci",
        credential_settings=(_ORACLE_SIGNING_SETTINGS,),
        settings=(
            Setting("oracle_region"),
            Setting("oracle_tenancy"),
            Setting("oracle_user"),
            Setting("oracle_fingerprint"),
            Setting("oracle_private_key", secret=True),
            Setting("oracle_key_passphrase", secret=True),
            Setting("oracle_compartment_id", upstream_header="opc-compartment-id"),
        ),
    ),
    row(
        "ovhcloud",
        "https://docs.ovhcloud.com/en/guides/public-cloud/ai-machine-learning/"
        "ai-endpoints-getting-started",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
    ),
    row(
        "reka-ai",
        "https://docs.reka.ai/chat/api-reference/create-chat-completion",
        "https://api.reka.ai/v1",
        open_chat("/chat/completions", "user"),
    ),
    row(
        "upstage",
        "https://console.upstage.ai/docs/models",
        "https://api.upstage.ai/v1",
    ),
    row(
        "z-ai",
        "https://docs.z.ai/api-reference/llm/chat-completion",
        "https://api.z.ai/api/paas/v4",
        _ZHIPU_CHAT,
    ),
    row(
        "zhipu",
        "https://docs.bigmodel.cn/api-reference/",
        "https://open.bigmodel.cn/api/paas/v4",
        _ZHIPU_CHAT,
    ),
)
