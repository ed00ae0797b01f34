"""The secrets of a target, and what takes them out of what its provider says."""

from base64 import b64decode
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from ..core.forwarding import is_credential_header
from ..core.redaction import Redactor
from ..core.routing import Target
from ..providers import PROVIDERS

# Where a resolved token stands among the options of a target.
TOKEN = "access_token"


def redactor(target: Target) -> Redactor:
    """What takes out the secrets that calls to *target* hold."""
    return _redactor(tuple(_secrets(target)))


@lru_cache(256)
def _redactor(texts: tuple[str, ...]) -> Redactor:
    """The last ones are kept: they are needed for the headers of every answer."""
    return Redactor(secret for text in texts for secret in _values(text))


def _secrets(target: Target) -> Iterator[str]:
    """The secrets of *target*; a service account is one document."""
    if target.api_key:
        yield target.api_key
    provider = PROVIDERS.get(target.provider)
    names = [s.name for s in provider.settings if s.secret] if provider else []
    for name in (*names, TOKEN):
        if value := target.options.get(name):
            yield value if isinstance(value, str) else orjson.dumps(value).decode()
    for name, value in target.headers.items():
        if is_credential_header(name):
            yield from _of_header(value)
    if target.base_url and "@" in target.base_url:
        yield unquote(urlsplit(target.base_url).password or "")


_SCHEMES = ("apikey", "basic", "bearer", "key", "token")


def _of_header(value: str) -> Iterator[str]:
    """The secrets in a header: behind its scheme, in its parts if it is a cookie."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() in _SCHEMES:
        value = rest.strip()
    yield value
    if scheme.lower() == "basic":
        yield _password(value)
    for part in value.replace(",", ";").split(";"):
        yield part.partition("=")[2].strip(' "')


def _password(basic: str) -> str:
    try:
        pair = b64decode(basic, validate=True).decode()
    except ValueError:
        return ""
    return pair.partition(":")[2]


# What of a service account is public.
_PUBLIC = ("type", "project_id", "universe_domain")


def _values(text: str) -> Iterator[str]:
    """*text*; of a document, the texts in it that may be secret."""
    try:
        document: Any = orjson.loads(text) if text.lstrip()[:1] == "{" else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        yield text
        return
    for name, value in document.items():
        is_address = isinstance(value, str) and value.startswith("https://")
        if isinstance(value, str) and name not in _PUBLIC and not is_address:
            yield value
