"""The table of models: one model is the same at every host, however it is spelled."""

import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.routing import CompletionMode
from app.planning.capabilities import FAMILIES, describe_model, find_family
from tools.facts import FACTS, read_facts

from ..providers import harness

OWN = {"base_url": None}
EXAMPLES = [
    (fact.name, example)
    for fact in read_facts(FACTS.read_text().splitlines())
    for example in fact.examples
]


# Rows


@pytest.mark.parametrize("family, name", EXAMPLES, ids=lambda value: str(value))
def test_examples_match_their_row(family: str, name: str) -> None:
    row = find_family(name)

    assert row and row.name == family


def test_each_row_has_examples() -> None:
    assert {family for family, _ in EXAMPLES} == {family.name for family in FAMILIES}


# Spellings

# What hosts put before a name, and behind it: Fireworks, Workers AI, OpenRouter,
# Hugging Face's router, SiliconFlow, Vertex AI, Ollama, Google, and their variants.
PREFIXES = (
    "",
    "vendor/",
    "accounts/fireworks/models/",
    "@cf/vendor/",
    "~vendor/",
    "openrouter/vendor/",
    "Pro/vendor/",
    "hf.co/unsloth/",
    "models/",
    "publishers/vendor/models/",
    "us.vendor.",
    "global.vendor.",
)
SUFFIXES = (
    "",
    ":free",
    ":nitro",
    ":batch",
    ":latest",
    ":q4_K_M",
    ":fireworks-ai",
    "-fp8",
    "-FP8",
    "-NVFP4",
    "-maas",
    "-turbo",
    "-fast",
    "-us",
    "-GGUF",
    "-v1:0",
    "@20250101",
    "@001",
    "-20261127",
)
# Some names end in a part that only bare ones have, or mean one host of all.
MODELS = (
    "DeepSeek-R1",
    "deepseek-r1-distill-llama-70b",
    "deepseek-flash",
    "deepseek-v4.1-flash",
    "DeepSeek-V4-Pro",
    "DeepSeek-V3.2",
    "deepseek-chat",
    "kimi-k2.6",
    "kimi-k2-thinking",
    "Kimi-K2-Instruct",
    "glm-5.3-flash",
    "MiniMax-M3",
    "minimax-m2.7",
    "magistral-medium-2509",
    "mistral-medium-3.5",
    "sonar-reasoning-pro",
    "sonar-deep-research",
    "sonar-pro",
    "QwQ-32B",
    "qwen3-235b-a22b-thinking-2507",
    "qwen3-235b-a22b-instruct-2507",
    "qwen3-32b",
    "qwen3-max",
    "qwen3.7-plus",
    "phi-4-reasoning",
    "phi-4",
    "nemotron-3-nano-30b-a3b",
    "step-3.5-flash",
    "mimo-v2.5-pro",
    "gpt-oss-120b",
    "claude-opus-4-8",
    "claude-sonnet-4-5",
    "gpt-4o",
    "llama-3.3-70b-instruct",
)


@pytest.mark.parametrize("model", MODELS)
def test_spellings_have_same_capabilities(model: str) -> None:
    expected = describe_model(model, {})
    spellings = [
        prefix + spelled + suffix
        for prefix, suffix in product(PREFIXES, SUFFIXES)
        for spelled in (model, model.lower(), model.upper())
    ]

    assert [s for s in spellings if describe_model(s, {}) != expected] == []


@pytest.mark.parametrize("model", [name for name in MODELS if "." in name])
def test_fireworks_point_means_version(model: str) -> None:
    """Its names have a p where others have a point: kimi-k2p6, glm-5p3-flash."""
    spelled = f"accounts/fireworks/models/{model.lower().replace('.', 'p')}"

    assert describe_model(spelled, {}) == describe_model(model, {})


@given(st.sampled_from(MODELS), st.sampled_from(SUFFIXES), st.data())
def test_case_and_joints_mean_nothing(
    model: str, suffix: str, data: st.DataObject
) -> None:
    """Any letter may be a capital, and any hyphen an underscore."""
    drawn = [
        data.draw(st.sampled_from(sorted({c.lower(), c.upper()} | ({"_"} & {c}))))
        for c in model + suffix
    ]
    joined = [data.draw(st.sampled_from("-_")) if c == "-" else c for c in drawn]

    assert describe_model("".join(joined), {}) == describe_model(model, {})


