"""Parses JSON from outside, and refuses what could not be serialised again.

`load` takes JSON and nothing else. `load_lenient` is for answers of upstreams, which
are paid already. It also takes what servers send in place of JSON:

- `NaN`, `Infinity` and `-Infinity`, as Python's json writes them, and numbers that are
  too large for a float. They become null, or LOWEST_LOGPROB as a log probability.
- One half of a surrogate pair, escaped, and bytes that are not UTF-8: U+FFFD.
- A byte order mark before the document.

Sources: https://docs.python.org/3/library/json.html#infinite-and-nan-number-values,
https://www.rfc-editor.org/rfc/rfc8259#section-8
"""

import codecs
import json
import math
import re
from typing import Any

import orjson

# orjson parses 1024 levels of nesting and serialises 254. A few of those are left for
# the objects that a document is put into.
_MAX_DEPTH = 250
_MAX_SERIALISED_DEPTH = 254

BYTE_ORDER_MARK = codecs.BOM_UTF8

# OpenAI's value for a token whose log probability is minus infinity.
# Source: ChatCompletionTokenLogprob in https://github.com/openai/openai-openapi
LOWEST_LOGPROB = -9999.0

# Lenient parsing takes a hundred times longer, and nothing else runs meanwhile.
_MAX_LENIENT_BYTES = 2**24
_HALF = re.compile("[\ud800-\udfff]")

# The keys of texts that come in pieces: a half at the end of one may belong to the
# beginning of the next.
_TEXT_KEYS = {
    "content",
    "generation",
    "outputText",
    "response",
    "text",
    "text_output",
    "token",
}


def load(text: bytes | str) -> Any:
    """The JSON value in *text*. Raises ValueError if invalid, or nested too deeply."""
    document = orjson.loads(text)
    # The number of opening brackets is an upper bound of the depth, and cheap.
    if isinstance(text, str):
        brackets = text.count("[") + text.count("{")
    else:
        brackets = text.count(b"[") + text.count(b"{")
    if brackets > _MAX_DEPTH:
        nested = document
        for _ in range(_MAX_SERIALISED_DEPTH - _MAX_DEPTH):
            nested = [nested]
        try:
            orjson.dumps(nested)
        except orjson.JSONEncodeError as e:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep") from e
    return document


def load_lenient(text: bytes, *, keep_halves: bool = False) -> tuple[Any, bool]:
    """The value in *text*, which may be broken as the top of this module says; and
    whether it is JSON as it came.

    With *keep_halves*, halves of surrogate pairs stay in texts, to be joined with those
    of the next piece, or to be replaced by `whole_characters`. Raises ValueError.
    """
    try:
        return load(text), True
    except ValueError:
        if len(text) > _MAX_LENIENT_BYTES:
            raise
    try:
        document = json.loads(text.decode("utf-8-sig", "replace"), parse_int=_integer)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e
    return _serialisable(document, keep_halves), False


def in_whole_characters(value: Any) -> Any:
    """*value*, as load_lenient returns it with halves, without any."""
    return _serialisable(value, keep_halves=False)


def whole_characters(text: str) -> str:
    """*text* with halves of surrogate pairs joined, or replaced by U+FFFD."""
    if text.isascii() or not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _integer(digits: str) -> int | float:
    # As orjson reads them; it serialises no others.
    number = int(digits) if len(digits) <= 20 else 2**64
    return number if -(2**63) <= number < 2**64 else float(digits)


def _serialisable(
    value: Any,
    keep_halves: bool,
    key: str = "",
    is_logprob: bool = False,
    depth: int = 0,
) -> Any:
    """*value*, which stands under *key*, as orjson can serialise it."""
    if isinstance(value, str):
        return value if keep_halves and key in _TEXT_KEYS else whole_characters(value)
    if isinstance(value, float) and not math.isfinite(value):
        return LOWEST_LOGPROB if is_logprob else None
    if not isinstance(value, (dict, list)):
        return value
    if depth == _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, list):
        return [
            _serialisable(item, keep_halves, key, is_logprob, depth + 1)
            for item in value
        ]
    return {
        whole_characters(name): _serialisable(
            item,
            keep_halves,
            name,
            # `top_logprobs` has the tokens for keys. Offsets are no probabilities.
            (is_logprob or "logprob" in name.lower()) and name != "text_offset",
            depth + 1,
        )
        for name, item in value.items()
    }
