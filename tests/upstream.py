"""A scripted upstream on a real socket, which records the requests that it receives.

An answer is a list of steps, executed in order on the open connection: bytes are sent,
a number is a pause in seconds, a function is called with the socket. A script may also
be a function from the request to its answer.
"""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Step = bytes | float | Callable[[socket.socket], None]
Answer = Sequence[Step]
Script = Answer | Callable[["ReceivedRequest"], Answer]


class Hangup(Exception):
    """Raised by a step to end the connection."""


def close(connection: socket.socket) -> None:
    """End the connection with an orderly close."""
    raise Hangup


def reset(connection: socket.socket) -> None:
    """End the connection with a TCP reset."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    raise Hangup


def wait_for(event: threading.Event) -> Callable[[socket.socket], None]:
    """Wait until *event* is set, for at most 10 seconds."""

    def step(connection: socket.socket) -> None:
        event.wait(10)

    return step


def until_closed(connection: socket.socket) -> None:
    """Wait until the other side closes the connection, and end it."""
    connection.settimeout(10)
    while connection.recv(4096):
        pass
    raise Hangup


def forever(piece: bytes, pause: float = 0) -> Callable[[socket.socket], None]:
    """Send *piece* repeatedly, until the other side closes or 10 seconds pass."""

    def step(connection: socket.socket) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(pause)

    return step


def dripped(data: bytes, pause: float = 0.05) -> "Answer":
    """*data*, byte by byte, with a pause after each."""
    return [step for i in range(len(data)) for step in (data[i : i + 1], pause)]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(repr=False)
class Upstream:
    """Answers requests with *answers*, one after the other; the last one repeats."""

    answers: list[Script]
    requests: list[ReceivedRequest] = field(default_factory=list)
    opened: int = 0
    closed: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None
        self.connections: set[socket.socket] = set()
        self._idle: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Upstream at port {self.port}"

    def encrypt(self, context: ssl.SSLContext) -> None:
        """Use TLS on all new connections."""
        self._tls = context

    @property
    def last(self) -> ReceivedRequest:
        return self.requests[-1]

    def stop(self) -> None:
        """Stop it, and close every open connection."""
        # A listener that is only closed would still accept in its thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def wait_closed(self, seconds: float = 5, *, but: int = 0) -> bool:
        """Whether all connections except *but* are closed within so many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.opened - but == self.closed:
                return True
            time.sleep(0.01)
        return False

    @property
    def held(self) -> int:
        """How many connections the other side keeps open, without idle ones."""
        with self._lock:
            return sum(map(_is_held, self.connections - self._idle))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.opened += 1
                self.connections.add(connection)
                number = self.opened
            threading.Thread(
                target=self._serve, args=(connection, number), daemon=True
            ).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain = connection
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection.makefile("rb") as reader:
                while request := self._wait(reader, number, plain):
                    script = self._next(request)
                    answer = script(request) if callable(script) else script
                    self._perform(connection, answer)
        except (OSError, Hangup, ValueError):  # ValueError: it was not HTTP.
            pass
        finally:
            connection.close()
            with self._lock:
                self.connections.discard(plain)
                self._idle.discard(plain)
                self.closed += 1

    def _wait(
        self, reader: Any, number: int, plain: socket.socket
    ) -> ReceivedRequest | None:
        """The next request; until it has arrived, the connection is idle."""
        with self._lock:
            self._idle.add(plain)
        try:
            return _request(reader, number)
        finally:
            with self._lock:
                self._idle.discard(plain)

    def _next(self, request: ReceivedRequest) -> Script:
        with self._lock:
            self.requests.append(request)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @staticmethod
    def _perform(connection: socket.socket, answer: Answer) -> None:
        for step in answer:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif callable(step):
                step(connection)
            else:
                time.sleep(step)


def _is_held(connection: socket.socket) -> bool:
    """Whether the other side has neither closed nor reset *connection*."""
    with contextlib.suppress(OSError):
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == _ESTABLISHED
    return False


