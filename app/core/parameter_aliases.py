"""Other words for what the endpoint's own parameters say.

Unknown parameters travel on to servers that may know them. Some of those say the same
as a parameter of the endpoint: a server that reads `n_predict` draws sixty tokens where
`max_tokens` reserved three. So there is one list of such words, and one rule: a budget
in another word becomes `max_tokens` if the request has none, and is dropped and named
if it has one. What goes upstream is then one budget, in the target's own word.

Sources: the parameters of llama.cpp's server, text-generation-inference, vLLM, SGLang,
Ollama, OpenAI, Anthropic, Google, Cohere, AI21, Amazon Bedrock, IBM watsonx,
TensorRT-LLM, Replicate, Cloudflare, Mistral and OpenRouter, as their documentation has
them.
"""

from collections.abc import Mapping
from typing import Any

Params = Mapping[str, Any]

# How many tokens may be made.
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

# How many completions are drawn.
COUNT_SPELLINGS = frozenset(
    "candidate_count candidateCount num_return_sequences num_generations "
    "num_completions numCompletions num_samples num_outputs numResults n_cmpl "
    "return_sequences".split()
)

# What the gateway writes itself, of the prompt: it would be asked in its place.
PROMPT_SPELLINGS = frozenset({"messages"})

# Fields that have a provider choose among models, or load another one.
MODEL_ALTERNATIVES = frozenset(
    "models route fallbacks fallback_models model_fallbacks preset plugins model_id "
    "modelId model_name modelName model_path model_slug engine deployment "
    "deployment_id "
    "adapter adapter_id adapter_source lora lora_adapter lora_id lora_name lora_path "
    "lora_request loras base_model target_model router".split()
)

# Objects in which servers take parameters a second time.
CONTAINERS = frozenset(
    "options parameters params generation_config generationConfig sampling_params "
    "sampling_parameters inferenceConfig textGenerationConfig extra_body model_kwargs "
    "kwargs config input inputs".split()
)

_WORDS = BUDGET_SPELLINGS | COUNT_SPELLINGS | PROMPT_SPELLINGS
_OUTER = _WORDS | CONTAINERS
# Within an object the endpoint's own words are rivals as well.
_INNER = _WORDS | MODEL_ALTERNATIVES | {"max_tokens", "n", "best_of", "model"}

_LONGEST_BUDGET = 2**31


def unify_budget(params: Params) -> Params:
    """*params* with the budget as `max_tokens`, if it stands there in another word.

    Of several other words the smallest number counts. What is no number of tokens, such
    as llama.cpp's -1 for "no limit", stays where it is, for `rivals` to name.
    """
    if BUDGET_SPELLINGS.isdisjoint(params):
        return params
    if params.get("max_tokens") is not None:
        return params
    others = BUDGET_SPELLINGS & params.keys()
    budgets = [params[name] for name in others if _is_budget(params[name])]
    if not budgets:
        return params
    kept = {k: v for k, v in params.items() if k not in others or not _is_budget(v)}
    return {**kept, "max_tokens": min(budgets)}


def duplicate_params(params: Params) -> list[str]:
    """The names in *params* that say again, in other words, what others say already.

    One within an object is written with a dot: `options.num_predict`.
    """
    if _OUTER.isdisjoint(params):
        return []
    names = sorted(_WORDS & params.keys())
    for outer in sorted(CONTAINERS & params.keys()):
        value = params[outer]
        if isinstance(value, Mapping):
            names += [f"{outer}.{name}" for name in sorted(_INNER & value.keys())]
    return names


def remove_params(params: Params, names: list[str]) -> dict[str, Any]:
    """*params* without *names*, as `rivals` writes them."""
    kept = dict(params)
    for name in names:
        outer, dot, inner = name.partition(".")
        if dot:
            kept[outer] = {k: v for k, v in kept[outer].items() if k != inner}
        else:
            del kept[outer]
    return kept


def _is_budget(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LONGEST_BUDGET
