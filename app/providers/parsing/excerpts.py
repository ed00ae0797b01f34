"""How the beginning of a body is quoted in a message."""

import re


def excerpt(body: bytes, length: int = 200) -> str:
    """At most *length* characters of *body*, on one line, in whole words.

    Words are not cut, since a body may quote a secret, and redaction cannot recognise
    the first few characters of one. Only a word that is half of the excerpt or more is
    cut, which leaves enough of it to be recognised.
    """
    # A character has four bytes at most.
    text = " ".join(body[: 4 * length].decode("utf-8", "replace").split())
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    shown = printable[:length]
    if len(printable) > length or len(body) > 4 * length:
        words = _LAST_WORD.sub("", shown)
        shown = words if len(words) > length // 2 else shown
    return shown or "(an empty body)"


# The last word, if it may be a key, or an encoded one.
_LAST_WORD = re.compile(r"[\w+/=%~.*\\-]+\Z")