# From Linux's tcp_states.h.
_ESTABLISHED = 1


def _request(reader: Any, number: int) -> ReceivedRequest | None:
    first = reader.readline()
    if not first:
        return None
    method, path, _ = first.decode().split(" ", 2)
    headers = dict(_headers(reader))
    body = reader.read(int(headers.get("content-length", 0)))
    return ReceivedRequest(method, path, headers, body, number)


def _headers(reader: Any) -> Iterator[tuple[str, str]]:
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        yield name.lower(), value.strip()


# Answers


def head(status: int = 200, *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status} Whatever", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def whole(
    body: Any,
    status: int = 200,
    *headers: str,
    content_type: str = "application/json",
) -> Answer:
    """*body*, as JSON unless it is bytes already, with its length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    framing = (f"Content-Length: {len(data)}", f"Content-Type: {content_type}")
    return [head(status, *framing, *headers) + data]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM = "Content-Type: text/event-stream"


def stream(*pieces: Step) -> Answer:
    """A stream of *pieces* in chunked encoding, with its end."""
    chunked = [chunk(p) if isinstance(p, bytes) else p for p in pieces]
    return [head(200, STREAM, "Transfer-Encoding: chunked"), *chunked, b"0\r\n\r\n"]


def cut_stream(*pieces: Step, by: Step = reset) -> Answer:
    """The same stream, cut before its end."""
    *all_but_the_end, _ = stream(*pieces)
    return [*all_but_the_end, 0.05, by]


def closing_stream(*pieces: Step) -> Answer:
    """The same stream without framing: it ends with the connection."""
    return [head(200, STREAM, "Connection: close"), *pieces, close]


def data(value: Any) -> bytes:
    """A server-sent event with *value* as JSON, unless it is bytes already."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"data: " + text + b"\n\n"


DONE = data(b"[DONE]")


def completion(text: str = " there", **changes: Any) -> dict[str, Any]:
    """A whole answer, as OpenAI would send it."""
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body = {
        "id": "cmpl-upstream",
        "object": "text_completion",
        "created": 1700000000,
        "model": "gpt-3.5-turbo-instruct:20230824-v2",
        "choices": [choice],
        "usage": usage,
    }
    return body | changes


def repeated(answer: dict[str, Any], count: int) -> dict[str, Any]:
    """The same answer with its only choice *count* times, under its own index."""
    (choice,) = answer["choices"]
    return answer | {"choices": [{**choice, "index": i} for i in range(count)]}


def scored_completion(text: str = " there", start: int = 2) -> dict[str, Any]:
    """The same with the log probability of its only token, which begins at *start*."""
    logprobs = {
        "tokens": [text],
        "token_logprobs": [-0.5],
        "top_logprobs": [{text: -0.5}],
        "text_offset": [start],
    }
    choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": "stop"}
    return completion(choices=[choice])


def frame(
    text: str = "", finish: str | None = None, index: int = 0, **changes: Any
) -> dict[str, Any]:
    """A chunk of a stream, as OpenAI would send it."""
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    body = {
        "id": "cmpl-upstream",
        "object": "text_completion",
        "created": 1700000000,
        "choices": [choice],
        "model": "gpt-3.5-turbo-instruct:20230824-v2",
    }
    return body | changes


def reply(text: str = " there", **changes: Any) -> dict[str, Any]:
    """A whole answer of a chat, as OpenAI would send it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    body = {
        "id": "chatcmpl-upstream",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
        "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
    }
    return body | changes


def delta(
    text: str | None = None, finish: str | None = None, index: int = 0, **changes: Any
) -> dict[str, Any]:
    """A chunk of a chat's stream; *changes* are other fields of its delta."""
    fields = ({} if text is None else {"content": text}) | changes
    choice = {
        "index": index,
        "delta": fields,
        "logprobs": None,
        "finish_reason": finish,
    }
    return {
        "id": "chatcmpl-upstream",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-4o-2024-08-06",
        "choices": [choice],
    }
