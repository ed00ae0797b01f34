"""A completion, whole or one chunk of a stream: both have the same form on the wire.

Source: CreateCompletionResponse in https://github.com/openai/openai-openapi
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
        # The first token of a prompt has none.
        values = [value for value in self.token_logprobs if value is not None]
        return sum(values) / len(values) if values else float("-inf")

    def __add__(self, other: "Logprobs") -> "Logprobs":
        """These tokens, followed by those of *other*."""
        return Logprobs(
            [*self.tokens, *other.tokens],
            [*self.token_logprobs, *other.token_logprobs],
            [*self.top_logprobs, *other.top_logprobs],
            [*self.text_offset, *other.text_offset],
        )

    def first(self, count: int) -> "Logprobs":
        """The first *count* tokens."""
        return self._slice(slice(count))

    def after(self, count: int) -> "Logprobs":
        """All but the first *count* tokens."""
        return self._slice(slice(count, None))

    def without(self, hidden: int, start: int) -> "Logprobs":
        """The tokens after the first *hidden* characters from *start* on.

        Their offsets are moved, as if those characters had never been generated.
        """
        # A token that begins in the hidden text and ends behind it is hidden, too.
        count = sum(offset < start + hidden for offset in self.text_offset)
        rest = self.after(count)
        offsets = [offset - hidden for offset in rest.text_offset]
        return replace(rest, text_offset=offsets)

    def _slice(self, tokens: slice) -> "Logprobs":
        return Logprobs(
            self.tokens[tokens],
            self.token_logprobs[tokens],
            self.top_logprobs[tokens],
            self.text_offset[tokens],
        )

    def to_body(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "token_logprobs": list(self.token_logprobs),
            "top_logprobs": list(self.top_logprobs),
            "text_offset": list(self.text_offset),
        }


# Values like the others here, and never changed. They are not frozen, since Python
# takes 2 µs longer to make a frozen one, and each event of a stream makes both.
@dataclass(slots=True)
class Choice:
    """One choice, or a part of one. *finish_reason* is None while more follows.

    *extra* are fields of the provider's own that go to the caller.
    """

    text: str
    index: int = 0
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    extra: Mapping[str, Any] | None = None

    def to_body(self) -> dict[str, Any]:
        body = {
            "text": self.text,
            "index": self.index,
            "logprobs": self.logprobs.to_body() if self.logprobs else None,
            "finish_reason": self.finish_reason,
        }
        return {**body, **self.extra} if self.extra else body


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens: each prompt counted once, the completions summed.

    *reasoning_tokens* are those of *completion_tokens* that are not in the text,
    *cached_tokens* those of *prompt_tokens* from the provider's cache, which cost less.
    *repeated_tokens* are of prompts that were sent again for another choice: paid for,
    and not reported. *estimated* if the provider did not count one of the two parts.

    Zero tokens of a prompt or a text that is not empty mean that nobody counted them:
    providers leave out a part, and send null, zeros or worse in its place.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    repeated_tokens: int = 0
    estimated: bool = False

    @property
    def paid_tokens(self) -> int:
        """All tokens that are paid for."""
        return self.paid_prompt_tokens + self.completion_tokens

    @property
    def paid_prompt_tokens(self) -> int:
        """Those of prompts, each time that one was sent."""
        return self.prompt_tokens + self.repeated_tokens

    def of_repeated_prompt(self) -> "Usage":
        """The same, for a call whose prompt another call has counted already."""
        return replace(
            self,
            prompt_tokens=0,
            cached_tokens=0,
            repeated_tokens=self.prompt_tokens,
        )

    def updated(self, later: "Usage") -> "Usage":
        """What *later* has counted, and these counts for the rest.

        A provider may count the prompt in one event and the completion in another, or
        all in each: the counts of an event are totals so far.
        """
        prompt = later if later.prompt_tokens else self
        completion = later if later.completion_tokens else self
        return Usage(
            prompt.prompt_tokens,
            completion.completion_tokens,
            completion.reasoning_tokens,
            prompt.cached_tokens,
            prompt.repeated_tokens,
            self.estimated or later.estimated,
        )

    def with_estimates(self, prompt_tokens: int, completion_tokens: int) -> "Usage":
        """These counts, and the estimates in place of parts that nobody counted."""
        prompt_tokens = self.prompt_tokens or max(prompt_tokens, self.cached_tokens)
        completion_tokens = self.completion_tokens or max(
            completion_tokens, self.reasoning_tokens
        )
        if (prompt_tokens, completion_tokens) == (
            self.prompt_tokens,
            self.completion_tokens,
        ):
            return self
        return replace(
            self,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            estimated=True,
        )

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
            self.repeated_tokens + other.repeated_tokens,
            self.estimated or other.estimated,
        )

    def to_body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }
        if self.reasoning_tokens:
            details = {"reasoning_tokens": self.reasoning_tokens}
            body["completion_tokens_details"] = details
        if self.cached_tokens:
            body["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        return body


def estimate(text: str) -> int:
    """About how many tokens a text has: one for four bytes."""
    # Bytes, since tokens of other scripts than Latin have fewer characters. Rounded up:
    # a chunk of a stream is one token at least.
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


@dataclass(slots=True)
class Completion:
    """An answer, or one chunk of a streamed answer.

    *created* is in Unix seconds. *warnings* are sent in a header, not in the body.
    *extra* are fields of the provider's own that go to the caller.
    """

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None

    def to_body(self) -> dict[str, Any]:
        """The completion as JSON, `usage` included when there is one."""
        body = self.to_chunk(include_usage=False)
        if self.usage is not None:
            body["usage"] = self.usage.to_body()
            # A field of the gateway's own, beside `usage`, whose form is fixed.
            if self.usage.estimated:
                body["usage_estimated"] = True
        return body

    def to_chunk(self, *, include_usage: bool) -> dict[str, Any]:
        """The chunk as JSON.

        With *include_usage*, `usage` is null in every chunk but the last; without, no
        chunk has the key.
        """
        if include_usage:
            body = self.to_body()
            body.setdefault("usage", None)
            return body
        body = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice.to_body() for choice in self.choices],
        }
        return {**body, **self.extra} if self.extra else body