def test_long_names_take_no_time() -> None:
    """A caller chooses the name: no pattern may be quadratic in it."""
    names = ["." * 100_000, "-think/" * 20_000, "qwen3-32b" * 20_000, "a-" * 50_000]
    started = time.perf_counter()
    for name in names:
        describe_model(name, {})

    assert time.perf_counter() - started < 0.5


# The floor of max_tokens


@pytest.mark.parametrize(
    "model",
    [
        "deepseek-chat",
        "deepseek-ai/DeepSeek-V3",
        "deepseek-ai/DeepSeek-V3.1",
        "accounts/fireworks/models/deepseek-v3p2",
        "deepseek-ai/DeepSeek-Prover-V2-671B",
        "mistral-small-latest",
        "mistral-medium-3-5",
        "sonar",
        "sonar-pro",
        "moonshotai/kimi-k2",
        "moonshotai/Kimi-K2-Instruct-0905",
        "Qwen/Qwen3-235B-A22B-Instruct-2507",
        "qwen/qwen3-235b-a22b-2507",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "Qwen/Qwen3-4B-Base",
        "qwen3-max",
        "qwen-plus",
        "Qwen/Qwen3-Embedding-8B",
        "qwen2.5-72b-instruct",
        "minimax/minimax-01",
        "xiaomi/mimo-v2-flash",
        "thudm/glm-4-9b-chat",
        "glm-4-32b-0414-128k",
        "nvidia/llama-3.1-nemotron-70b-instruct",
        "nemotron-4-340b-instruct",
        "microsoft/phi-4",
        "grok-4-fast-non-reasoning",
        "some-model-non-thinking",
        "inclusionai/ling-2.6-flash",
        "claude-sonnet-4-5@20250929",
        "gpt-5.1",
        "thinkingmachines/some-model",
    ],
)
def test_optional_reasoning_has_no_floor(model: str) -> None:
    assert describe_model(model, {}).token_floor == 0


@pytest.mark.parametrize(
    "provider, model",
    [
        ("deepseek", "deepseek-flash"),
        ("groq", "deepseek-r1-distill-llama-70b"),
        ("bedrock", "us.deepseek.r1-v1:0"),
        ("mistral-ai", "magistral-medium-latest"),
        ("moonshot", "kimi-k2-thinking-turbo"),
        ("dashscope", "qwen3-235b-a22b-thinking-2507"),
        ("siliconflow", "Pro/deepseek-ai/DeepSeek-R1"),
        ("huggingface", "MiniMaxAI/MiniMax-M3:together"),
        ("workers-ai", "@cf/qwen/qwq-32b"),
        ("z-ai", "glm-5.3-flash"),
        ("x-ai", "grok-4.6"),
    ],
)
def test_reasoning_model_gets_token_floor(provider: str, model: str) -> None:
    to = OWN | {"via": CompletionMode.CHAT}
    result = harness.plan(provider, to=to, model=model, max_tokens=16)

    assert result.parts[0].request.max_tokens == 1024
    assert "raised from 16 to 1024" in result.warnings[0]


# Modes


@pytest.mark.parametrize(
    "provider, model, expected",
    [
        ("deepseek", "deepseek-flash", "chat"),
        ("deepseek", "deepseek-v4-flash", "chat"),
        ("deepseek", "deepseek-reasoner", "chat"),
        ("deepseek", "deepseek-v4-pro", "native"),
        ("deepseek", "deepseek-chat", "native"),
        ("together-ai", "deepseek-ai/DeepSeek-V4.1-Flash", "chat"),
        (
            "fireworks-ai",
            "accounts/fireworks/models/deepseek-v4p1-flash-1017",
            "chat",
        ),
        ("mistral-ai", "magistral-medium-latest", "chat"),
        ("together-ai", "deepseek-ai/DeepSeek-R1", "native"),
    ],
)
def test_renamed_model_keeps_mode(provider: str, model: str, expected: str) -> None:
    assert harness.plan(provider, to=OWN, model=model).mode == expected


def test_suffix_selects_infilling_of_flash() -> None:
    result = harness.plan("deepseek", to=OWN, model="deepseek-flash", suffix="end")

    assert result.mode == "native"
