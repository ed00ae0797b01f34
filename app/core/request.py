"""The body of a completion request, validated, as a value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# One document to continue: text, token ids, or None for "no document at all".
Prompt = str | Sequence[int] | None

# The parameters of the legacy endpoint, besides model, prompt and stream.
LEGACY_PARAMS = (
    "best_of",
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream_options",
    "suffix",
    "temperature",
    "top_p",
    "user",
)

# The max_tokens for no limit, as llama.cpp and others have it.
NO_LIMIT = -1

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
    other parameter of the body, by its name on the wire, without nulls and in its
    canonical form; *rewritten* has what the caller wrote instead, such as 4.0 for 4.
    *defaults* are values that the gateway adds, *default_max_tokens* is the one that it
    would add in place of no limit. *id* and *created* (Unix seconds) are those of the
    answer where upstream sends none.

    The other attributes follow from *prompt* and *params*: what the gateway itself
    interprets.

    prompts           the prompts one by one, from any of the four forms on the wire
    n                 completions for each prompt
    drawn             candidates to generate for each prompt, of which the best *n* are
                      kept
    stops             the stop sequences, from either form on the wire
    max_tokens        None also for a budget without a limit, as *is_unlimited* says
    include_usage     whether a stream ends with a chunk of usage
    continuous_usage  usage on every chunk: an extension of vLLM and SGLang
    """

    model: str
    prompt: Any
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str = "cmpl-"
    created: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rewritten: Mapping[str, Any] = field(default_factory=dict)
    default_max_tokens: int | None = None

    prompts: tuple[Prompt, ...] = field(init=False, repr=False, compare=False)
    n: int = field(init=False, repr=False, compare=False)
    drawn: int = field(init=False, repr=False, compare=False)
    stream: bool = field(init=False, repr=False, compare=False)
    include_usage: bool = field(init=False, repr=False, compare=False)
    continuous_usage: bool = field(init=False, repr=False, compare=False)
    echo: bool = field(init=False, repr=False, compare=False)
    logprobs: int | None = field(init=False, repr=False, compare=False)
    stops: tuple[str, ...] = field(init=False, repr=False, compare=False)
    max_tokens: int | None = field(init=False, repr=False, compare=False)
    is_unlimited: bool = field(init=False, repr=False, compare=False)
    suffix: str | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        get, prompt = self.params.get, self.prompt
        is_batch = isinstance(prompt, list) and not isinstance(prompt[0], int)
        stop, options = get("stop") or (), get("stream_options") or {}
        max_tokens = get("max_tokens")
        n = int(get("n", 1))
        # Read here, once: every step of a request asks for some of these. A frozen
        # dataclass has no other way to set them.
        self.__dict__.update(
            prompts=tuple(prompt) if is_batch else (prompt,),
            n=n,
            drawn=max(int(get("best_of", 0)), n),
            stream=bool(get("stream", False)),
            include_usage=bool(options.get("include_usage")),
            continuous_usage=bool(options.get("continuous_usage_stats")),
            echo=bool(get("echo", False)),
            logprobs=get("logprobs"),
            stops=(stop,) if isinstance(stop, str) else tuple(stop),
            max_tokens=None if max_tokens == NO_LIMIT else max_tokens,
            is_unlimited=max_tokens == NO_LIMIT,
            suffix=get("suffix"),
        )
