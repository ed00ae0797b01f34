"""AWS' binary event stream, encoded from a readable listing.

Each line of a listing is {"event": its type, "payload": its JSON}; a payload
{"json": ...} is wrapped in base64, as InvokeModelWithResponseStream does it. An
"exception" in place of "event" is one of its errors.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html
"""

import base64
import json
import struct
import zlib
from typing import Any

_STRING = 7


def frames(listing: str) -> bytes:
    """The frames of a whole listing."""
    return b"".join(frame(json.loads(line)) for line in listing.splitlines() if line)


def frame(described: dict[str, Any]) -> bytes:
    """One frame: prelude and its checksum, headers, payload, checksum of it all."""
    kind = "exception" if "exception" in described else "event"
    headers = _header(f":{kind}-type", described[kind])
    headers += _header(":content-type", "application/json")
    headers += _header(":message-type", kind)
    payload = json.dumps(_wrapped(described["payload"])).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + _checksum(prelude) + headers + payload
    return message + _checksum(message)


def _wrapped(payload: dict[str, Any]) -> dict[str, Any]:
    if "json" not in payload:
        return payload
    inner = json.dumps(payload["json"]).encode()
    return {"bytes": base64.b64encode(inner).decode()}


def _header(name: str, value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("!B", len(name)) + name.encode() + _typed(encoded)


def _typed(value: bytes) -> bytes:
    return struct.pack("!BH", _STRING, len(value)) + value


def _checksum(data: bytes) -> bytes:
    return struct.pack("!I", zlib.crc32(data))
