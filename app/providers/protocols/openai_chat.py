"""The bridge: a completion as a chat. And the chat endpoint that OpenAI has shaped.

A prompt becomes the only message, unless the target's `bridge` says more; the reply is
the completion's text. What a model thinks before it speaks is no part of it.

Source: CreateChatCompletionRequest and -Response in
https://github.com/openai/openai-openapi
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.completion import Choice, Completion, Logprobs, Usage
from ...core.sse import DONE
from ...errors import UnsupportedParameter
from ..declaration import (
    LEGACY_PARAMS,
    Endpoint,
    HTTPRequest,
    ParamMapping,
    ParamMappings,
    StreamReader,
    UpstreamRequest,
    same_named,
)
from ..parsing import error_bodies
from ..parsing.finish_reasons import finish_reason
from ..parsing.json_bodies import read_completion
from ..parsing.json_streams import JSONStreamReader
from ..parsing.logprobs import LegacyLogprobs
from ..parsing.think_tags import Thoughts
from ..parsing.usage import usage

# The legacy endpoint's parameters that no chat has.
_LEGACY_ALONE = ("best_of", "echo", "suffix")
PARAMS: ParamMappings = {
    **same_named(*(name for name in LEGACY_PARAMS if name not in _LEGACY_ALONE)),
    "logprobs": ParamMapping("top_logprobs", high=20),
}


def endpoint(
    path: str = "/chat/completions",
    *,
    without: Sequence[str] = (),
    choices: int = 128,
    **others: Any,
) -> Endpoint:
    """OpenAI's chat endpoint at *path*, *without* some of its parameters.

    *others* are parameters that differ. Without `n` it draws one choice a call.
    """
    params = {k: v for k, v in PARAMS.items() if k not in without} | others
    return Endpoint(
        params=params,
        passes=True,
        choices=choices if "n" in params else 1,
        check=check,
        call=lambda ask: call(ask, path),
        completion=completion,
        reader=stream_reader,
    )


def check(ask: UpstreamRequest) -> None:
    """Refuse a prompt of which no message can be made."""
    if not user_message(ask).strip():
        raise UnsupportedParameter(
            f"Provider {ask.provider.name} can only chat, and a chat needs a message: "
            "the prompt is empty.",
            "prompt",
        )


def user_message(ask: UpstreamRequest) -> str:
    """The user's message."""
    prompt = ask.request.prompt
    template = ask.target.bridge.template
    return template.replace("{prompt}", prompt) if template else str(prompt)


def messages(ask: UpstreamRequest) -> list[dict[str, str]]:
    """The chat, of one message or two."""
    system = ask.target.bridge.system
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": user_message(ask)}]


def call(ask: UpstreamRequest, path: str) -> HTTPRequest:
    """The chat, asked at *path*."""
    return ask.post(path, {"model": ask.request.model, **request(ask)})


def request(ask: UpstreamRequest) -> dict[str, Any]:
    """The body of the chat, without its model."""
    body = {"messages": messages(ask), **ask.body()}
    if "top_logprobs" in body:
        body["logprobs"] = True
        # None but the chosen tokens' own: some servers refuse a 0.
        body["top_logprobs"] or body.pop("top_logprobs")
    return body | {"stream": True} if ask.request.stream else body


# What it answers


def completion(body: bytes, ask: UpstreamRequest) -> Completion:
    """A whole chat as a completion."""
    return read_completion(body, ChatReader(ask, whole=True).read)


def stream_reader(ask: UpstreamRequest) -> StreamReader:
    """The pieces of a chat as pieces of a completion."""
    read = ChatReader(ask, whole=False).read
    return JSONStreamReader(read, terminator=DONE, ignored=EMPTY_DATA)


# Data that stands for nothing; llama.cpp opens the stream of a batch with `null`.
EMPTY_DATA = (b"", b"null")


