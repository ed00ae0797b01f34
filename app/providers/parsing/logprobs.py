"""Log probabilities in the chat endpoint's shape, as the legacy endpoint has them.

The chat shape is a list of {"token", "bytes", "logprob", "top_logprobs": [...]}. A
server of llama.cpp adds "id", and puts into "token" and "bytes" the text that it lets
go of at this step: nothing while a stop sequence may have begun, and all that it held
back when it had not. The token itself then stands among the alternatives, by its id.
"""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core.completion import Logprobs

Entry = Mapping[str, Any]


class LegacyLogprobs:
    """Reads the entries of one choice, in order.

    *start* is the length of the prompt in characters; *top* how many alternatives were
    asked for. The chosen token is always among them, as the contract says. *offset* is
    where the next token begins.
    """

    def __init__(self, start: int, top: int) -> None:
        self.offset = start
        self._top = top
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unreleased = b""
        self._waiting: list[tuple[Entry, bytes]] = []

    def read(self, content: Sequence[Entry]) -> Logprobs:
        """The next tokens; one that may belong to a stop sequence comes later."""
        entries = [pair for entry in content for pair in self._released(entry)]
        return Logprobs(
            tokens=[_text(token) for _, token in entries],
            token_logprobs=[entry["logprob"] for entry, _ in entries],
            top_logprobs=[self._alternatives(*pair) for pair in entries],
            text_offset=[self._advance(token) for _, token in entries],
        )

    def _released(self, entry: Entry) -> Iterator[tuple[Entry, bytes]]:
        """The entries that are certain now, each with the bytes of its token."""
        seen, own = _bytes(entry), _bytes_by_id(entry)
        token = seen.removeprefix(self._unreleased) if own is None else own
        self._unreleased = (self._unreleased + token).removeprefix(seen)
        self._waiting.append((entry, token))
        if seen or not token:
            yield from self._waiting
            self._waiting = []

    def _alternatives(self, entry: Entry, token: bytes) -> dict[str, float]:
        likely = (entry.get("top_logprobs") or [])[: self._top]
        alternatives: dict[str, float] = {}
        for other in likely:
            if not _same(other, entry):
                alternatives.setdefault(_text(_bytes(other)), other["logprob"])
            else:
                alternatives[_text(token)] = entry["logprob"]
        alternatives.setdefault(_text(token), entry["logprob"])
        return alternatives

    def _advance(self, token: bytes) -> int:
        """The offset of this token; a character cut in two counts at its end."""
        offset = self.offset
        self.offset += len(self._decoder.decode(token))
        return offset


def _same(other: Entry, entry: Entry) -> bool:
    """Whether an alternative is the chosen token itself."""
    if entry.get("id") is not None:
        return bool(other.get("id") == entry["id"])
    return bool(other["token"] == entry["token"])


def _bytes_by_id(entry: Entry) -> bytes | None:
    """The token's own bytes, where an alternative with its id knows them.

    Not those of a part of a character: there the entry holds the whole, and stands for
    all parts.
    """
    if entry.get("id") is None:
        return None
    alternatives = entry.get("top_logprobs") or []
    own = next((_bytes(o) for o in alternatives if o.get("id") == entry["id"]), None)
    return own if own is not None and _is_text(own) else None


def _bytes(entry: Entry) -> bytes:
    given = entry.get("bytes")
    return str(entry["token"]).encode() if given is None else bytes(given)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _text(token: bytes) -> str:
    """The token's text; one that is part of a character only, as OpenAI writes it."""
    if _is_text(token):
        return token.decode()
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
