"""Encodings in which an upstream may quote a secret, and parts that must not remain."""

import base64
import html
import json
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

Form = Callable[[str], str]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _url_safe(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def _lower_hex(text: str) -> str:
    quoted = quote(text, safe="")
    parts = quoted.split("%")
    return "%".join([parts[0], *(p[:2].lower() + p[2:] for p in parts[1:])])


FORMS: dict[str, Form] = {
    "raw": str,
    "lower case": str.lower,
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON with slashes": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "URL": quote,
    "URL, all": lambda s: quote(s, safe=""),
    "URL, lower": _lower_hex,
    "form": quote_plus,
    "every byte": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "HTML": html.escape,
    "base64": _base64,
    "base64, no padding": lambda s: _base64(s).rstrip("="),
    "base64, URL": _url_safe,
    "base64, one before": lambda s: _base64(":" + s),
    "base64, two before": lambda s: _base64("u:" + s),
    "base64, user": lambda s: _base64("user:" + s),
    "base64, password": lambda s: _base64(s + ":"),
    "base64, both, URL": lambda s: _url_safe("us:" + s + ":x"),
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
}


def pieces(secret: str, name: str, least: int = 8) -> Iterator[str]:
    """The substrings of *least* characters that depend on the secret alone."""
    form = FORMS[name](secret)
    before, after = 0, 0
    if name.startswith("base64"):
        before = {"one": 2, "two": 3, "user": 7, "both": 4}.get(_where(name), 0)
        after = 6 if "password" in name or "both" in name else 3
    form = form[before : len(form) - after]
    for at in range(len(form) - least + 1):
        yield form[at : at + least]


def _where(name: str) -> str:
    return name.partition(", ")[2].split(" ")[0].rstrip(",")
