"""Credentials in the headers of callers: gateway keys, and keys of providers.

A gateway key is a credential of this gateway, so no provider may ever receive one.
Clients send keys in many forms (`Bearer`, `Basic`, `Token`, percent-encoded, base64),
and a caller may name any header to be forwarded: so the key itself is recognized, and
not its surroundings.
"""

import base64
import re
from collections.abc import Sequence
from urllib.parse import unquote

PREFIX = "lw-"

# Sent by the portkey-ai SDK when it has no key of a provider.
PLACEHOLDER_KEY = "OPENAI_API_KEY"

# `lw-` and 32 characters of URL-safe base64 (app/store/repository.py makes them).
_KEY = re.compile(r"lw-[A-Za-z0-9_-]{32}")

# A shorter one at the beginning of a word is no key, but was certainly meant as one. It
# is not searched for in decoded base64: random bytes would contain it by chance.
_KEY_PREFIX = re.compile(r"(?<![A-Za-z0-9_-])lw-[A-Za-z0-9_-]")

# A key behind the name of a scheme, or alone.
_CREDENTIAL = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9-]*[ \t]+)?(lw-[^\s,;]+)\s*")

# Words that may be a key in base64. Longer ones are no credential.
_BASE64_WORD = re.compile(r"[A-Za-z0-9+/_-]{16,4096}={0,2}")


# One of these is in every text that holds a key: "lw-" itself, a percent sign, or "lw-"
# in base64 at one of its three alignments.
_KEY_FRAGMENTS = ("lw-", "%", "bHct", "x3L", "sdy")


def split_credentials(values: Sequence[str]) -> tuple[str | None, str | None]:
    """The first gateway key in *values*, and the first key of a provider.

    *values* are those of all headers in which a client can send a key. One that holds
    a gateway key in any form is never taken for a provider's.
    """
    keys = [(value, strip_bearer(value)) for value in values]
    keys = [(value, key) for value, key in keys if key not in ("", PLACEHOLDER_KEY)]
    gateway_keys = (gateway_key_in(value) for value, _ in keys)
    provider_keys = (key for value, key in keys if not holds_gateway_key(value))
    return next(filter(None, gateway_keys), None), next(provider_keys, None)


def strip_bearer(value: str) -> str:
    """A key without the scheme `Bearer`, if it has one."""
    scheme, *rest = value.split(maxsplit=1) or [""]
    return rest[0].strip() if scheme.lower() == "bearer" and rest else value.strip()


def gateway_key_in(credential: str) -> str | None:
    """The gateway key that a header's value presents, behind any scheme or alone."""
    match = _CREDENTIAL.fullmatch(credential)
    return match[1] if match else None


def holds_gateway_key(text: str) -> bool:
    """Whether *text* contains a gateway key, encoded or not."""
    # Nearly every text ends here: what follows costs ten times as much.
    if not any(fragment in text for fragment in _KEY_FRAGMENTS):
        return False
    plain = unquote(text)
    if _KEY.search(plain) or _KEY_PREFIX.search(plain):
        return True
    return any(
        _KEY.search(_decode_base64(word)) for word in _BASE64_WORD.findall(plain)
    )


def _decode_base64(word: str) -> str:
    """*word* decoded from base64, of either alphabet; empty if it is none."""
    plain = word.rstrip("=").translate(str.maketrans("-_", "+/"))
    # A single character at the end encodes nothing, and would be an error.
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    try:
        decoded = base64.b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError:
        return ""
    return decoded.decode("latin-1")
