"""OpenAI's chat completions, which many hosts share, and the bridge to them.

The bridge answers a completion from a chat: the prompt becomes the only message, unless
the target's `bridge` adds more, and the reply becomes the completion's text. Reasoning
that a model writes before its reply is no part of that.

Source: CreateChatCompletionRequest and -Response in
https://github.com/openai/openai-openapi
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.completion import Choice, Completion, Logprobs, Usage
from ...core.request import LEGACY_PARAMS
from ...errors import UnsupportedParameter
from ..declaration import (
    Endpoint,
    ParamMapping,
    ParamMappings,
    StreamReader,
    same_named,
)
from ..openai_rules import RANGED_PARAMS
from ..parsing import error_bodies
from ..parsing.answer_fields import (
    answer_head,
    counts_in,
    finish_reason,
    parse_usage,
)
from ..parsing.filter_results import ChoiceFilterResults, PromptFilterResults
from ..parsing.json_answers import JSONStreamReader, read_whole
from ..parsing.logprobs import LegacyLogprobs, chat_entries
from ..parsing.stream_ending import choice_indices, expected_choices
from ..parsing.think_tags import ThinkTagFilter
from ..upstream_request import HTTPRequest, UpstreamRequest

# Parameters of the legacy endpoint alone.
_LEGACY_ONLY = ("best_of", "echo", "suffix")
PARAMS: ParamMappings = {
    **same_named(*(name for name in LEGACY_PARAMS if name not in _LEGACY_ONLY)),
    **RANGED_PARAMS,
    "logprobs": ParamMapping("top_logprobs", high=20),
}

# OpenAI's own rule, of the chat alone: "Invalid 'user': string too long. Expected a
# string with maximum length 64". Hosts that share the protocol have none.
# Source: https://github.com/maximhq/bifrost/pull/1000
OPENAI_USER = ParamMapping("user", takes=lambda user: len(user) <= 64)


def endpoint(
    path: str = "/chat/completions",
    *,
    without: Sequence[str] = (),
    choices_per_call: int = 128,
    **others: Any,
) -> Endpoint:
    """OpenAI's chat endpoint at *path*, *without* some of its parameters.

    *others* are parameters that differ. Without `n` it generates one choice a call.
    """
    params = {k: v for k, v in PARAMS.items() if k not in without} | others
    return Endpoint(
        params=params,
        passes_unknown=True,
        choices_per_call=choices_per_call if "n" in params else 1,
        check=check,
        call=lambda upstream: call(upstream, path),
        completion=completion,
        reader=stream_reader,
    )


def check(upstream: UpstreamRequest) -> None:
    """Refuse a prompt that gives no message."""
    if not user_message(upstream).strip():
        raise UnsupportedParameter(
            f"Provider {upstream.provider.name} can only chat, and a chat needs a "
            "message: the prompt is empty.",
            "prompt",
        )


def user_message(upstream: UpstreamRequest) -> str:
    """The user's message."""
    prompt = upstream.request.prompt
    template = upstream.target.bridge.template
    return template.replace("{prompt}", prompt) if template else str(prompt)


def messages(upstream: UpstreamRequest) -> list[dict[str, str]]:
    """The messages of the chat, with the target's system message if it has one."""
    system = upstream.target.bridge.system
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user_message(upstream)}]


def call(upstream: UpstreamRequest, path: str) -> HTTPRequest:
    """The chat request to *path*."""
    return upstream.post(path, {"model": upstream.request.model, **request(upstream)})


def request(upstream: UpstreamRequest) -> dict[str, Any]:
    """The body of the chat, without its model."""
    body = {"messages": messages(upstream), **upstream.body()}
    if "top_logprobs" in body:
        body["logprobs"] = True
        # Some servers refuse a 0; the chosen tokens come without it, too.
        body["top_logprobs"] or body.pop("top_logprobs")
    return body | {"stream": True} if upstream.request.stream else body


# Answers


def completion(body: bytes, upstream: UpstreamRequest) -> Completion:
    """A whole chat as a completion."""
    return read_whole(body, ChatReader(upstream, whole=True).read, upstream)


