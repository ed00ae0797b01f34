"""Takes secrets out of texts, in whatever form an upstream quotes them.

An upstream that refuses a call may quote it: the header or the body that held the
key, as it was, escaped, encoded, or cut off. So a secret is looked for in each of its
forms, by the first and by the last eight characters of the form, which also find what
is left of one that was cut.

Whoever may have an upstream quote a text of their choice could guess a secret piece by
piece, if what is replaced showed how far a guess was right. Hence everything goes that
could belong to it: the whole word that begins, or ends, with those eight characters.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"

# Shorter secrets, and shorter rests of one, are left alone: they are words.
MIN_LENGTH = 8

# What a key or its encoded form consists of, in JSON as well. A dot at the end of it
# ends a sentence.
_WORD = r"[A-Za-z0-9_+/=%~*-]"
_AFTER = re.compile(rf"(?:{_WORD}|\.(?={_WORD})|\\+(?:/|u[0-9A-Fa-f]{{4}}))*")
_BEFORE = frozenset(c for c in map(chr, range(128)) if re.match(_WORD, c)) | {"."}

# What is a secret whoever it belongs to: keys of this gateway, and signed tokens.
_MARKS = ("lw-", "eyJ")
_ALWAYS = re.compile(
    r"\blw-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"
)

# What looks like a key of some provider, or stands where one does.
_LIKELY = re.compile(
    r"\b(?:sk|pk|lw|gsk|xai|hf|AIza|AKIA|eyJ)[-_\w.]{12,}"
    r"|(?i:(?<=bearer )|(?<=basic )|(?<=token ))[^\s'\"]+"
)


def without_likely_keys(text: str) -> str:
    """*text* without what looks like a key; for texts of which no secret is known."""
    return _LIKELY.sub(REDACTED, text)


@dataclass(frozen=True, slots=True)
class _Form:
    """A secret as it may be written; where case says nothing, in lower case."""

    text: str
    any_case: bool

    @property
    def head(self) -> str:
        return self.text[:MIN_LENGTH]

    @property
    def tail(self) -> str:
        return self.text[-MIN_LENGTH:]


class Redactor:
    """Knows the forms of some secrets."""

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {form for secret in secrets for form in _forms(secret)}
        self._forms = tuple(form for form in found if len(form.text) >= MIN_LENGTH)
        ends = {
            case: {
                end
                for form in self._forms
                if form.any_case is case
                for end in (form.head, form.tail)
            }
            for case in (True, False)
        }
        self._any_case, self._exact = tuple(ends[True]), tuple(ends[False])

    def text(self, text: str) -> str:
        """*text*, with `[redacted]` in place of every secret and every part of one."""
        if any(mark in text for mark in _MARKS):
            text = _ALWAYS.sub(REDACTED, text)
        if not self._is_in(text):
            return text
        return self._without_tails(self._without_heads(text))

    def _is_in(self, text: str) -> bool:
        """Whether one of the secrets may be in *text*: hardly ever is one."""
        for part in self._exact:
            if part in text:
                return True
        lower = _lower(text)
        for part in self._any_case:
            if part in lower:
                return True
        return False

    def content(self, content: bytes) -> bytes:
        """The same with bytes, of which nothing else changes."""
        text = content.decode("latin-1")
        clean = self.text(text)
        return content if clean is text else clean.encode("latin-1")

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The same with the values of *headers*. A name that holds a secret is dropped.

        They are looked through at once, since hardly ever one is there.
        """
        everything = "\n".join([*headers, *headers.values()])
        if self.text(everything) is everything:
            return dict(headers)
        return {
            name: self.text(value)
            for name, value in headers.items()
            if self.text(name) == name
        }

    def _without_heads(self, text: str) -> str:
        """*text* without what begins as a secret does, to the end of that word."""
        spans: list[tuple[int, int]] = []
        lower = _lower(text)
        for form in self._forms:
            within = lower if form.any_case else text
            at = within.find(form.head)
            while at >= 0:
                end = at + _common(within[at : at + len(form.text)], form.text)
                end = _word_end(text, end)
                spans.append((at, end))
                at = within.find(form.head, end)
        return _replaced(text, spans) if spans else text

    def _without_tails(self, text: str) -> str:
        """*text* without what ends as a secret does, from where that word begins."""
        spans: list[tuple[int, int]] = []
        lower = _lower(text)
        for form in self._forms:
            within = lower if form.any_case else text
            at = within.find(form.tail)
            last = 0
            while at >= 0:
                end = at + MIN_LENGTH
                before = within[max(last, end - len(form.text)) : end]
                same = _common(before[::-1], form.text[::-1])
                start, end = _word_start(text, end - same), _word_end(text, end)
                spans.append((start, end))
                last, at = end, within.find(form.tail, end)
        return _replaced(text, spans) if spans else text


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning on."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


def _word_end(text: str, at: int) -> int:
    found = _AFTER.match(text, at)
    return found.end() if found else at


def _word_start(text: str, at: int) -> int:
    while at > 0:
        before = text[at - 1]
        if not (
            before in _BEFORE or before == "\\" and text[at : at + 1] in ("/", "u")
        ):
            break
        at -= 1
    return at


def _replaced(text: str, spans: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            pieces += [text[done:start], REDACTED]
        done = max(done, end)
    return "".join([*pieces, text[done:]])


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _lower(text: str) -> str:
    """*text* in lower case, character by character."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


def _forms(secret: str) -> Iterator[_Form]:
    """How *secret* may be written; one of several lines, line by line (PEM)."""
    for line in secret.splitlines():
        line = line.strip()
        if len(line) >= MIN_LENGTH and not line.startswith("-----"):
            yield from (_Form(_lower(form), True) for form in _spellings(line))
            yield from (_Form(form, False) for form in _base64(line.encode()))


def _spellings(secret: str) -> Iterator[str]:
    """As it is, escaped for JSON, for HTML, for a URL or a form, and in hex digits."""
    content = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield content.decode("latin-1")
    for ascii in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ascii)[1:-1]
        for form in (escaped, escaped.replace("/", "\\/")):
            yield form
            # A document that is a text in another one.
            yield json.dumps(form, ensure_ascii=ascii)[1:-1]
    yield html.escape(secret)
    yield quote(content)
    yield quote(content, safe="")
    yield quote_plus(content)
    yield "".join(f"%{byte:02x}" for byte in content)
    yield content.hex()


def _base64(content: bytes) -> Iterator[str]:
    """What of base64 is the same whatever stands before and after *content*, as in
    `user:secret`: one for each place in a group of three bytes, in both alphabets.
    """
    for before, mixed in ((0, 0), (1, 2), (2, 3)):
        length = before + len(content)
        whole = base64.b64encode(bytes(before) + content).decode()
        form = whole[mixed : length * 8 // 6]
        yield form
        yield form.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")
