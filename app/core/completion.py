"""A completion, whole or a piece of one: both have the same shape on the wire.

Source: CreateCompletionResponse in https://github.com/openai/openai-openapi
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Four parallel lists, an entry for each token.

    *text_offset* counts characters (code points) from the start of the prompt.
    """

    tokens: Sequence[str] = ()
    token_logprobs: Sequence[float | None] = ()
    top_logprobs: Sequence[Mapping[str, float] | None] = ()
    text_offset: Sequence[int] = ()

    @property
    def mean(self) -> float:
        """The mean log probability of a token; minus infinity without tokens."""
        known = [value for value in self.token_logprobs if value is not None]
        return sum(known) / len(known) if known else float("-inf")

    def to_body(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "token_logprobs": list(self.token_logprobs),
            "top_logprobs": list(self.top_logprobs),
            "text_offset": list(self.text_offset),
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation. *finish_reason* is None while more of it is to come."""

    text: str
    index: int = 0
    logprobs: Logprobs | None = None
    finish_reason: str | None = None

    def to_body(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "index": self.index,
            "logprobs": self.logprobs.to_body() if self.logprobs else None,
            "finish_reason": self.finish_reason,
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens: each prompt counted once, the completions summed."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def to_body(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, or one chunk of a streamed answer. *created* is in Unix seconds."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None

    def to_body(self) -> dict[str, Any]:
        """The completion as JSON, `usage` included when there is one."""
        body = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice.to_body() for choice in self.choices],
        }
        return body | {"usage": self.usage.to_body()} if self.usage else body

    def to_chunk(self, *, include_usage: bool) -> dict[str, Any]:
        """The chunk as JSON; `usage` is null until the last one, if it was asked for.

        The key is absent from every chunk when it was not.
        """
        body = self.to_body()
        if not include_usage:
            body.pop("usage", None)
            return body
        return body | {"usage": body.get("usage")}
