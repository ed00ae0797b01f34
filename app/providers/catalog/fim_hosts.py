"""Providers with an endpoint for infilling, between a prompt and a suffix.

Mistral answers in the shape of a chat even there. The repairs that all legacy answers
get turn that into the legacy shape.

Sources: https://docs.mistral.ai/api/#tag/fim and
https://github.com/mistralai/client-python, https://docs.inceptionlabs.ai/ and
https://docs.litellm.ai/docs/providers/inception,
https://api-docs.deepseek.com/api/create-completion
"""

import re
from dataclasses import replace

from ...core.routing import CompletionMode
from ..declaration import ParamMapping
from ..protocols import openai_chat
from .rows import one_text, row

# What none of the endpoints for infilling has.
_LACKS = ("best_of", "echo", "logit_bias", "logprobs", "n", "user")

# Mistral answers 422 above: https://github.com/SillyTavern/SillyTavern/pull/4856
_TEMPERATURE = ParamMapping("temperature", high=1.5)
_MISTRAL_FIM = one_text(
    "/fim/completions",
    without=(*_LACKS, "frequency_penalty", "presence_penalty", "stream_options"),
    seed=ParamMapping("random_seed", low=0),
    temperature=_TEMPERATURE,
)
MISTRAL = row(
    "mistral-ai",
    "https://docs.mistral.ai/api/#tag/fim",
    "https://api.mistral.ai/v1",
    {
        CompletionMode.CHAT: openai_chat.endpoint(
            without=("logit_bias", "logprobs", "stream_options", "user"),
            seed=ParamMapping("random_seed", low=0),
            temperature=_TEMPERATURE,
        ),
        CompletionMode.FIM: _MISTRAL_FIM,
    },
)
# Mistral's host for plugins of editors, which takes keys of its own.
CODESTRAL = replace(
    MISTRAL,
    name="codestral",
    base_url="https://codestral.mistral.ai/v1",
    modes={
        CompletionMode.FIM: _MISTRAL_FIM,
        CompletionMode.CHAT: MISTRAL.modes[CompletionMode.CHAT],
    },
)
INCEPTION = row(
    "inception",
    "https://docs.inceptionlabs.ai/",
    "https://api.inceptionlabs.ai/v1",
    {
        CompletionMode.CHAT: openai_chat.endpoint(
            without=(
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                "n",
                "presence_penalty",
                "seed",
                "top_p",
                "user",
            )
        ),
        CompletionMode.FIM: one_text(
            "/fim/completions", without=(*_LACKS, "seed", "temperature")
        ),
    },
)
# From V4 on it has no penalties any more.
_DEEPSEEK_LACKS = (
    "frequency_penalty",
    "logit_bias",
    "n",
    "presence_penalty",
    "seed",
)
DEEPSEEK = row(
    "deepseek",
    "https://api-docs.deepseek.com/api/create-completion",
    "https://api.deepseek.com",
    other_api_paths=("/beta",),
    modes={
        # It takes a suffix or none, so there is no FIM mode besides. It refuses more
        # than 4096 tokens itself.
        CompletionMode.NATIVE: one_text(
            "/beta/completions",
            without=(*_DEEPSEEK_LACKS, "best_of", "user"),
            logprobs=ParamMapping("logprobs", high=20),
        ),
        # Characters of an id, and how many; all else is a 400.
        # Source: https://api-docs.deepseek.com/quick_start/rate_limit
        CompletionMode.CHAT: openai_chat.endpoint(
            without=_DEEPSEEK_LACKS,
            user=ParamMapping(
                "user_id",
                takes=lambda user: bool(re.fullmatch(r"[\w-]{1,512}", user, re.ASCII)),
            ),
        ),
    },
)
