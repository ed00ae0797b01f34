"""Bytes recorded from real servers: each file holds a request and the exact answer.

`llamacpp/` is llama.cpp's server as of 2026-11, with the model that the embedded
engine uses.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def answer(name: str) -> tuple[int, bytes]:
    """Status and body of a recorded answer, without chunked framing."""
    recording = (_FOLDER / f"{name}.txt").read_bytes()
    response = recording.partition(b"### response (exact bytes)\n")[2]
    head, _, body = response.partition(b"\r\n\r\n")
    chunked = b"Transfer-Encoding: chunked" in head
    return int(head.split()[1]), _unchunked(body) if chunked else body


def raw(name: str) -> bytes:
    """A recorded answer with its head and framing, as received from the socket."""
    recording = (_FOLDER / f"{name}.txt").read_bytes()
    return recording.partition(b"### response (exact bytes)\n")[2]


def _unchunked(body: bytes) -> bytes:
    pieces = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(rest[:length])
        body = rest[length + 2 :] if length else b""
    return b"".join(pieces)
