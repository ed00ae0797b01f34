"""Log probabilities as the legacy endpoint has them, of whatever servers send.

The chat shape is a list of {"token", "bytes", "logprob", "top_logprobs": [...]}. A
server of llama.cpp adds "id", and puts into "token" and "bytes" the text that it
releases at this step: nothing while a stop sequence may have begun, and all that it
held back when none had. The token itself is then among the alternatives, with its id.

Invariant of `_release`: the tokens of all entries, joined, are the text released so far
and `_unreleased`. So a token that comes before its text is held in `_pending`, and what
a later entry repeats of it is cut off.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.completion import Logprobs
from ...errors import UpstreamProtocol

Entry = Mapping[str, Any]


class LegacyLogprobs:
    """Converts the entries of one choice, in order.

    *start* is the length of the prompt in characters; *top* the number of alternatives
    that were requested. The chosen token is always among them, as the contract
    requires. *offset* is where the next token begins.
    """

    def __init__(self, start: int, top: int) -> None:
        self.offset = start
        self._top = top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unreleased = b""
        self._pending: list[tuple[Entry, bytes]] = []

    def read(self, content: Sequence[Entry]) -> Logprobs:
        """The next tokens; one that may belong to a stop sequence comes later."""
        pairs = [pair for entry in content for pair in self._release(entry)]
        offsets = []
        for _, token in pairs:
            offsets.append(self.offset)
            # A character that tokens share counts with the last of them.
            self.offset += len(self._decoder.decode(token))
        return Logprobs(
            tokens=[_text(token) for _, token in pairs],
            token_logprobs=[entry["logprob"] for entry, _ in pairs],
            top_logprobs=[self._alternatives(*pair) for pair in pairs],
            text_offset=offsets,
        )

    def _release(self, entry: Entry) -> Sequence[tuple[Entry, bytes]]:
        """The entries whose text is certain now, each with the bytes of its token."""
        # Without an id, the token is the text that is released with it.
        released, own = _bytes(entry), _bytes_by_id(entry)
        token = released.removeprefix(self._unreleased) if own is None else own
        self._unreleased = (self._unreleased + token).removeprefix(released)
        self._pending.append((entry, token))
        if not released and token:
            return ()
        pairs, self._pending = self._pending, []
        return pairs

    def _alternatives(self, entry: Entry, token: bytes) -> dict[str, float]:
        """The likeliest tokens at this step, and *token* itself in any case."""
        alternatives: dict[str, float] = {}
        for other in (entry.get("top_logprobs") or [])[: self._top]:
            # llama.cpp's "token" is the text released, which may not be this token's.
            if entry.get("id") is None:
                is_chosen = other["token"] == entry["token"]
            else:
                is_chosen = other.get("id") == entry["id"]
            if is_chosen:
                alternatives[_text(token)] = entry["logprob"]
            else:
                alternatives.setdefault(_text(_bytes(other)), other["logprob"])
        # It may be less likely than all of them.
        alternatives.setdefault(_text(token), entry["logprob"])
        return alternatives


def _bytes_by_id(entry: Entry) -> bytes | None:
    """The token's own bytes, from the alternative with its id.

    None for a part of a character: the entry then holds the whole character, and is
    the only one for all its parts.
    """
    if entry.get("id") is None:
        return None
    alternatives = entry.get("top_logprobs") or []
    own = next((_bytes(o) for o in alternatives if o.get("id") == entry["id"]), None)
    return own if own is not None and _is_text(own) else None


def _bytes(entry: Entry) -> bytes:
    raw = entry.get("bytes")
    return str(entry["token"]).encode() if raw is None else bytes(raw)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(token: bytes) -> str:
    """The token's text; a part of a character is escaped, as OpenAI does it."""
    if _is_text(token):
        return token.decode()
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def chat_entries(logprobs: Any, text: str) -> Sequence[Entry]:
    """The entries of a chat's *logprobs*, which come with a piece of *text*.

    Some servers send the lists of the legacy shape even there, or a number for the only
    token (Together).
    """
    if _is_number(logprobs):
        return [{"token": text, "logprob": logprobs}]
    if isinstance(logprobs, list):
        return logprobs
    if not isinstance(logprobs, dict):
        return ()
    if content := logprobs.get("content"):
        return content if isinstance(content, list) else ()
    tokens = logprobs.get("tokens")
    if not isinstance(tokens, list):
        return ()
    nothing = [None] * len(tokens)
    steps = zip(
        tokens,
        _parallel(logprobs.get("token_logprobs"), len(tokens)) or (),
        _parallel(logprobs.get("top_logprobs"), len(tokens)) or nothing,
        strict=False,
    )
    return [
        {
            "token": token,
            "logprob": score,
            "top_logprobs": [
                {"token": other, "logprob": value}
                for other, value in (likely or {}).items()
            ],
        }
        for token, score, likely in steps
    ]


