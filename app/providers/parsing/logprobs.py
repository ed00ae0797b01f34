"""Log probabilities in the chat endpoint's shape, as the legacy endpoint has them.

The chat shape is a list of {"token", "bytes", "logprob", "top_logprobs": [...]}. A
server of llama.cpp adds "id", and puts into "token" and "bytes" the text that it
releases at this step: nothing while a stop sequence may have begun, and all that it
held back when none had. The token itself is then among the alternatives, with its id.

Invariant of `_release`: the tokens of all entries, joined, are the text released so far
and `_unreleased`. So a token that comes before its text is held in `_pending`, and what
a later entry repeats of it is cut off.
"""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.completion import Logprobs

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
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace_but_halves")
        # Whether the last character was the first half of one.
        self._is_half = False
        self._unreleased = b""
        self._pending: list[tuple[Entry, bytes]] = []

    def read(self, content: Sequence[Entry]) -> Logprobs:
        """The next tokens; one that may belong to a stop sequence comes later."""
        pairs = [pair for entry in content for pair in self._release(entry)]
        offsets = []
        for _, token in pairs:
            offsets.append(self.offset)
            # A character that tokens share counts with the last of them.
            text = self._decoder.decode(token)
            self.offset += len(text)
            if text:
                # Of the halves of a character only the first is counted.
                self.offset -= self._is_half and "\udc00" <= text[0] <= "\udfff"
                self._is_half = "\ud800" <= text[-1] <= "\udbff"
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
    if raw is not None:
        return bytes(raw)
    # A token may be half of a surrogate pair: see split_characters.py.
    return str(entry["token"]).encode("utf-8", "surrogatepass")


def _replace_but_halves(error: UnicodeError) -> tuple[str, int]:
    """Decodes half of a surrogate pair, and anything else that is broken to U+FFFD."""
    assert isinstance(error, UnicodeDecodeError)
    half = error.object[error.start : error.start + 3]
    try:
        return half.decode("utf-8", "surrogatepass"), error.start + 3
    except UnicodeDecodeError:
        return "\ufffd", error.end


codecs.register_error("replace_but_halves", _replace_but_halves)


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
