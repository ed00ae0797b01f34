"""Removes secrets from texts, in every form in which an upstream may quote them.

An upstream that refuses a call may quote it: the header or the body that held the key,
unchanged, escaped, encoded, or truncated. So a secret is searched for in each of these
forms, by the first and by the last eight characters of the form, which also find the
rest of a truncated one.

A caller who can have an upstream quote a text of their choice could guess a secret
character by character, if what is replaced showed how much of a guess was right. So
everything is removed that could belong to it: the whole word that begins, or ends, with
those eight characters.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"

# Shorter secrets, and shorter parts of one, are kept: they may be ordinary words.
MIN_LENGTH = 8

# The characters of a key or its encoded forms, in JSON as well. A dot after the last
# one ends a sentence.
_WORD = r"[A-Za-z0-9_+/=%~*-]"
_REST_OF_WORD = re.compile(rf"(?:{_WORD}|\.(?={_WORD})|\\+(?:/|u[0-9A-Fa-f]{{4}}))*")
_WORD_CHARACTERS = frozenset(c for c in map(chr, range(128)) if re.match(_WORD, c)) | {
    "."
}

# Always secret, whoever they belong to: keys of this gateway, and signed tokens (JWT).
_TOKEN_PREFIXES = ("lw-", "eyJ")
_TOKEN = re.compile(
    r"\blw-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}"
)

# What looks like a key of some provider, or stands where one does.
_LIKELY_KEY = re.compile(
    r"\b(?:sk|pk|lw|gsk|xai|hf|AIza|AKIA|eyJ)[-_\w.]{12,}"
    r"|(?i:(?<=bearer )|(?<=basic )|(?<=token ))[^\s'\"]+"
)


def without_likely_keys(text: str) -> str:
    """*text* without what looks like a key, where the secrets in it are not known."""
    return _LIKELY_KEY.sub(REDACTED, text)


@dataclass(frozen=True, slots=True)
class _SecretForm:
    """A secret in one encoding; in lower case, if case does not matter there."""

    text: str
    any_case: bool

    @property
    def head(self) -> str:
        return self.text[:MIN_LENGTH]

    @property
    def tail(self) -> str:
        return self.text[-MIN_LENGTH:]


class Redactor:
    """Removes some secrets from texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _secret_forms(secret)}
        self._forms = tuple(form for form in forms if len(form.text) >= MIN_LENGTH)
        ends: dict[bool, set[str]] = {True: set(), False: set()}
        for form in self._forms:
            ends[form.any_case] |= {form.head, form.tail}
        self._any_case, self._exact = tuple(ends[True]), tuple(ends[False])

    def text(self, text: str) -> str:
        """*text*, with `[redacted]` in place of every secret and every part of one."""
        if any(prefix in text for prefix in _TOKEN_PREFIXES):
            text = _TOKEN.sub(REDACTED, text)
        if not self._may_contain_secret(text):
            return text
        return self._redact_tails(self._redact_heads(text))

    def _may_contain_secret(self, text: str) -> bool:
        """Whether the beginning or end of a secret is in *text*; hardly ever is one."""
        for part in self._exact:
            if part in text:
                return True
        lower = _lower(text)
        for part in self._any_case:
            if part in lower:
                return True
        return False

    def content(self, content: bytes) -> bytes:
        """The same for bytes, which are otherwise unchanged."""
        text = content.decode("latin-1")
        clean = self.text(text)
        return content if clean is text else clean.encode("latin-1")

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The same for the values of *headers*. A name with a secret is dropped."""
        # All are searched at once: hardly ever there is a secret among them.
        everything = "\n".join([*headers, *headers.values()])
        if self.text(everything) is everything:
            return dict(headers)
        return {
            name: self.text(value)
            for name, value in headers.items()
            if self.text(name) == name
        }

    def _redact_heads(self, text: str) -> str:
        """*text* without what begins as a secret does, to the end of that word."""
        spans: list[tuple[int, int]] = []
        lower = _lower(text)
        for form in self._forms:
            within = lower if form.any_case else text
            start = within.find(form.head)
            while start >= 0:
                candidate = within[start : start + len(form.text)]
                end = start + _common_prefix_length(candidate, form.text)
                end = _word_end(text, end)
                spans.append((start, end))
                start = within.find(form.head, end)
        return _replace_spans(text, spans) if spans else text

    def _redact_tails(self, text: str) -> str:
        """*text* without what ends as a secret does, from where that word begins."""
        spans: list[tuple[int, int]] = []
        lower = _lower(text)
        for form in self._forms:
            within = lower if form.any_case else text
            position = within.find(form.tail)
            previous_end = 0
            while position >= 0:
                end = position + MIN_LENGTH
                before = within[max(previous_end, end - len(form.text)) : end]
                length = _common_prefix_length(before[::-1], form.text[::-1])
                start, end = _word_start(text, end - length), _word_end(text, end)
                spans.append((start, end))
                previous_end, position = end, within.find(form.tail, end)
        return _replace_spans(text, spans) if spans else text


def _common_prefix_length(one: str, other: str) -> int:
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))


def _word_end(text: str, position: int) -> int:
    match = _REST_OF_WORD.match(text, position)
    return match.end() if match else position


def _word_start(text: str, position: int) -> int:
    while position > 0:
        before = text[position - 1]
        # A backslash belongs to the word where it escapes a character of it in JSON.
        is_escape = before == "\\" and text[position : position + 1] in ("/", "u")
        if before not in _WORD_CHARACTERS and not is_escape:
            break
        position -= 1
    return position


def _replace_spans(text: str, spans: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    position = 0
    for start, end in sorted(spans):
        if start >= position:
            pieces += [text[position:start], REDACTED]
        position = max(position, end)
    return "".join([*pieces, text[position:]])


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _lower(text: str) -> str:
    """*text* in lower case, character by character, so that positions stay the same."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


def _secret_forms(secret: str) -> Iterator[_SecretForm]:
    """The forms of *secret*; of one of several lines, those of each line (PEM)."""
    for line in secret.splitlines():
        line = line.strip()
        if len(line) >= MIN_LENGTH and not line.startswith("-----"):
            yield from (_SecretForm(_lower(form), True) for form in _escape_forms(line))
            yield from (_SecretForm(f, False) for f in _base64_forms(line.encode()))


def _escape_forms(secret: str) -> Iterator[str]:
    """As it is, escaped for JSON, for HTML, for a URL or a form, and in hex digits."""
    content = secret.encode("utf-8", "surrogatepass")
    yield secret
    yield content.decode("latin-1")
    for ascii in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ascii)[1:-1]
        for form in (escaped, escaped.replace("/", "\\/")):
            yield form
            # JSON as a string within JSON.
            yield json.dumps(form, ensure_ascii=ascii)[1:-1]
    yield html.escape(secret)
    yield quote(content)
    yield quote(content, safe="")
    yield quote_plus(content)
    yield "".join(f"%{byte:02x}" for byte in content)
    yield content.hex()


def _base64_forms(content: bytes) -> Iterator[str]:
    """The part of base64 that does not depend on what surrounds *content*.

    As in `user:secret`: one form for each alignment to a group of three bytes, in both
    alphabets.
    """
    for prefix_length, mixed in ((0, 0), (1, 2), (2, 3)):
        length = prefix_length + len(content)
        whole = base64.b64encode(bytes(prefix_length) + content).decode()
        form = whole[mixed : length * 8 // 6]
        yield form
        yield form.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")
