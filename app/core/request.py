"""The body of a completion request, validated, as a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

# One document to continue: text, token ids, or None for "no document at all".
Prompt = str | Sequence[int] | None

# What the endpoint assumes for a parameter that is absent.
DEFAULTS: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "presence_penalty": 0,
    "temperature": 1,
    "top_p": 1,
}


@dataclass(frozen=True)
class CompletionRequest:
    """A completion request.

    *prompt* is as on the wire: one prompt, or a list of prompts. *params* holds every
    other parameter of the body, by its name on the wire and without nulls; the
    properties below read those that the gateway itself interprets. *defaults* are
    values that the gateway adds. *id* and *created* (Unix seconds) are those of the
    answer where upstream sends none.
    """

    model: str
    prompt: Any
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str = "cmpl-"
    created: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts one by one, from any of the four forms on the wire."""
        batch = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        return tuple(self.prompt) if batch else (self.prompt,)

    @property
    def n(self) -> int:
        """Completions for each prompt."""
        return int(self.params.get("n", 1))

    @property
    def drawn(self) -> int:
        """Candidates to generate for each prompt, of which the best *n* are kept."""
        return max(int(self.params.get("best_of", 0)), self.n)

    @property
    def stream(self) -> bool:
        return bool(self.params.get("stream", False))

    @property
    def stream_options(self) -> Mapping[str, Any]:
        return self.params.get("stream_options") or {}

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options.get("include_usage"))

    @property
    def continuous_usage(self) -> bool:
        """Usage on every chunk: an extension of vLLM and SGLang."""
        return bool(self.stream_options.get("continuous_usage_stats"))

    @property
    def echo(self) -> bool:
        return bool(self.params.get("echo", False))

    @property
    def logprobs(self) -> int | None:
        return self.params.get("logprobs")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences, from either form on the wire."""
        stop = self.params.get("stop") or ()
        return (stop,) if isinstance(stop, str) else tuple(stop)

    @property
    def max_tokens(self) -> int | None:
        return self.params.get("max_tokens")

    @property
    def suffix(self) -> str | None:
        return self.params.get("suffix")
