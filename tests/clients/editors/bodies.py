"""Bodies as Continue and SillyTavern send them.

Continue, in https://github.com/continuedev/continue below core/: llm/llms/OpenAI.ts
(the legacy endpoint: its fields, and that the stops are cut to four only for hosts that
it knows by name), autocomplete/templating/AutocompleteTemplate.ts and getStopTokens.ts
(the stop sequences of each family of models, and of all).

SillyTavern, in https://github.com/SillyTavern/SillyTavern:
public/scripts/textgen-settings.js (the fields of each kind of server), public/script.js
(stop sequences: names, marks of the instruct template, and the user's own),
src/constants.js (the fields that are left for OpenAI, vLLM and OpenRouter).
"""

from typing import Any

# Continue

_COMMON_STOPS = ["\n\n", "\r\n\r\n", "/src/", "#- coding: utf-8", "```"]
_QWEN_STOPS = [
    f"<|{name}|>"
    for name in (
        "endoftext",
        "fim_prefix",
        "fim_middle",
        "fim_suffix",
        "fim_pad",
        "repo_name",
        "file_sep",
        "im_start",
        "im_end",
    )
]
_DEEPSEEK_STOPS = [
    "<｜fim▁begin｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁end｜>",
    "//",
    "<｜end▁of▁sentence｜>",
]
_STARCODER_STOPS = [
    "<fim_prefix>",
    "<fim_suffix>",
    "<fim_middle>",
    "<file_sep>",
    "<|endoftext|>",
    "</fim_middle>",
    "</code>",
]


def _continue(model: str, stop: list[str], prompt: str, **more: Any) -> dict[str, Any]:
    # Fields that are undefined in the program are absent in its JSON.
    return {
        "model": model,
        "prompt": prompt,
        "max_tokens": 4096,
        "temperature": 0.01,
        "stop": stop,
        **more,
    }


CONTINUE: dict[str, dict[str, Any]] = {
    "qwen": _continue(
        "qwen2.5-coder:7b",
        [*_QWEN_STOPS, *_COMMON_STOPS],
        "<|fim_prefix|>def add(a, b):\n    <|fim_suffix|>\n<|fim_middle|>",
    ),
    "deepseek": _continue(
        "deepseek-coder:6.7b",
        [*_DEEPSEEK_STOPS, *_COMMON_STOPS],
        "<｜fim▁begin｜>def add(a, b):\n    <｜fim▁hole｜>\n<｜fim▁end｜>",
    ),
    "starcoder2": _continue(
        "starcoder2:3b",
        [*_STARCODER_STOPS, *_COMMON_STOPS, "t.", "\nt", "<file_sep>"],
        "<fim_prefix>def add(a, b):\n    <fim_suffix>\n<fim_middle>",
    ),
    "known host": _continue("gpt-3.5-turbo-instruct", _QWEN_STOPS[:4], "def add("),
    "reasoning": {
        "model": "a-model",
        "prompt": "def add(",
        "max_completion_tokens": 2048,
        "temperature": 0.5,
        "top_p": 0.9,
        "frequency_penalty": 0,
        "presence_penalty": 0,
    },
}

# SillyTavern

