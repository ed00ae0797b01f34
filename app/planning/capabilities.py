"""The capabilities of models, by the names that providers give them.

One family of models is one row of `FAMILIES`. The first row that matches counts; a
model that matches none has the capabilities that its provider's first mode assumes.
`model_info` in a target overrides any of them.

tools/facts.csv says for each row where it was looked up, when, and with which spellings
it is tested. A row that is new or changed needs a line there, too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

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


class ModelFamily(NamedTuple):
    """Models that differ by name only: *pattern* matches all their names.

    It matches from the start of a name, or after a vendor's: `openai/gpt-5`,
    `us.meta.llama3`, `databricks-gpt-oss-20b`. *name* is that of its line in
    tools/facts.csv.
    """

    name: str
    pattern: str
    model: ModelCapabilities


_CHAT_ONLY = ModelCapabilities(
    modes=(CompletionMode.CHAT,), max_tokens="max_completion_tokens"
)
_COMPLETION_ONLY = ModelCapabilities(modes=(CompletionMode.NATIVE,))
# OpenAI's reasoning models refuse all sampling parameters.
_OPENAI_REASONING = ModelCapabilities(
    modes=(CompletionMode.CHAT,),
    lacks=(*SAMPLING, *PENALTIES, "logit_bias", "logprobs", "stop"),
    max_tokens="max_completion_tokens",
    token_floor=1024,
)
# Some reason only on request, and otherwise take temperature, top_p and logprobs.
_OPENAI_OPTIONAL_REASONING = replace(
    _OPENAI_REASONING, lacks=("top_k", *PENALTIES, "logit_bias", "stop"), token_floor=0
)
# Models that reason unless they are told not to, which the gateway never does. The
# reasoning is a part of max_tokens. Where it is off by default there is no floor.
_REASONING = ModelCapabilities(token_floor=1024)
_FIXED_SAMPLING = replace(_REASONING, lacks=(*SAMPLING, *PENALTIES))
# DeepSeek ignores sampling parameters while it reasons.
_DEEPSEEK = replace(_REASONING, lacks=(*SAMPLING, *PENALTIES, "logprobs"))
_RAW_TEXT = ModelCapabilities(modes=(CompletionMode.NATIVE, CompletionMode.CHAT))

FAMILIES: tuple[ModelFamily, ...] = (
    # OpenAI
    ModelFamily(
        "openai-completions",
        r"(ft:)?(babbage|davinci)-002|(gpt-3\.5|gpt-35)-turbo-instruct",
        _COMPLETION_ONLY,
    ),
    ModelFamily("openai-chat-latest", r"gpt-5-chat|chatgpt-", _CHAT_ONLY),
    # Bedrock's Converse takes no stop sequences for these and for Qwen's.
    ModelFamily(
        "bedrock-gpt-oss", r"openai\.gpt-oss", replace(_REASONING, lacks=("stop",))
    ),
    ModelFamily("bedrock-qwen", r"qwen\.qwen", ModelCapabilities(lacks=("stop",))),
    ModelFamily("gpt-oss", r"gpt-oss", _REASONING),
    ModelFamily(
        "openai-optional-reasoning",
        r"gpt-5[.-][124](-mini|-nano)?(-\d{4}-\d\d-\d\d)?(?![\w.-])",
        _OPENAI_OPTIONAL_REASONING,
    ),
    ModelFamily(
        "openai-reasoning", r"o[1-9]\b|gpt-(?!35)([5-9]|\d\d)", _OPENAI_REASONING
    ),
    ModelFamily("openai-chat", r"gpt-(3\.5|35|4)|ft:gpt-", _CHAT_ONLY),
    # Anthropic: sampling parameters are refused from 4.7 on, on every platform. From 5
    # on, reasoning is on by default and counts against max_tokens.
    ModelFamily(
        "claude-4.7",
        r"claude-([a-z]+-)?4[.-][7-9]\b",
        ModelCapabilities(lacks=SAMPLING),
    ),
    ModelFamily(
        "claude-5",
        r"claude-([a-z]+-)?([5-9]|[1-9]\d)\b",
        replace(_REASONING, lacks=SAMPLING),
    ),
    # Google: from 2.5 on, reasoning counts against maxOutputTokens, and penalties are
    # refused. Sampling parameters are ignored since July 2026.
    ModelFamily(
        "gemini-3.6",
        r"gemini-(3[.-]5-flash-lite|3[.-][6-9]|[4-9]|flash-(lite-)?latest)",
        _FIXED_SAMPLING,
    ),
    ModelFamily(
        "gemini-2.5",
        r"gemini-(2[.-]5|3|pro-latest)",
        replace(_REASONING, lacks=PENALTIES),
    ),
    # Cohere
    ModelFamily("cohere-reasoning", r"command-a-(plus|reasoning)", _REASONING),
    # xAI: reasoning models are not on its legacy endpoint. From 4.20 on it ignores
    # logprobs.
    ModelFamily(
        "grok-non-reasoning",
        r"grok-.*non-reasoning",
        ModelCapabilities(lacks=("logprobs",)),
    ),
    ModelFamily(
        "grok-reasoning",
        r"grok-(3-mini|[4-9]|build|code|latest)",
        ModelCapabilities(
            modes=(CompletionMode.CHAT,),
            lacks=(*PENALTIES, "logprobs", "stop"),
            token_floor=1024,
        ),
    ),
    # Code models: they continue text, and fill in the middle.
    ModelFamily(
        "codestral",
        r"codestral",
        ModelCapabilities(
            modes=(CompletionMode.FIM, CompletionMode.NATIVE, CompletionMode.CHAT)
        ),
    ),
    ModelFamily(
        "mercury-coder",
        r"mercury-(coder|edit)",
        ModelCapabilities(modes=(CompletionMode.FIM,)),
    ),
    ModelFamily(
        "qwen-coder",
        r"qwen[\w.]*-coder",
        ModelCapabilities(
            modes=(CompletionMode.NATIVE, CompletionMode.FIM, CompletionMode.CHAT)
        ),
    ),
    # DeepSeek. Its endpoint for infilling runs the Flash models without reasoning: a
    # suffix selects it, and a text alone is chatted.
    ModelFamily("deepseek-r1", r"deepseek[.-](tng-)?r1|mai-ds-r1|r1-1776", _REASONING),
    ModelFamily(
        "deepseek-flash",
        r"deepseek-(reasoner|(v\d+([.-]\d+)?-)?flash)",
        replace(_DEEPSEEK, modes=(CompletionMode.CHAT,)),
    ),
    ModelFamily("deepseek-v4", r"deepseek-(v[4-9]|pro\b)", _DEEPSEEK),
    # Models of other vendors that reason by default.
    ModelFamily("kimi-k2.5", r"kimi-(k2[.-][5-9]\b|k[3-9]|latest)", _FIXED_SAMPLING),
    ModelFamily(
        "glm-4.5", r"glm-(4\.[5-9]|4-[5-9]\b|[5-9]|z1|(flash-)?latest)", _REASONING
    ),
    ModelFamily("mercury-2", r"mercury-2", _REASONING),
    ModelFamily("magistral", r"magistral|mistral-large-4", _REASONING),
    ModelFamily("minimax-m1", r"minimax-m[1-9](?!-her)", _REASONING),
    ModelFamily("sonar-reasoning", r"sonar-(reasoning|deep-research)", _REASONING),
    ModelFamily("qwq", r"(qwen-)?q[wv]q", _REASONING),
    ModelFamily(
        "qwen-3.5",
        r"qwen-?3\.?[5-9](?!.*(base|embedding|instruct|omni))",
        _REASONING,
    ),
    # Open weights of the first release; those of July 2025 reason never or always.
    ModelFamily(
        "qwen3-hybrid",
        r"qwen-?3(:latest)?$"
        r"|qwen-?3[:-]\d+(\.\d+)?b\b(?!.*(2507|base|embedding|instruct))",
        _REASONING,
    ),
    ModelFamily(
        "nemotron-3",
        r"nemotron-(((nano|super|ultra|lightning)-)?3\b(?!-8b|.*safety)|nano-9b-v2)",
        _REASONING,
    ),
    ModelFamily("mimo-v2.5", r"mimo-v2\.[5-9]", _REASONING),
    ModelFamily("step-3", r"step-?3\b|step-r1", _REASONING),
    ModelFamily("ring", r"ring-(\d|flash|lite|mini)|ling-3\b", _REASONING),
    ModelFamily("inkling", r"inkling", _REASONING),
    ModelFamily("hunyuan-a13b", r"hunyuan-a13b", _REASONING),
    ModelFamily("ernie-x1", r"ernie-x1", _REASONING),
    ModelFamily("seed-2.1", r"(doubao-|dola-)?seed-2[.-]1", _REASONING),
    # Names that say so: `kimi-k2-thinking`, `phi-4-reasoning-plus`, `olmo-3-32b-think`.
    ModelFamily(
        "reasoning-by-name",
        r"[^/]*[:-](?<!non-)(?<!no-)(think(ing|er)?|reason(ing|er))(?![a-z])",
        _REASONING,
    ),
    # Families on Bedrock that take raw text.
    ModelFamily(
        "bedrock-raw-text",
        r"meta\.llama|mistral\.(mistral-7b|mixtral|mistral-(large|small)-2402)|"
        r"amazon\.titan-(text|tg1)|cohere\.command-(text|light)",
        _RAW_TEXT,
    ),
)
# Vendors whose names some hosts join by a hyphen: Databricks, Cerebras, Mistral.
_HYPHENATED = "databricks|deepseek-ai|minimaxai|moonshotai|nvidia|openai|zai|zai-org"
_VENDOR = rf"(?:^|[./])(?:(?:{_HYPHENATED})-)?"
_PATTERNS = tuple(
    (re.compile(f"{_VENDOR}(?:{family.pattern})"), family) for family in FAMILIES
)


def describe_model(name: str, info: Mapping[str, Any]) -> ModelCapabilities:
    """The capabilities of the model *name*; its target's *info* overrides some."""
    family = find_family(name)
    model = family.model if family else _UNKNOWN
    return replace(model, **info) if info else model


_UNKNOWN = ModelCapabilities()


def find_family(name: str) -> ModelFamily | None:
    """The row of the model *name*, in any host's spelling."""
    return _find_family(name[:_MAX_NAME])


# Characters of a name that count. Callers choose names: neither the time that all
# patterns take, nor the cache, may grow with them.
_MAX_NAME = 200


@lru_cache(1024)
def _find_family(name: str) -> ModelFamily | None:
    # Fireworks writes `kimi-k2p6`, and some hosts `deepseek_r1`.
    spelled = _POINT.sub(".", name.lower().replace("_", "-"))
    matches = (family for pattern, family in _PATTERNS if pattern.search(spelled))
    return next(matches, None)


_POINT = re.compile(r"(?<=\d)p(?=\d)")
