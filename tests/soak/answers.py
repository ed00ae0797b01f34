"""Answers over the limits, repeatedly through a real gunicorn, leak no memory.

    python -m tests.soak.answers --answers 200 --limit 4194304

One worker (gevent), one scripted provider in a process of its own. Prints the resident
memory of the worker for each kind of answer, and ends with 1 if one leaves more behind
than it may, or is not refused.
"""

import argparse
import asyncio
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any

import requests

from tests.e2e.server import Server, children
from tests.upstream import STREAM, chunk, data, frame, head

# The promise: the growth in bytes, in all, after every kind of answer.
MEMORY = 20 * 2**20

# Concurrent requests.
_AT_ONCE = 2

_JSON, _NDJSON = "Content-Type: application/json", "Content-Type: application/x-ndjson"
_CHUNKED = "Transfer-Encoding: chunked"
_PIECE = 2**16


@dataclass(frozen=True)
class Bomb:
    """An answer, and the request for it. *answer* yields its bytes for a limit."""

    answer: Callable[[int], Iterator[bytes]]
    stream: bool = False
    provider: str = "openai"
    body: Mapping[str, Any] = field(default_factory=dict)


def _chunked(first: bytes, piece: bytes, size: int) -> Iterator[bytes]:
    yield first
    for _ in range(size // len(piece) + 1):
        yield chunk(piece)
    yield b"0\r\n\r\n"


def _plain(first: bytes, piece: bytes, size: int) -> Iterator[bytes]:
    yield first
    for _ in range(size // len(piece) + 1):
        yield piece


def _over(*lines: str, status: int = 200) -> Callable[[int], Iterator[bytes]]:
    """Twice the limit, chunked."""
    first = head(status, _CHUNKED, *lines)
    return lambda limit: _chunked(first, b"x" * _PIECE, 2 * limit)


def _closing(*lines: str, status: int = 200) -> Callable[[int], Iterator[bytes]]:
    """Twice the limit, delimited by the close of the connection."""
    first = head(status, "Connection: close", *lines)
    return lambda limit: _plain(first, b"x" * _PIECE, 2 * limit)


def _declared(status: int = 200) -> Callable[[int], Iterator[bytes]]:
    """Twice the limit, with a Content-Length."""

    def answer(limit: int) -> Iterator[bytes]:
        size = 2 * limit // _PIECE * _PIECE + _PIECE
        first = head(status, _JSON, f"Content-Length: {size}")
        return _plain(first, b"x" * _PIECE, 2 * limit)

    return answer


def _gzip(*lines: str, status: int = 200) -> Callable[[int], Iterator[bytes]]:
    """A few kilobytes that decompress to eight times the limit."""

    def answer(limit: int) -> Iterator[bytes]:
        packed = gzip.compress(b"data: " + b"x" * 8 * limit, 1)
        length = f"Content-Length: {len(packed)}"
        yield head(status, "Content-Encoding: gzip", length, *lines) + packed

    return answer


def _json(document: Callable[[str], Any], share: float = 0.9) -> Any:
    """A document whose text has that *share* of the limit, so that it is parsed."""

    def answer(limit: int) -> Iterator[bytes]:
        body = json.dumps(document("x" * int(share * limit))).encode()
        yield head(200, _JSON, f"Content-Length: {len(body)}") + body

    return answer


def _reply(text: str) -> Any:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def _event(begin: bytes, line: bytes) -> Callable[[int], Iterator[bytes]]:
    """A stream that *begins* well, followed by an event over the limit."""
    first = head(200, STREAM, _CHUNKED) + (chunk(begin) if begin else b"")
    return lambda limit: _chunked(first, line, 2 * limit)


_BEGUN = data(frame("Hel"))

BOMBS: dict[str, Bomb] = {
    "declared length": Bomb(_declared()),
    "chunks": Bomb(_over(_JSON)),
    "until the end": Bomb(_closing(_JSON)),
    "gzip": Bomb(_gzip(_JSON)),
    "redirect": Bomb(_over(status=302)),
    "error, declared": Bomb(_declared(500)),
    "error, chunks": Bomb(_over(status=503)),
    "error, until the end": Bomb(_closing(status=429)),
    "error, gzip": Bomb(_gzip(status=400)),
    "error in an answer": Bomb(_json(lambda text: {"error": {"message": text}})),
    "no completion": Bomb(_json(lambda text: {"text": text})),
    "no JSON": Bomb(
        lambda limit: _plain(
            head(200, "Connection: close"), b"x" * _PIECE, int(0.9 * limit)
        )
    ),
    "parts": Bomb(
        _json(_reply, 0.4), provider="groq", body={"prompt": ["a", "b", "c", "d"]}
    ),
    "event": Bomb(_event(b"", b"data: " + b"x" * _PIECE), stream=True),
    "event of lines": Bomb(
        _event(b"", (b"data: " + b"x" * 505 + b"\n") * 128), stream=True
    ),
    "line": Bomb(_event(b"", b"x" * _PIECE), stream=True),
    "late event": Bomb(_event(_BEGUN, b"data: " + b"x" * _PIECE), stream=True),
    "event in gzip": Bomb(_gzip(STREAM), stream=True),
    "whole, in a stream": Bomb(_over(_JSON), stream=True),
    "line of JSON": Bomb(_over(_NDJSON), stream=True, provider="ollama"),
}


# Upstream


def upstream(limit: int, port: "Queue[int]") -> None:
    """A provider that answers with the bomb whose number begins the path."""
    asyncio.run(_upstream(limit, port))


async def _upstream(limit: int, port: "Queue[int]") -> None:
    bombs = list(BOMBS.values())
    ready: dict[int, list[bytes]] = {}

    async def answer(reader: Any, writer: Any) -> None:
        try:
            while first := await reader.readuntil(b"\r\n\r\n"):
                length = int(first.lower().partition(b"content-length: ")[2].split()[0])
                await reader.readexactly(length)
                number = int(first.split(b"/")[1])
                pieces = ready.get(number) or list(bombs[number].answer(limit))
                ready.clear()
                ready[number] = pieces
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if b"Connection: close" in pieces[0]:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20)
    port.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


@contextmanager
def provider(limit: int) -> Iterator[int]:
    """The port of an upstream in a process of its own."""
    port: Queue[int] = Queue()
    server = Process(target=upstream, args=(limit, port), daemon=True)
    server.start()
    try:
        yield port.get(timeout=10)
    finally:
        server.terminate()
        server.join()


# Callers


@contextmanager
def gateway(worker: str, limit: int) -> Iterator[Server]:
    """A gateway with one *worker*, and *limit* bytes as the limit of answers."""
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {worker} --threads 16",
        WEB_CONCURRENCY="1",
        GATEWAY_MAX_ANSWER_BYTES=str(limit),
        GATEWAY_MAX_EVENT_BYTES=str(limit),
    )
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def refused(server: Server, port: int, name: str) -> bool:
    """Whether the gateway refuses that bomb with a short error."""
    bomb = BOMBS[name]
    number = list(BOMBS).index(name)
    headers = {
        "x-portkey-provider": bomb.provider,
        "x-portkey-custom-host": f"http://127.0.0.1:{port}/{number}/v1",
        "Authorization": "Bearer sk-1",
        "Connection": "close",
    }
    body = {"model": "m", "prompt": "Hi", "stream": bomb.stream} | dict(bomb.body)
    answer = requests.post(
        server.url + "/v1/completions", json=body, headers=headers, timeout=60
    )
    return '"error"' in answer.text and len(answer.text) < 20_000


