"""Many parallel streams through a real gunicorn: none is lost, none is truncated.

    python -m tests.soak.streams --streams 2000 --seconds 60 --rounds 2

Prints a table with a row for each round, and ends with 1 if a promise is broken.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Process, Queue
from typing import Any

from bench import process
from bench.process import raise_limit
from bench.watcher import watch
from tests.e2e.server import Server, children, eventually
from tests.upstream import DONE, STREAM, chunk, data, frame, head

# Events per second of each stream.
_RATE = 2

# Seconds within which all start, long before the first one ends.
_RAMP = 10

# The promises, in seconds and bytes.
_HEALTH = 0.25
_MEMORY = 350 * 2**20


@dataclass
class Round:
    """The results of one round of streams. Gaps are seconds between two events."""

    whole: int = 0
    cut: int = 0
    lost: int = 0
    gaps: list[float] = field(default_factory=list)
    health: float = 0.0
    memory: int = 0

    @property
    def p99(self) -> float:
        return sorted(self.gaps)[len(self.gaps) * 99 // 100] if self.gaps else 0.0


# Upstream


def upstream(seconds: float, port: "Queue[int]") -> None:
    """A provider that streams events at that rate, for so many seconds."""
    raise_limit()
    asyncio.run(_upstream(seconds, port))


async def _upstream(seconds: float, port: "Queue[int]") -> None:
    async def answer(reader: Any, writer: Any) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await _answer(writer, seconds)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    port.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _answer(writer: Any, seconds: float) -> None:
    writer.write(head(200, STREAM, "Transfer-Encoding: chunked"))
    for number in range(int(seconds * _RATE)):
        writer.write(chunk(data(frame(f"{number} "))))
        await writer.drain()
        await asyncio.sleep(1 / _RATE)
    writer.write(chunk(data(frame("", "stop"))) + chunk(DONE) + b"0\r\n\r\n")
    await writer.drain()


# Callers


async def run(server: Server, upstream: int, count: int, seconds: float) -> Round:
    """One round of *count* streams through *server*."""
    result = Round()
    callers = [_call(server.port, upstream, result, n / count) for n in range(count)]
    with watch(server.url + "/healthz", server.pid) as monitor:
        await asyncio.wait_for(asyncio.gather(*callers), seconds + _RAMP + 60)
    result.health, result.memory = monitor.slowest, monitor.memory
    return result


async def _call(gateway: int, upstream: int, result: Round, wait: float) -> None:
    await asyncio.sleep(_RAMP * wait)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway)
        writer.write(_request(upstream))
        received = await _read(reader, result)
        writer.close()
    except OSError:
        result.lost += 1
        return
    if received.endswith(DONE) and b'"error"' not in received:
        result.whole += 1
    else:
        result.cut += 1


def _request(upstream: int) -> bytes:
    body = json.dumps({"model": "m", "prompt": "Hi", "stream": True})
    lines = [
        "POST /v1/completions HTTP/1.1",
        "Host: gateway",
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: http://127.0.0.1:{upstream}/v1",
        "Authorization: Bearer sk-1",
        "Content-Type: application/json",
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body]).encode()


async def _read(reader: Any, result: Round) -> bytes:
    """Read a stream to its end and return its tail; record the gaps between events."""
    received, before = b"", None
    while piece := await reader.read(65536):
        now = time.monotonic()
        if before is not None:
            result.gaps.append(now - before)
        before = now
        received = (received + piece)[-4096:]
    return received.removesuffix(b"0\r\n\r\n").removesuffix(b"\r\n")


# Processes


def processes(server: Server) -> list[int]:
    return [server.pid, *children(server.pid)]


def memory(pids: list[int]) -> int:
    return sum(map(process.memory, pids))


def files(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


@contextmanager
def provider(seconds: float) -> Iterator[int]:
    """The port of an upstream in a process of its own."""
    port: Queue[int] = Queue()
    server = Process(target=upstream, args=(seconds, port), daemon=True)
    server.start()
    try:
        yield port.get(timeout=10)
    finally:
        server.terminate()
        server.join()


_HEAD = (
    f"{'streams':>8} {'lost':>5} {'cut':>5} {'p99 gap':>8} {'health':>7} "
    f"{'most':>7} {'memory':>16} {'open files':>12}"
)


def measured(server: Server, port: int, count: int, seconds: float) -> bool:
    """Run a round, and print its row. Whether all promises hold."""
    pids = processes(server)
    before = memory(pids), files(pids)
    result = asyncio.run(run(server, port, count, seconds))
    time.sleep(1.5)
    after = memory(pids), files(pids)
    print(
        f"{result.whole:>8} {result.lost:>5} {result.cut:>5} {result.p99:>7.2f}s "
        f"{1000 * result.health:>5.0f}ms {result.memory >> 20:>4} MB "
        f"{before[0] >> 20:>5} -> {after[0] >> 20:>3} MB "
        f"{before[1]:>5} -> {after[1]:>3}",
        flush=True,
    )
    kept = result.whole == count and result.health < _HEALTH
    return kept and result.memory < _MEMORY


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--worker", default="gevent")
    args = parser.parse_args()
    raise_limit()
    server = Server(
        GUNICORN_CMD_ARGS=f"-k {args.worker} --threads 1100", WEB_CONCURRENCY="2"
    )
    try:
        with provider(args.seconds) as port:
            server.wait_until_ready()
            eventually(lambda: len(children(server.pid)) == 2)
            print(_HEAD)
            rounds = range(args.rounds)
            kept = [measured(server, port, args.streams, args.seconds) for _ in rounds]
    finally:
        server.stop()
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
