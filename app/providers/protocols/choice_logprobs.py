"""The log probabilities of a choice in the legacy shape: repaired, and checked.

They are part of what was asked for: without them, or with those of the answer in place
of those of the prompt, an evaluation goes wrong in silence. So such an answer is
refused, by the same rule as that of a chat (core/post_processing.py).
"""

from collections.abc import Mapping
from typing import Any

from ...core.completion import Usage
from ...core.post_processing import NO_LOGPROBS
from ...core.request import Prompt
from ...errors import UpstreamProtocol
from ..parsing.logprobs import LogprobsConverter, is_legacy_shape, token_bytes
from ..upstream_request import UpstreamRequest

NO_PROMPT_LOGPROBS = (
    "upstream sent no log probabilities of the prompt, though 'echo' and 'logprobs' "
    "ask for them"
)


class ChoiceLogprobs:
    """Those of the choice with this *index*: of a whole answer, or of its frames in
    order.
    """

    def __init__(self, upstream: UpstreamRequest, index: int) -> None:
        request = upstream.request
        self._is_requested = request.logprobs is not None
        # Choices come prompt by prompt, n for each.
        prompt = request.prompts[index // request.n % len(request.prompts)]
        start = 0 if request.echo or not isinstance(prompt, str) else len(prompt)
        self._converter = LogprobsConverter(start, request.logprobs or 0)
        self._prompt_scores = PromptScores(prompt if request.echo else None)
        self._has_text = self._has_tokens = False

    def repair(self, choice: dict[str, Any]) -> bool:
        """Give *choice*, or a part of it, the legacy shape. True if anything changed.

        Raises UpstreamProtocol for what cannot be repaired.
        """
        received = choice["logprobs"]
        if not self._is_requested:
            # Clients that read what they did not ask for expect the legacy shape.
            if received is None or is_legacy_shape(received):
                return False
            choice["logprobs"] = None
            return True
        text = choice["text"]
        repaired = self._converter.read(received, text, choice.get("top_logprobs"))
        choice["logprobs"] = repaired
        self._has_text |= bool(text)
        self._has_tokens |= repaired is not None
        self._prompt_scores.add(text, repaired or {})
        return repaired is not received

    def check(self, usage: Usage | None = None) -> None:
        """Raise UpstreamProtocol unless all that were requested have come.

        *usage* is what the provider has counted for this choice alone.
        """
        if not self._is_requested:
            return
        if self._prompt_scores.are_missing(usage):
            raise UpstreamProtocol(NO_PROMPT_LOGPROBS)
        if self._has_text and not self._has_tokens:
            raise UpstreamProtocol(NO_LOGPROBS)


class PromptScores:
    """Whether the scores of a choice are those of its *prompt* and its text, or lack
    some of the prompt's. Servers have sent those of the text alone in silence:
    ggml-org/llama.cpp#27174.

    Only what shows that some are missing counts. The text of tokens is no measure: a
    token that is a part of a character is "" or U+FFFD in many engines, and others
    escape it, as OpenAI does (`bytes:\\xe4`).
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._texts: list[str] = []
        self._tokens: list[str] = []
        self._offsets: list[Any] = []

    def add(self, text: str, logprobs: Mapping[str, Any]) -> None:
        """Add the next piece of text, with its tokens.

        Raises UpstreamProtocol if the first token begins behind the prompt already.
        """
        if not self._prompt:
            return
        is_first = not self._tokens
        self._texts.append(text)
        self._tokens += logprobs.get("tokens") or ()
        self._offsets += logprobs.get("text_offset") or ()
        if is_first and self._begin_behind_prompt():
            raise UpstreamProtocol(NO_PROMPT_LOGPROBS)

    def are_missing(self, usage: Usage | None) -> bool:
        """Whether the scores are shown to lack some of the prompt's."""
        prompt, tokens = self._prompt, self._tokens
        if not prompt:
            return False
        if not tokens:
            return True
        joined = b"".join(map(token_bytes, tokens))
        if isinstance(prompt, str) and joined.startswith(_encoded(prompt)):
            return False
        prompt_tokens = 0 if isinstance(prompt, str) else len(prompt)
        completion_tokens = None
        if usage and not usage.estimated:
            prompt_tokens = prompt_tokens or usage.prompt_tokens
            # Hidden reasoning has no scores.
            completion_tokens = usage.completion_tokens - usage.reasoning_tokens
        if _too_few(len(tokens), prompt_tokens, completion_tokens):
            return True
        if not isinstance(prompt, str):
            return False
        text = joined.decode("utf-8", "replace")
        return _is_short(text, len(tokens), prompt) or self._are_of_other_text(prompt)

    def _begin_behind_prompt(self) -> bool:
        prompt = self._prompt
        # Where a prompt of token ids ends in characters is not known.
        return (
            isinstance(prompt, str)
            and bool(self._offsets)
            and type(self._offsets[0]) is int
            and self._offsets[0] >= len(prompt)
        )

    def _are_of_other_text(self, prompt: str) -> bool:
        """Whether they are those of a text without the *prompt*.

        Engines may change blanks when they write a prompt again.
        """
        text = "".join(self._texts)
        is_echoed = "".join(prompt.split()) in "".join(text.split())
        return not is_echoed and "".join(self._tokens) == text


def _too_few(tokens: int, prompt_tokens: int, completion_tokens: int | None) -> bool:
    """Whether so many *tokens* cannot be those of prompt and completion.

    Engines leave out the token at the beginning of a text, or that at its end: so one
    or two may be missing.
    """
    if tokens < prompt_tokens - (prompt_tokens > 2):
        return True
    # No more than the completion has by itself.
    return (
        completion_tokens is not None
        and prompt_tokens > 2
        and tokens <= completion_tokens
    )


def _is_short(text: str, tokens: int, prompt: str) -> bool:
    """Whether so many *tokens* that make up *text* cannot be all of the *prompt*'s.

    What a token loses is a part of a character at its beginning or end: never ASCII,
    and one character for each token at most. Some engines drop blanks besides.
    """
    visible, of_prompt = "".join(text.split()), "".join(prompt.split())
    if len(visible) + tokens < len(of_prompt):
        return True
    return _ascii_length(visible) < _ascii_length(of_prompt)


def _ascii_length(text: str) -> int:
    return len(text.encode("ascii", "ignore"))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
