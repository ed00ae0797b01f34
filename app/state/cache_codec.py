"""Cache entries as bytes, for the SQLite file and for Redis.

`unpack` accepts only what `pack` of this version writes; all else is a cache miss.
"""

import zlib

import orjson

from ..core.caching import CacheEntry

# Bytes of the longest response that is cached. A longer one would block its worker for
# too long.
MAX_BODY_BYTES = 2**20

# Sizes, in bytes, for which compression is tried: shorter ones hardly shrink, longer
# ones block the worker for too long. The result is kept if it is at most this share.
_COMPRESSIBLE = range(1024, 2**16)
_MAX_RATIO = 0.9


def pack(entry: CacheEntry) -> bytes:
    """*entry* as bytes: a letter, its metadata as a line of JSON, its body.

    The letter is `z` if the rest is compressed, and else `j`.
    """
    warnings, headers = list(entry.warnings), dict(entry.headers)
    metadata = [entry.created_at, entry.max_age, headers, warnings]
    # The body follows as it is: inside the JSON it would have to be escaped, and could
    # not be any bytes. orjson writes no newline, so the first one ends the metadata.
    plain = orjson.dumps(metadata) + b"\n" + entry.body
    if len(plain) in _COMPRESSIBLE:
        packed = zlib.compress(plain, 1)
        if len(packed) < _MAX_RATIO * len(plain):
            return b"z" + packed
    return b"j" + plain


def unpack(value: bytes) -> CacheEntry | None:
    """The entry in *value*; None if there is none."""
    try:
        plain = zlib.decompress(value[1:]) if value[:1] == b"z" else value[1:]
        metadata, _, body = plain.partition(b"\n")
        created_at, max_age, headers, warnings = orjson.loads(metadata)
        return CacheEntry(body, created_at, max_age, dict(headers), tuple(warnings))
    except (TypeError, ValueError, zlib.error):
        return None