def is_legacy_shape(logprobs: Any) -> bool:
    """Whether *logprobs* are four parallel lists, which need no repair."""
    if not isinstance(logprobs, dict):
        return False
    tokens = logprobs.get("tokens")
    if not isinstance(tokens, list):
        return False
    scores, alternatives, offsets = (
        _parallel(logprobs.get(name), len(tokens))
        for name in ("token_logprobs", "top_logprobs", "text_offset")
    )
    if scores is None or alternatives is None or offsets is None:
        return False
    return (
        all(type(token) is str for token in tokens)
        and all(score is None or _is_number(score) for score in scores)
        # The first token of a prompt has neither a score nor alternatives.
        and all(
            (
                all(map(_is_number, likely.values()))
                if isinstance(likely, dict)
                else likely is None and score is None
            )
            for likely, score in zip(alternatives, scores, strict=True)
        )
        and all(type(offset) is int for offset in offsets)
    )


class LogprobsConverter:
    """The log probabilities of one choice in the legacy shape, whatever theirs is.

    On the endpoint for completions servers send the legacy shape; or that without some
    of its lists, and in a stream the number of a frame's only token (Together); or the
    shape of the chat endpoint. *start* and *top* are as for LegacyLogprobs.

    Sources: https://docs.together.ai/docs/logprobs, `logprobs` of a chunk in
    https://github.com/togethercomputer/together-python (types/completions.py); the
    chat's: https://github.com/kekzl/imp/issues/1589
    """

    def __init__(self, start: int, top: int) -> None:
        self._top = top
        self._chat = LegacyLogprobs(start, top)
        # Where the text of the next frame begins.
        self._text_start = start

    def read(
        self, logprobs: Any, text: str, alternatives: Any = None
    ) -> dict[str, Any] | None:
        """Those that come with a piece of *text*; None if there are none.

        *alternatives* stand beside a single number. Raises UpstreamProtocol for lists
        that do not fit together.
        """
        start = self._text_start
        self._text_start += len(text)
        if is_legacy_shape(logprobs):
            return logprobs if logprobs["tokens"] else None
        if _is_number(logprobs):
            logprobs = {
                "tokens": [text],
                "token_logprobs": [logprobs],
                "top_logprobs": [alternatives],
            }
        tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
        if isinstance(tokens, list) and tokens:
            return self._complete(logprobs, text, start)
        entries = chat_entries(logprobs, text)
        return self._chat.read(entries).to_body() if entries else None

    def _complete(
        self, logprobs: Mapping[str, Any], text: str, start: int
    ) -> dict[str, Any]:
        """*logprobs* with all four lists, for a *text* that begins at *start*."""
        tokens = ["" if t is None else str(t) for t in logprobs["tokens"]]
        scores = _parallel(logprobs.get("token_logprobs"), len(tokens))
        if scores is None:
            raise UpstreamProtocol(
                "the log probabilities of the answer do not fit its tokens"
            )
        scores = [score if _is_number(score) else None for score in scores]
        nothing = [None] * len(tokens)
        reported = _parallel(logprobs.get("top_logprobs"), len(tokens)) or nothing
        offsets = _parallel(logprobs.get("text_offset"), len(tokens)) or nothing
        if not all(type(offset) is int for offset in offsets):
            offsets = _offsets(tokens, start, len(text))
        return {
            **logprobs,
            "tokens": tokens,
            "token_logprobs": scores,
            "top_logprobs": list(map(self._alternatives, reported, tokens, scores)),
            "text_offset": offsets,
        }

    def _alternatives(
        self, reported: Any, token: str, score: float | None
    ) -> dict[str, float] | None:
        """Those of one step by their tokens, and the chosen token among them."""
        pairs = reported.items() if isinstance(reported, dict) else ()
        likely = {other: value for other, value in pairs if _is_number(value)}
        # The first token of a prompt has no score.
        own = {} if score is None else {token: score}
        return {**likely, **own} or None


def _parallel(values: Any, length: int) -> list[Any] | None:
    """*values*, if they are a list of that *length*."""
    return values if isinstance(values, list) and len(values) == length else None


def _is_number(value: Any) -> bool:
    # A JSON true is no number.
    return type(value) in (int, float)


def _offsets(tokens: Sequence[str], start: int, length: int) -> list[int]:
    """Where each token begins, in a text of this *length* that begins at *start*."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offsets, offset = [], start
    for token in tokens:
        # Parts of a character that are no text may count as too much.
        offsets.append(min(offset, start + length) if length else offset)
        offset += len(decoder.decode(token_bytes(token)))
    return offsets


_ESCAPED_BYTES = re.compile(r"bytes:((?:\\x[0-9a-f]{2})+)")


def token_bytes(token: str) -> bytes:
    """The bytes of a token in the legacy shape, which may be a part of a character."""
    if match := _ESCAPED_BYTES.fullmatch(token):
        return bytes.fromhex(match[1].replace("\\x", ""))
    return token.encode("utf-8", "replace")