def stream_reader(upstream: UpstreamRequest) -> StreamReader:
    """The chunks of a chat as chunks of a completion."""
    reader = ChatReader(upstream, whole=False)
    return JSONStreamReader(upstream, reader.read, last_chunk=reader.last_chunk)


class ChatReader:
    """Reads one answer: a *whole* one, or its chunks in order."""

    def __init__(self, upstream: UpstreamRequest, *, whole: bool) -> None:
        self._upstream = upstream
        self._whole = whole
        self._choices: dict[int, _ChoiceReader] = {}
        # The head of the last chunk: what was sent, and what that was read as.
        self._sent_head: tuple[Any, Any, Any] | None = None
        self._head = "", 0, ""
        self._prompt_results = PromptFilterResults()

    def read(self, document: dict[str, Any]) -> Completion:
        """One chunk, or the whole answer."""
        chunk = self._read_plain_text(document)
        if chunk is not None:
            return chunk
        error_bodies.raise_in_band_error(document)
        if self._whole and not document["choices"]:
            raise IndexError("no choices")
        self._prompt_results.hold(document)
        # A chunk without an id, as Azure's about its filters, names no stream.
        if document.get("id") or not self._head[0]:
            self._head = answer_head(document, self._upstream)
        sent_id, model = document.get("id"), document.get("model")
        # Only texts: among numbers, 1 equals True, and is read as another id.
        is_text = isinstance(sent_id, str | None) and isinstance(model, str | None)
        sent_head = sent_id, document.get("created"), model
        self._sent_head = sent_head if is_text else None
        choices = document.get("choices") or ()
        indices = choice_indices(
            [choice.get("index") for choice in choices],
            expected_choices(self._upstream),
            whole=self._whole,
        )
        return Completion(
            *self._head,
            choices=tuple(map(self._choice, choices, indices)),
            usage=_usage(document),
            extra=(self._prompt_results.take() or None) if choices else None,
        )

    def last_chunk(self) -> Completion:
        """What was held back when the stream has ended."""
        choices = (
            reader.read(index, {}, None, None, finished=True)
            for index, reader in self._choices.items()
        )
        return Completion(*self._head, choices=tuple(choices))

    def _read_plain_text(self, document: dict[str, Any]) -> Completion | None:
        """A chunk with more text of one choice, and nothing else; None for any other.

        A shortcut for nearly every chunk of a stream. `read` would return an equal
        chunk, and leave everything as it was: the head is the one before, whatever it
        looks for besides is absent, and the choice has begun. It saves 2 µs of the 9
        that an event takes.
        """
        get, choices = document.get, document.get("choices")
        if (
            (get("id"), get("created"), get("model")) != self._sent_head
            or get("error")
            or get("object") == "error"
            or get("x_groq")
            or get("usage")
            or not choices
            or len(choices) != 1
        ):
            return None
        (choice,) = choices
        index, message = choice.get("index") or 0, choice.get("delta")
        reader = self._choices.get(index)
        if (
            reader is None
            or not reader.passes_text
            or not message
            or choice.get("finish_reason")
            or choice.get("usage")
            or choice.get("error")
            or message.get("refusal")
        ):
            return None
        text = message.get("content")
        if type(text) is not str:
            return None
        if choice.get("content_filter_results"):
            reader.filter_results.note(choice)
        return Completion(*self._head, (Choice(text, index),))

    def _choice(self, choice: Mapping[str, Any], index: int) -> Choice:
        reader = self._choices.get(index)
        if reader is None:
            reader = self._choices[index] = _ChoiceReader(self._upstream)
        # A document in a stream's place has messages, or is the only chunk.
        is_message = bool(self._whole and choice.get("message")) or (
            "delta" not in choice
        )
        message = choice.get("message" if is_message else "delta") or {}
        reader.filter_results.note(choice)
        return reader.read(
            index,
            message,
            choice.get("logprobs"),
            choice.get("finish_reason"),
            finished=self._whole,
        )


