"""What a gateway key looks like, wherever in a text it stands.

A gateway key opens this gateway, so no provider may ever receive one. Clients put keys
into many forms (`Bearer`, `Basic`, `Token`, percent-encoded, base64), and a caller may
name any header to be forwarded: what is recognised here is the key itself and not its
surroundings.
"""

import base64
import re
from urllib.parse import unquote

PREFIX = "lw-"

# `lw-` and 32 characters of URL-safe base64 (app/store/repository.py makes them).
_KEY = re.compile(r"lw-[A-Za-z0-9_-]{32}")

# A shorter one that begins a word is no key, but was certainly meant as one. Not looked
# for in what was decoded: among random bytes it would come up by chance.
_BEGUN = re.compile(r"(?<![A-Za-z0-9_-])lw-[A-Za-z0-9_-]")

# A key behind the name of a scheme, or alone.
_ALONE = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9-]*[ \t]+)?(lw-[^\s,;]+)\s*")

# Words in which base64 could hide a key. Those that are longer hold no credential.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,4096}={0,2}")


def gateway_key_in(credential: str) -> str | None:
    """The gateway key that a header's value presents, behind any scheme or alone."""
    match = _ALONE.fullmatch(credential)
    return match[1] if match else None


def holds_gateway_key(text: str) -> bool:
    """Whether a gateway key stands anywhere in *text*, be it encoded or not."""
    # Nearly every text ends here: what follows costs ten times as much.
    if not any(piece in text for piece in _PIECES):
        return False
    plain = unquote(text)
    if _KEY.search(plain) or _BEGUN.search(plain):
        return True
    return any(_KEY.search(_decoded(word)) for word in _BASE64.findall(plain))


# One of these is in every text that holds a key: "lw-" itself, a percent sign, or "lw-"
# in base64 at one of its three alignments.
_PIECES = ("lw-", "%", "bHct", "x3L", "sdy")


def _decoded(word: str) -> str:
    """What *word* is in base64, of either alphabet; empty if it is none."""
    plain = word.rstrip("=").translate(str.maketrans("-_", "+/"))
    # A rest of one character encodes nothing.
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    try:
        decoded = base64.b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError:
        return ""
    return decoded.decode("latin-1")
