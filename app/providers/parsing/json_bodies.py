"""JSON bodies of upstreams: read, or refused as the upstream's fault."""

import re
from collections.abc import Callable
from typing import Any

from ... import safe_json
from ...core.completion import Completion
from ...errors import UpstreamProtocol


def read_object(body: bytes) -> dict[str, Any]:
    """*body* as a JSON object. Raises UpstreamProtocol, which quotes other bodies."""
    try:
        document = safe_json.load(body)
    except ValueError as e:
        raise UpstreamProtocol(f"the answer is not JSON: {excerpt(body)}") from e
    if not isinstance(document, dict):
        raise UpstreamProtocol(f"the answer is no JSON object: {excerpt(body)}")
    return document


def read_completion(
    body: bytes, reader: Callable[[dict[str, Any]], Completion]
) -> Completion:
    """The completion that *reader* makes of a JSON object.

    Raises UpstreamProtocol if the object is not what *reader* expects, or if a field
    that others rely on has the wrong type.
    """
    document = read_object(body)
    with malformed_as_upstream_error(body):
        completion = reader(document)
        for choice in completion.choices:
            if not isinstance(choice.text, str):
                raise TypeError("text")
            if type(choice.index) is not int or choice.index < 0:
                raise TypeError("index")
        usage = completion.usage
        counts = (usage.paid_tokens, usage.cached_tokens) if usage else ()
        for number in (completion.created, *counts):
            # Far below 2**63: the sum of thousands has to be serializable, too.
            if type(number) is not int or not 0 <= number < 2**40:
                raise TypeError("count")
    return completion


# A context manager is named like a function; one is made for each event of a stream.
class malformed_as_upstream_error:  # noqa: N801
    """Turns the errors of code that reads an answer into UpstreamProtocol.

    Providers' functions index and call without checks, since a missing key or a wrong
    type is always the upstream's fault.
    """

    __slots__ = ("_body",)

    def __init__(self, body: bytes = b"") -> None:
        self._body = body

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, _MALFORMED):
            quoted = f": {excerpt(self._body)}" if self._body else ""
            raise UpstreamProtocol(f"the answer is not as expected{quoted}") from error


_MALFORMED = (KeyError, IndexError, TypeError, AttributeError, ValueError)


def excerpt(body: bytes, length: int = 200) -> str:
    """At most *length* characters of *body*, on one line, in whole words.

    Words are not cut, since a body may quote a secret, and redaction cannot recognise
    the first few characters of one. Only a word that is half of the excerpt or more is
    cut, which leaves enough of it to be recognised.
    """
    text = " ".join(body[: 4 * length].decode("utf-8", "replace").split())
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    shown = printable[:length]
    if len(printable) > length or len(body) > 4 * length:
        words = _LAST_WORD.sub("", shown)
        shown = words if len(words) > length // 2 else shown
    return shown or "(an empty body)"


# The last word, if it may be a key, or an encoded one.
_LAST_WORD = re.compile(r"[\w+/=%~.*\\-]+\Z")