class _ChoiceReader:
    """Reads the messages or deltas of one choice, in order."""

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._strict = upstream.target.strict
        prompt, top = upstream.request.prompt, upstream.request.logprobs
        start = len(prompt) if isinstance(prompt, str) else 0
        self._logprobs = None if top is None else _LogprobsReader(start, top)
        self._think_tags = ThinkTagFilter()
        self._has_reasoning = False
        self._refused = self._has_reason = False
        # They go out with the last chunk, since they may be about any of the text.
        self.filter_results = ChoiceFilterResults()
        # Whether text is the answer's as it comes: none of it can be reasoning any
        # more, and no log probabilities were requested, which would go with it.
        self.passes_text = False

    def read(
        self,
        index: int,
        message: Mapping[str, Any],
        logprobs: Any,
        word: Any,
        *,
        finished: bool,
    ) -> Choice:
        """A piece of the choice; if *finished*, with all that was held back.

        More may follow a finish reason (parsing/stream_ending.py).
        """
        self._refused = self._refused or bool(message.get("refusal"))
        reason = finish_reason(word, strict=self._strict) if word else None
        self._has_reason = self._has_reason or reason is not None
        if self._refused and self._has_reason:
            reason = "content_filter"
        text = text_of(message.get("content"))
        if not self._think_tags.is_over:
            text = self._think_tags.feed(text)
            text += self._think_tags.end() if finished else ""
        self._has_reasoning |= self._think_tags.has_reasoning or any(
            map(message.get, _REASONING_FIELDS)
        )
        self.passes_text = self._think_tags.is_over and self._logprobs is None
        tokens = None
        if self._logprobs:
            tokens = self._logprobs.read(
                logprobs,
                text,
                finished=finished,
                has_reasoning=self._has_reasoning,
            )
        extra = self.filter_results.fields if finished else None
        return Choice(text, index, tokens, reason, extra)


# Where servers put the reasoning when they separate it from the text.
_REASONING_FIELDS = ("reasoning", "reasoning_content")


class _LogprobsReader:
    """Reads the log probabilities of one choice, without those of the reasoning.

    Those come before the text's, and only some servers list them. So nothing is
    released until the first text is there: the tokens so far are then longer than it
    by exactly the reasoning, which is cut off, and all offsets move up.
    """

    def __init__(self, start: int, top: int) -> None:
        self._start = start
        self._legacy = LegacyLogprobs(start, top)
        self._pending = Logprobs()
        # Characters of listed reasoning; None before the first text.
        self._hidden: int | None = None

    def read(
        self, logprobs: Any, text: str, *, finished: bool, has_reasoning: bool
    ) -> Logprobs | None:
        """The tokens that come with a piece of *text*."""
        self._pending += self._legacy.read(chat_entries(logprobs, text))
        if self._hidden is None:
            if not (text or finished):
                return None
            before_text = self._legacy.offset - len(text) - self._start
            self._hidden = max(before_text, 0) if has_reasoning else 0
        ready = self._pending.without(self._hidden, self._start)
        self._pending = Logprobs()
        return ready if ready.tokens else None


def text_of(content: Any) -> str:
    """The text of a message, be it one string or a list of parts."""
    if isinstance(content, list):
        texts = (part.get("text") for part in content if part.get("type") == "text")
        return "".join(text or "" for text in texts)
    return content or ""


def choice_text(choice: Mapping[str, Any]) -> str:
    """The text of a choice, which may have a message or a delta in its place.

    Servers answer so even on endpoints for plain completions: Mistral's for infilling,
    and newer models of Cloudflare's.
    """
    text = choice.get("text")
    message = choice.get("delta") or choice.get("message")
    if text in (None, "") and isinstance(message, dict):
        return text_of(message.get("content"))
    return "" if text is None else str(text)


def _usage(document: Mapping[str, Any]) -> Usage | None:
    """The counts of the answer; Groq has them in `x_groq`, Moonshot in a choice."""
    groq = document.get("x_groq")
    for holder in (document, counts_in(groq), *(document.get("choices") or ())):
        # Most chunks have none.
        counts = holder.get("usage")
        if counts and (usage := parse_usage(counts)):
            return usage
    return None