_NAMES = ["\nUser:", "\nSeraphina:", "\nThe Innkeeper:", "\nGuard #2:"]
_STOPS = [
    *_NAMES,
    "<|im_end|>",
    "\n<|im_start|>user",
    "\n<|im_start|>assistant",
    "\n<|im_start|>system",
    "\n***",
]
_PROMPT = "The tavern is full tonight.\nUser: Good evening!\nSeraphina:"
_OF_OPENAI: dict[str, Any] = {
    "model": "a-model",
    "prompt": _PROMPT,
    "max_tokens": 350,
    "temperature": 1.25,
    "top_p": 0.98,
    "frequency_penalty": 0.2,
    "presence_penalty": 0,
}
# What every server gets that SillyTavern knows no fields of.
_OF_ALL: dict[str, Any] = {
    **_OF_OPENAI,
    "max_new_tokens": 350,
    "typical_p": 1,
    "typical": 1,
    "min_p": 0.05,
    "repetition_penalty": 1.05,
    "top_k": -1,
    "skew": 0,
    "min_tokens": 0,
    "add_bos_token": True,
    "smoothing_factor": 0,
    "smoothing_curve": 1,
    "dry_allowed_length": 2,
    "dry_multiplier": 0,
    "dry_base": 1.75,
    "dry_sequence_breakers": '["\\n", ":", "\\"", "*"]',
    "dry_penalty_last_n": 0,
    "max_tokens_second": 0,
    "stopping_strings": _STOPS,
    "stop": _STOPS,
    "truncation_length": 8192,
    "ban_eos_token": False,
    "skip_special_tokens": True,
    "include_reasoning": True,
    "top_a": 0,
    "tfs": 1,
    "mirostat_mode": 0,
    "mirostat_tau": 5,
    "mirostat_eta": 0.1,
    "custom_token_bans": "",
    "banned_strings": [],
    "xtc_threshold": 0.1,
    "xtc_probability": 0,
    "nsigma": 0,
    "top_n_sigma": 0,
    "min_keep": 0,
    "adaptive_target": -0.01,
    "adaptive_decay": 0.9,
}
_OF_OTHERS: dict[str, Any] = {
    "rep_pen": 1.05,
    "rep_pen_range": 0,
    "repetition_penalty_range": 0,
    "guidance_scale": 1,
    "negative_prompt": "",
    "repeat_penalty": 1.05,
    "repeat_last_n": 0,
    "n_predict": 350,
    "num_predict": 350,
    "num_ctx": 8192,
    "mirostat": 0,
    "ignore_eos": False,
    "n_probs": 10,
    "rep_pen_slope": 0,
}

SILLYTAVERN: dict[str, dict[str, Any]] = {
    "generic": {**_OF_OPENAI, "stop": _STOPS[:4], "seed": 42, "n": 1},
    "openrouter": {
        **_OF_OPENAI,
        "stop": _STOPS,
        "top_k": 0,
        "repetition_penalty": 1,
        "min_p": 0,
        "top_a": 0,
        "include_reasoning": True,
    },
    "vllm": {
        **_OF_OPENAI,
        "stop": _STOPS,
        "n": 1,
        "top_k": -1,
        "min_p": 0.05,
        "repetition_penalty": 1.05,
        "min_tokens": 0,
        "skip_special_tokens": True,
        "ignore_eos": False,
        "spaces_between_special_tokens": True,
    },
    "llama.cpp": {
        **_OF_ALL,
        **_OF_OTHERS,
        "n": 1,
        "samplers": ["penalties", "dry", "top_k", "top_p", "min_p", "temperature"],
        "logit_bias": [],
        "grammar": "",
        "cache_prompt": True,
        "dry_sequence_breakers": ["\n", ":", '"', "*"],
        "api_type": "llamacpp",
        "api_server": "http://127.0.0.1:8080",
    },
    "llama.cpp with bans": {
        **_OF_ALL,
        **_OF_OTHERS,
        "n": 1,
        "logit_bias": [[15043, 2.5], [2, False]],
        "grammar": "",
        "cache_prompt": True,
    },
    "text-generation-webui": {
        **_OF_ALL,
        **_OF_OTHERS,
        # The slider for the temperature ends at 5.
        "temperature": 3.5,
        "min_length": 0,
        "num_beams": 1,
        "length_penalty": 1,
        "early_stopping": False,
        "encoder_repetition_penalty": 1,
        "no_repeat_ngram_size": 0,
        "penalty_alpha": 0,
        "temperature_last": True,
        "do_sample": True,
        "seed": -1,
        "epsilon_cutoff": 0,
        "eta_cutoff": 0,
        "sampler_priority": ["temperature", "dynamic_temperature", "top_k"],
    },
    "nulls": {
        **_OF_OPENAI,
        "stop": _STOPS[:2],
        "logprobs": None,
        "logit_bias": None,
        "seed": None,
        "suffix": "",
        "user": None,
        "grammar_string": None,
        "json_schema": None,
    },
    "no limit": {**_OF_OPENAI, "max_tokens": -1, "n_predict": -1, "stop": _STOPS},
}

# What OpenAI itself refuses of these, as the first fault of the body.
REFUSED_BY_OPENAI = {
    "qwen": "stop",
    "deepseek": "stop",
    "starcoder2": "stop",
    "openrouter": "stop",
    "vllm": "stop",
    "llama.cpp": "logit_bias",
    "llama.cpp with bans": "logit_bias",
    "text-generation-webui": "stop",
    "no limit": "stop",
}
