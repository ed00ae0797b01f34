"""The secrets of a target, and their removal from what its provider sends.

An upstream may quote a key in an error, a header or a log line; nothing of that goes to
callers, logs or spans before it has passed the target's redactor.
"""

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

# The option of a target that holds its access token (auth/access_tokens.py).
TOKEN = "access_token"


def redactor(target: Target) -> Redactor:
    """What removes the secrets of *target* from texts and headers."""
    return _cached_redactor(tuple(_secret_texts(target)))


# The headers of every response need it, and it takes long to build.
@lru_cache(256)
def _cached_redactor(texts: tuple[str, ...]) -> Redactor:
    return Redactor(secret for text in texts for secret in _document_secrets(text))


def _secret_texts(target: Target) -> Iterator[str]:
    """The secrets of *target* as they were given; a service account is one document."""
    if target.api_key:
        yield target.api_key
    provider = PROVIDERS.get(target.provider)
    names = [s.name for s in provider.settings if s.secret] if provider else []
    for name in (*names, TOKEN):
        # A service account may be an object in a config.
        if value := target.options.get(name):
            yield value if isinstance(value, str) else orjson.dumps(value).decode()
    for name, value in target.headers.items():
        if is_credential_header(name):
            yield from _header_secrets(value)
    # https://user:password@host, percent-encoded; what is sent, and quoted, is decoded.
    if target.base_url and "@" in target.base_url:
        yield unquote(urlsplit(target.base_url).password or "")


# What may stand before a credential in Authorization, or in a header like it.
_SCHEMES = ("apikey", "basic", "bearer", "key", "token")


def _header_secrets(value: str) -> Iterator[str]:
    """The secrets in a header: behind its scheme, in its parts if it is a cookie.

    It may yield texts that are not secret: to redact too much does no harm.
    """
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() in _SCHEMES:
        value = rest.strip()
    yield value
    if scheme.lower() == "basic":
        try:
            user_and_password = b64decode(value, validate=True).decode()
        except ValueError:
            user_and_password = ""
        # Of `user:password` in base64 the password alone is a secret.
        yield user_and_password.partition(":")[2]
    for part in value.replace(",", ";").split(";"):
        yield part.partition("=")[2].strip(' "')


# The fields of a service account that are public.
_PUBLIC_FIELDS = ("type", "project_id", "universe_domain")


def _document_secrets(text: str) -> Iterator[str]:
    """*text* itself; of a JSON object, the texts in it that may be secret."""
    try:
        document: Any = orjson.loads(text) if text.lstrip()[:1] == "{" else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        yield text
        return
    for name, value in document.items():
        # URLs in a service account are Google's public endpoints, `token_uri` for one.
        is_address = isinstance(value, str) and value.startswith("https://")
        if isinstance(value, str) and name not in _PUBLIC_FIELDS and not is_address:
            yield value