class ChatReader:
    """Reads the pieces of one answer, in order."""

    def __init__(self, ask: UpstreamRequest, *, whole: bool) -> None:
        self._ask = ask
        self._part = "message" if whole else "delta"
        self._whole = whole
        self._choices: dict[int, _Choice] = {}

    def read(self, document: dict[str, Any]) -> Completion:
        """One piece, or the whole."""
        refuse_error(document)
        if self._whole and not document["choices"]:
            raise IndexError("no choices")
        return Completion(
            *head(document, self._ask),
            choices=tuple(map(self._choice, document.get("choices") or ())),
            usage=_usage(document),
        )

    def _begun(self, index: int) -> "_Choice":
        """A choice of which nothing was read so far."""
        self._choices[index] = begun = _Choice(self._ask)
        return begun

    def _choice(self, choice: Mapping[str, Any]) -> Choice:
        index = choice.get("index") or 0
        known = self._choices.get(index) or self._begun(index)
        # Whole answers in a stream's place have messages, not deltas.
        part = self._part if self._part in choice else "message"
        message = choice.get(part) or {}
        reason = choice.get("finish_reason") or ("stop" if self._whole else None)
        return known.read(index, message, choice.get("logprobs"), reason)


class _Choice:
    """Reads the pieces of one choice, in order."""

    def __init__(self, ask: UpstreamRequest) -> None:
        self._strict = ask.target.strict
        self._tokens = _Tokens(ask)
        self._thoughts = Thoughts()
        self._thought = False
        self._refused = False

    def read(
        self, index: int, message: Mapping[str, Any], logprobs: Any, reason: Any
    ) -> Choice:
        self._refused = self._refused or bool(message.get("refusal"))
        ended = finish_reason(reason, strict=self._strict)
        if ended and self._refused:
            ended = "content_filter"
        text = self._thoughts.without(text_of(message.get("content")))
        text += self._thoughts.rest() if ended else ""
        self._thought |= self._thoughts.found or any(map(message.get, _THOUGHTS))
        tokens = self._tokens.read(
            logprobs, text, ended=bool(ended), thought=self._thought
        )
        return Choice(text, index, tokens, ended)


# Where servers put what a model thinks, when they know it from the text.
_THOUGHTS = ("reasoning", "reasoning_content")


class _Tokens:
    """Reads the log probabilities of one choice; those of thoughts are left out.

    They come before the text, and some servers list them with it.
    """

    def __init__(self, ask: UpstreamRequest) -> None:
        prompt, top = ask.request.prompt, ask.request.logprobs
        self._start = len(prompt) if isinstance(prompt, str) else 0
        self._legacy = None if top is None else LegacyLogprobs(self._start, top)
        self._waiting = Logprobs()
        self._hidden: int | None = None

    def read(
        self, given: Any, text: str, *, ended: bool, thought: bool
    ) -> Logprobs | None:
        """The tokens that come with a piece of *text*."""
        if self._legacy is None:
            return None
        self._waiting += self._legacy.read((given or {}).get("content") or ())
        if self._hidden is None:
            if not (text or ended):
                return None
            behind = self._legacy.offset - len(text) - self._start
            self._hidden = max(behind, 0) if thought else 0
        ready = self._waiting.without(self._hidden, self._start)
        self._waiting = Logprobs()
        return ready if ready.tokens else None


def text_of(content: Any) -> str:
    """The text of a message, be it one string or a list of parts."""
    if isinstance(content, list):
        texts = (part.get("text") for part in content if part.get("type") == "text")
        return "".join(text or "" for text in texts)
    return content or ""


def refuse_error(document: Mapping[str, Any]) -> None:
    """Raise the error that an answer holds, if it holds one."""
    if document.get("error") or document.get("object") == "error":
        raise error_bodies.in_band(document)
    if failed := _groq(document).get("error"):
        raise error_bodies.in_band({"error": failed})


def head(document: Mapping[str, Any], ask: UpstreamRequest) -> tuple[str, int, str]:
    """Id, time and model of an answer. An id gets the prefix of a text completion."""
    given = document.get("id")
    own = str(given).removeprefix("chat").removeprefix("cmpl-")
    return (
        f"cmpl-{own}" if given else ask.request.id,
        created(document, ask),
        str(document.get("model") or ask.request.model),
    )


def created(document: Mapping[str, Any], ask: UpstreamRequest) -> int:
    """When an answer was made, in Unix seconds; the request's time, if it says nothing.

    SambaNova says it in fractions.
    """
    given = document.get("created")
    if isinstance(given, (int, float)) and 0 < given < 2**53:
        return int(given)
    return ask.request.created


def _usage(document: Mapping[str, Any]) -> Usage | None:
    """The counts, be they for the answer, in Groq's own place, or Moonshot's."""
    for place in (document, _groq(document), *(document.get("choices") or ())):
        if found := usage(place.get("usage")):
            return found
    return None


def _groq(document: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document.get("x_groq") or {}
    return found
