"""Examples of requests and answers. A test validates them against the schemas."""

from typing import Any

WHOLE: dict[str, Any] = {
    "model": "gpt-3.5-turbo-instruct",
    "prompt": "The capital of France is",
    "max_tokens": 24,
}
# By the names under which Swagger UI offers them.
REQUESTS: dict[str, dict[str, Any]] = {
    "whole": {"summary": "One text", "value": WHOLE},
    "stream": {
        "summary": "One text, as it is written",
        "value": WHOLE
        | {"stream": True, "stream_options": {"include_usage": True}, "stop": "\n"},
    },
    "batch": {
        "summary": "Two choices for each of two prompts, the best of three, scored",
        "value": {
            "model": "davinci-002",
            "prompt": ["Once upon a time", "It was a dark night"],
            "n": 2,
            "best_of": 3,
            "logprobs": 2,
        },
    },
    "gap": {
        "summary": "Code between what stands before and after it",
        "value": {
            "model": "codestral-latest",
            "prompt": "def total(items):\n    ",
            "suffix": "\n    return result\n",
            "temperature": 0,
        },
    },
}

COMPLETION: dict[str, Any] = {
    "id": "cmpl-5f2c",
    "object": "text_completion",
    "created": 1795500000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [
        {"text": " Paris.", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}

# With a heartbeat, and one id and one time for all chunks.
STREAM = """\
data: {"id":"cmpl-5f2c","object":"text_completion","created":1795500000,\
"model":"gpt-3.5-turbo-instruct","choices":[{"text":" Pa","index":0,"logprobs":null,\
"finish_reason":null}]}

: keep-alive

data: {"id":"cmpl-5f2c","object":"text_completion","created":1795500000,\
"model":"gpt-3.5-turbo-instruct","choices":[{"text":"ris.","index":0,"logprobs":null,\
"finish_reason":"stop"}]}

data: [DONE]

"""

# Keys are placeholders, which no scanner for secrets takes for real ones.
CONFIG: dict[str, Any] = {
    "strategy": {"mode": "fallback", "on_status_codes": [429, 500, 502, 503]},
    "targets": [
        {"provider": "openai", "api_key": "sk-...", "retry": {"attempts": 2}},
        {"provider": "anthropic", "api_key": "sk-..."},
    ],
}
