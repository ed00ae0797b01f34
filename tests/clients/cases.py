"""The requests for every client, and the report of its answers.

It runs in each client's environment, so it uses the standard library only.
"""

import json
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

# Takes the endpoint's parameters, returns a completion as a dict; streamed, its chunks.
Create = Callable[..., Any]

MODEL = "gpt-3.5-turbo-instruct"
MAX_TOKENS = 8
# The embedded model continues these without a close call: its choice of each token
# leads by 0.3 nats or more, so that rounding, which differs in a batch, cannot turn it.
PROMPTS = [
    "The capital of France is",
    "One, two, three, four,",
    "A B C D E F",
    "2, 4, 6, 8,",
    "The sun rises in the east and sets in the",
]

# To a provider that needs a key, without one: an empty header takes the place of the
# key that most clients insist on.
KEYLESS = {"x-portkey-provider": "openai", "Authorization": ""}

REQUESTS: dict[str, dict[str, Any]] = {
    "whole": {"prompt": PROMPTS[0]},
    "other": {"prompt": PROMPTS[1]},
    "stream": {"prompt": PROMPTS[0], "stream": True},
    "batch": {"prompt": PROMPTS[:2]},
    "two": {"prompt": PROMPTS[0], "n": 2},
    "logprobs": {"prompt": PROMPTS[0], "logprobs": 3},
    "echo": {"prompt": PROMPTS[0], "echo": True},
    "too_hot": {"prompt": PROMPTS[0], "temperature": 3},
}


def base_url() -> str:
    """The base URL, from the script's argument."""
    return sys.argv[1] + "/v1"


def report(
    distribution: str,
    create: Create,
    keyless: Create,
    error: type[Exception],
    **own: Any,
) -> None:
    """Send everything in ASKED, and print the answers and the client's *own* cases.

    *keyless* is *create*, sending KEYLESS. *error* is the base of the errors that the
    client raises for an answer with an error status.
    """
    cases = {case: _answer(create, error, params) for case, params in REQUESTS.items()}
    cases["no_key"] = _answer(keyless, error, {"prompt": PROMPTS[0]})
    print(json.dumps({"version": version(distribution), **cases, **own}))


def _answer(create: Create, error: type[Exception], params: dict[str, Any]) -> Any:
    common = {"model": MODEL, "max_tokens": MAX_TOKENS, "temperature": 0}
    try:
        answer = create(**common | params)
        return _joined(answer) if params.get("stream") else answer
    except error as e:
        return _failure(e)


def _joined(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return {
        "text": "".join(choice["text"] for choice in choices),
        "chunks": len(choices),
        "finish_reason": choices[-1]["finish_reason"],
    }


def _failure(error: Exception) -> dict[str, Any]:
    """The public fields of *error*; openai 0.28 names one differently."""
    fields = {name: getattr(error, name, None) for name in ("param", "code")}
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    kind = type(error).__name__
    return {"class": kind, "status": status, "message": str(error), **fields}


def completions(client: Any) -> Create:
    """*client*'s completions, if it has the interface of openai 1.0 and later."""

    def create(**params: Any) -> Any:
        answer = client.completions.create(**params)
        if params.get("stream"):
            return (chunk.model_dump() for chunk in answer)
        return answer.model_dump()

    return create
