"""Secrets in the texts of upstreams are redacted in each form, whole or truncated."""

import base64
import json
import string

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.core.redaction import REDACTED, Redactor, without_likely_keys
from tests.forms import FORMS, pieces

KEY = "sk-Proj_0123/abc+DEF=ghi"
WORDS = "The key is not right for this model, and never was."

SECRETS = st.text(st.characters(codec="ascii", min_codepoint=0x21), min_size=8).map(
    lambda text: text[:60]
)
KEYS = st.text(string.ascii_letters + string.digits + "-_+/=.", min_size=12)
AROUND = st.text(st.sampled_from(" ,:;{}\"'()<>[]|\n"), max_size=12)
NAMES = st.sampled_from(sorted(FORMS))


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_redacted(name: str) -> None:
    text = Redactor([KEY]).text(f"Bad key {FORMS[name](KEY)}!")

    assert REDACTED in text and text.startswith("Bad key ") and text.endswith("!")
    assert not any(piece in text for piece in pieces(KEY, name))


@given(SECRETS, NAMES, AROUND, AROUND)
@example('"\\"\\"\\"\\"', "JSON", "", "")
@example("a b c d e f g", "form", "", "")
def test_random_secrets_are_redacted(
    secret: str, name: str, before: str, after: str
) -> None:
    assume(secret.strip("-"))
    assume(not secret.startswith("-----"))
    text = Redactor([secret]).text(f"{before}{FORMS[name](secret)}{after}")

    assert not any(piece in text for piece in pieces(secret, name, 16))
    if name in ("raw", "hex"):
        assert not any(piece in text for piece in pieces(secret, name))


@given(KEYS, NAMES, AROUND, st.integers(0, 200))
def test_cut_ends_are_redacted(key: str, name: str, before: str, cut: int) -> None:
    """Of a truncated key, at most seven characters of its form remain."""
    form = FORMS[name](key)
    shown = f"{before}{form}"[: len(before) + cut % (len(form) + 1)]
    text = Redactor([key]).text(shown)

    assert not any(piece in text for piece in pieces(key, name))


@given(KEYS, NAMES, AROUND, st.integers(0, 200))
def test_cut_beginnings_are_redacted(key: str, name: str, after: str, cut: int) -> None:
    form = FORMS[name](key)
    text = Redactor([key]).text(form[cut % (len(form) + 1) :] + after)

    assert not any(piece in text for piece in pieces(key, name))


@given(st.text(max_size=300), SECRETS)
def test_other_texts_are_unchanged(text: str, secret: str) -> None:
    lower = text.lower()
    assume(not any(p in lower for n in FORMS for p in pieces(secret.lower(), n)))
    assume("lw-" not in text and "eyJ" not in text)
    assume(not any(p in text for n in FORMS for p in pieces(secret, n)))

    assert Redactor([secret]).text(text) is text


def test_short_secrets_are_kept() -> None:
    assert Redactor(["secret", ""]).text("a secret of 6") == "a secret of 6"


def test_partial_guesses_are_not_confirmed() -> None:
    """Redaction does not reveal how many characters of a guess are right."""
    clean = Redactor([KEY]).text
    guesses = [f"no model {KEY[:n]}{'x' * (24 - n)} here" for n in range(8, 24)]

    assert {clean(guess) for guess in guesses} == {f"no model {REDACTED} here"}


def test_lines_of_a_pem_are_redacted() -> None:
    body = base64.b64encode(bytes(range(256)) * 3).decode()
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    pem = "\n".join(
        ["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"]
    )
    redactor = Redactor([pem])

    for text in (pem, json.dumps(pem), " ".join(lines), lines[3][:40]):
        assert not any(line[:8] in redactor.text(text) for line in lines)
    assert redactor.text("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_gateway_keys_are_always_redacted() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
    text = f"used lw-{'a1B_' * 8} and {token} and {token[:20]}"

    assert Redactor([]).text(text) == "used [redacted] and [redacted] and [redacted]"


def test_other_bytes_are_unchanged() -> None:
    content = bytes(range(256)) + KEY.encode() + b"\xff\x00 rest"

    assert Redactor([KEY]).content(content) == (
        bytes(range(256)) + REDACTED.encode() + b"\xff\x00 rest"
    )
    assert Redactor([]).content(content) is content


def test_headers_are_redacted() -> None:
    headers = {"a": f"key {KEY}", f"x-{KEY}": "1", "b": "2"}

    assert Redactor([KEY]).headers(headers) == {"a": f"key {REDACTED}", "b": "2"}


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abc",
        "basic YTpi",
        "sk-0123456789abcdef",
        "token abc",
        "xai-abcdefghijklm",
    ],
)
def test_likely_keys_are_removed(text: str) -> None:
    assert "[redacted]" in without_likely_keys(text)


def test_redaction_takes_linear_time() -> None:
    """Thousands of prefixes and suffixes of a secret take time linear in the text."""
    redactor = Redactor([KEY, "another-secret-of-the-same"])
    for word in (KEY[:8] + " ", KEY[-8:] + "-", KEY[:8], KEY[-8:] + " ", "a" * 9):
        assert len(redactor.text(word * 5000)) <= 5000 * 11