def refuse_all(server: Server, port: int, name: str, count: int) -> bool:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return all(pool.map(lambda _: refused(server, port, name), range(count)))


def resident(server: Server) -> int:
    """The resident memory of the worker, in bytes."""
    lines = [
        line
        for pid in children(server.pid)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    ]
    return sum(1024 * int(li.split()[1]) for li in lines if li.startswith("VmRSS:"))


def warmed_up(server: Server, port: int) -> int:
    """The memory of a worker after each kind of answer."""
    for name in BOMBS:
        refuse_all(server, port, name, 4)
    # The observers of finished requests run once a second.
    time.sleep(1.5)
    return resident(server)


def measured(server: Server, port: int, count: int) -> bool:
    """Request all bombs, and print a row for each. Whether memory stays bounded."""
    first = warmed_up(server, port)
    print(f"{'answer':<22} {'refused':>7} {'seconds':>7} {'memory':>8} {'change':>8}")
    print(f"{'(warm-up)':<22} {4 * len(BOMBS):>7} {'':>7} {first >> 20:>5} MB")
    kept = True
    for name in BOMBS:
        began = time.monotonic()
        all_refused = refuse_all(server, port, name, count)
        took = time.monotonic() - began
        time.sleep(1.5)
        now = resident(server)
        kept = kept and all_refused and now - first < MEMORY
        refusals = count if all_refused else "not all"
        print(
            f"{name:<22} {refusals:>7} {took:>6.1f}s {now >> 20:>5} MB "
            f"{(now - first) / 2**20:>+5.1f} MB",
            flush=True,
        )
    return kept


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--limit", type=int, default=4 * 2**20)
    parser.add_argument("--worker", default="gevent")
    args = parser.parse_args()
    with provider(args.limit) as port, gateway(args.worker, args.limit) as server:
        kept = measured(server, port, args.answers)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
