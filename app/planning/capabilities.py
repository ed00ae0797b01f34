"""The capabilities of models, by the names that providers give them.

The first row that matches counts; a model that matches none has the capabilities that
its provider's first mode assumes. `model_info` in a target overrides any of them.

Sources: https://platform.openai.com/docs/guides/reasoning (parameters that reasoning
models refuse), https://platform.openai.com/docs/guides/latest-model (those that refuse
them only while they reason), https://platform.claude.com/docs/en/models/ (sampling and
thinking), https://ai.google.dev/gemini-api/docs/latest-model (sampling),
https://github.com/vercel/ai/issues/8943 (Gemini's penalties),
https://docs.cohere.com/docs/reasoning, https://docs.x.ai/docs/guides/reasoning,
https://api-docs.deepseek.com/guides/thinking_mode, and the documentation named in each
provider's file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..core.routing import CompletionMode

SAMPLING = ("temperature", "top_p", "top_k")
PENALTIES = ("frequency_penalty", "presence_penalty")


@dataclass(frozen=True, slots=True)
class ModelCapabilities:
    """What one model can do.

    *modes* are those that it supports, best first; None leaves that to the provider. It
    refuses the parameters in *lacks*. *max_tokens* is its name for that parameter on
    the chat endpoint; a model that reasons gets at least *token_floor*.
    """

    modes: tuple[CompletionMode, ...] | None = None
    lacks: Sequence[str] = ()
    max_tokens: str = "max_tokens"
    token_floor: int = 0


# OpenAI's reasoning models refuse all sampling parameters.
_REASONING = ModelCapabilities(
    modes=(CompletionMode.CHAT,),
    lacks=(*SAMPLING, *PENALTIES, "logit_bias", "logprobs", "stop"),
    max_tokens="max_completion_tokens",
    token_floor=1024,
)
# Some reason only on request, and otherwise take temperature, top_p and logprobs.
_OPTIONAL_REASONING = replace(
    _REASONING, lacks=("top_k", *PENALTIES, "logit_bias", "stop"), token_floor=0
)
_DEEPSEEK = ModelCapabilities(
    lacks=(*SAMPLING, *PENALTIES, "logprobs"), token_floor=1024
)
_COMPLETION_ONLY = ModelCapabilities(modes=(CompletionMode.NATIVE,))
_CHAT_ONLY = ModelCapabilities(
    modes=(CompletionMode.CHAT,), max_tokens="max_completion_tokens"
)

# From the start of a name, or after a vendor's: `openai/gpt-5`, `us.meta.llama3`.
_MODELS: tuple[tuple[str, ModelCapabilities], ...] = (
    # OpenAI
    (r"(gpt-3\.5|gpt-35)-turbo-instruct|babbage-002|davinci-002", _COMPLETION_ONLY),
    (r"ft:(babbage|davinci)-002", _COMPLETION_ONLY),
    (r"gpt-5-chat|chatgpt-", _CHAT_ONLY),
    # Bedrock's Converse takes no stop sequences for these and for Qwen's.
    (r"openai\.gpt-oss", ModelCapabilities(lacks=("stop",), token_floor=1024)),
    (r"qwen\.qwen", ModelCapabilities(lacks=("stop",))),
    (r"gpt-oss", ModelCapabilities(token_floor=1024)),
    (r"gpt-5\.[124](-mini|-nano)?(-\d{4}-\d\d-\d\d)?$", _OPTIONAL_REASONING),
    (r"o[1-9]\b|gpt-([5-9]|\d\d)", _REASONING),
    (r"gpt-(3\.5|35|4)|ft:gpt-", _CHAT_ONLY),
    # Anthropic: sampling parameters are refused from 4.7 on, on every platform. From 5
    # on, reasoning is on by default and counts against max_tokens.
    (r"claude-([a-z]+-)?4[.-][7-9]\b", ModelCapabilities(lacks=SAMPLING)),
    (
        r"claude-([a-z]+-)?([5-9]|[1-9]\d)\b",
        ModelCapabilities(lacks=SAMPLING, token_floor=1024),
    ),
    # Google: from 2.5 on, reasoning counts against maxOutputTokens, and penalties are
    # refused. Sampling parameters are ignored since July 2026.
    (
        r"gemini-(3\.5-flash-lite|3\.[6-9]|[4-9]|flash-(lite-)?latest)",
        ModelCapabilities(lacks=(*SAMPLING, *PENALTIES), token_floor=1024),
    ),
    (
        r"gemini-(2\.5|3|pro-latest)",
        ModelCapabilities(lacks=PENALTIES, token_floor=1024),
    ),
    # Cohere
    (r"command-a-(plus|reasoning)", ModelCapabilities(token_floor=1024)),
    # xAI: reasoning models are not on its legacy endpoint. From 4.20 on it ignores
    # logprobs.
    (r"grok-.*non-reasoning", ModelCapabilities(lacks=("logprobs",))),
    (
        r"grok-(3-mini|[4-9]|code|latest)",
        ModelCapabilities(
            modes=(CompletionMode.CHAT,),
            lacks=(*PENALTIES, "logprobs", "stop"),
            token_floor=1024,
        ),
    ),
    # Code models: they continue text, and fill in the middle.
    (
        r"codestral",
        ModelCapabilities(
            modes=(CompletionMode.FIM, CompletionMode.NATIVE, CompletionMode.CHAT)
        ),
    ),
    (r"mercury-(coder|edit)", ModelCapabilities(modes=(CompletionMode.FIM,))),
    (
        r"qwen[\w.]*-coder",
        ModelCapabilities(
            modes=(CompletionMode.NATIVE, CompletionMode.FIM, CompletionMode.CHAT)
        ),
    ),
    # DeepSeek reasons by default, and then ignores sampling parameters.
    (r"deepseek-(reasoner|v4-flash)", replace(_DEEPSEEK, modes=(CompletionMode.CHAT,))),
    (r"deepseek-v4", _DEEPSEEK),
    # Moonshot, Zhipu and Inception: models that reason by default.
    (
        r"kimi-(k2\.[5-9]|k[3-9])",
        ModelCapabilities(lacks=(*SAMPLING, *PENALTIES), token_floor=1024),
    ),
    (r"glm-(4\.[5-9]|[5-9])|mercury-2", ModelCapabilities(token_floor=1024)),
    # Families on Bedrock that take raw text.
    (
        r"meta\.llama|mistral\.(mistral-7b|mixtral|mistral-(large|small)-2402)|"
        r"amazon\.titan-(text|tg1)|cohere\.command-(text|light)",
        ModelCapabilities(modes=(CompletionMode.NATIVE, CompletionMode.CHAT)),
    ),
)
_PATTERNS = tuple(
    (re.compile(rf"(?:^|[./])(?:{pattern})", re.I), model) for pattern, model in _MODELS
)


def describe_model(name: str, info: Mapping[str, Any]) -> ModelCapabilities:
    """The capabilities of the model *name*; its target's *info* overrides some."""
    is_short = len(name) <= _MAX_CACHED_NAME
    find = _capabilities_of if is_short else _capabilities_of.__wrapped__
    return replace(find(name), **info) if info else find(name)


# Characters of a name whose result is kept: callers choose them.
_MAX_CACHED_NAME = 200


@lru_cache(1024)
def _capabilities_of(name: str) -> ModelCapabilities:
    matches = (model for pattern, model in _PATTERNS if pattern.search(name))
    return next(matches, ModelCapabilities())
