"""Aliases of parameters: other names that servers give the endpoint's own.

Unknown parameters are sent on to servers that may know them. Some are aliases of a
parameter of the endpoint: a server that reads `n_predict` generates sixty tokens where
`max_tokens` reserved three. So there is one list of aliases, and one rule: a token
limit under an alias becomes `max_tokens` if the request has none, and is dropped, and
reported, if it has one. Upstream then gets one limit, under the target's own name.

Sources: the parameters of llama.cpp's server, text-generation-inference, vLLM, SGLang,
Ollama, OpenAI, Anthropic, Google, Cohere, AI21, Amazon Bedrock, IBM watsonx,
TensorRT-LLM, Replicate, Cloudflare, Mistral and OpenRouter, as their documentation has
them.
"""

from collections.abc import Mapping
from typing import Any

from .request import NO_LIMIT

Params = Mapping[str, Any]

# Aliases of max_tokens.
BUDGET_SPELLINGS = frozenset(
    "max_completion_tokens max_new_tokens max_output_tokens max_tokens_to_sample "
    "max_tokens_to_generate max_generated_tokens max_gen_len max_generation_tokens "
    "max_gen_toks max_length max_len max_decode_steps max_response_tokens "
    "max_response_output_tokens max_answer_tokens max_sample_tokens "
    "maximum_tokens maximum_length maxTokens maxNewTokens maxOutputTokens "
    "maxCompletionTokens maxTokenCount maxLength maxTokensToSample maxGenLen "
    "n_predict nPredict n_tokens num_predict num_tokens num_tokens_to_generate "
    "output_len request_output_len response_length genlen token_limit tokens_limit "
    "tokens_to_generate length_limit gen_tokens".split()
)

# Aliases of n.
COUNT_SPELLINGS = frozenset(
    "candidate_count candidateCount num_return_sequences num_generations "
    "num_completions numCompletions num_samples num_outputs numResults n_cmpl "
    "return_sequences".split()
)

# Written by the gateway itself; a caller's would replace the prompt.
PROMPT_SPELLINGS = frozenset({"messages"})

# Fields by which a provider chooses among models, or loads another one.
MODEL_ALTERNATIVES = frozenset(
    "models route fallbacks fallback_models model_fallbacks preset plugins model_id "
    "modelId model_name modelName model_path model_slug engine deployment "
    "deployment_id "
    "adapter adapter_id adapter_source lora lora_adapter lora_id lora_name lora_path "
    "lora_request loras base_model target_model router".split()
)

# Objects in which servers accept the same parameters.
CONTAINERS = frozenset(
    "options parameters params generation_config generationConfig sampling_params "
    "sampling_parameters inferenceConfig textGenerationConfig extra_body model_kwargs "
    "kwargs config input inputs".split()
)

_ALIASES = BUDGET_SPELLINGS | COUNT_SPELLINGS | PROMPT_SPELLINGS
_CHECKED_FIELDS = _ALIASES | CONTAINERS
# Within an object the endpoint's own names are duplicates as well.
_CHECKED_IN_CONTAINERS = (
    _ALIASES | MODEL_ALTERNATIVES | {"max_tokens", "n", "best_of", "model"}
)

_MAX_BUDGET = 2**31


def unify_budget(params: Params) -> Params:
    """*params* with the token limit as `max_tokens`, if it is under an alias.

    Of several aliases the smallest number counts, and -1, which is no limit, only if
    there is no other. An alias of -1 stays, to be removed by the target's plan: to one
    that knows neither it is a parameter of another server. So does a value that is no
    number of tokens; `duplicate_params` reports both.
    """
    if BUDGET_SPELLINGS.isdisjoint(params):
        return params
    if params.get("max_tokens") is not None:
        return params
    limits = {
        name: value
        for name, value in params.items()
        if name in BUDGET_SPELLINGS and _is_budget(value)
    }
    if not limits:
        return params
    bounded = {name: value for name, value in limits.items() if value != NO_LIMIT}
    others = {name: value for name, value in params.items() if name not in bounded}
    return {**others, "max_tokens": min(bounded.values(), default=NO_LIMIT)}


def has_no_limit_alias(params: Params) -> bool:
    """Whether a token limit of -1 is under an alias in *params*."""
    return any(params[name] == NO_LIMIT for name in BUDGET_SPELLINGS & params.keys())


def _is_budget(value: Any) -> bool:
    """Whether *value* is a number of tokens, or -1 for no limit."""
    is_whole = type(value) is int or (type(value) is float and value.is_integer())
    return is_whole and NO_LIMIT <= value <= _MAX_BUDGET


def duplicate_params(params: Params) -> list[str]:
    """The names in *params* that are aliases of the endpoint's own parameters.

    One within an object is written with a dot: `options.num_predict`.
    """
    if _CHECKED_FIELDS.isdisjoint(params):
        return []
    names = sorted(_ALIASES & params.keys())
    for container in sorted(CONTAINERS & params.keys()):
        value = params[container]
        if isinstance(value, Mapping):
            names += [
                f"{container}.{name}"
                for name in sorted(_CHECKED_IN_CONTAINERS & value.keys())
            ]
    return names


def remove_params(params: Params, names: list[str]) -> dict[str, Any]:
    """*params* without *names*, as `duplicate_params` returns them."""
    remaining = dict(params)
    for name in names:
        outer, dot, inner = name.partition(".")
        if dot:
            fields = remaining[outer].items()
            remaining[outer] = {k: v for k, v in fields if k != inner}
        else:
            del remaining[outer]
    return remaining
