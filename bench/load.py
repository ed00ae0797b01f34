"""What loads the contestants: a generator in Rust for whole answers (k9-load, of PyPI);
for streams a reader of our own, which looks at each event when it comes.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Wholes:
    """What a while of whole answers was like. Latencies in seconds."""

    count: int
    failed: int
    p50: float
    p99: float


def wholes(
    url: str, headers: Headers, body: Any, connections: int, seconds: float
) -> Wholes:
    """Ask *connections* times at once, again and again."""
    import k9
    from k9 import plan

    step = plan.post(url, json=body, headers=dict(headers))
    options = {"discardResponseBodies": True}
    found = k9.run(
        plan.Plan([step], options=options),
        vus=connections,
        duration=seconds,
        timeout=seconds + 60,
    )
    took = found.metric("http_req_duration")
    failed = found.metric("http_req_failed")
    return Wholes(
        int(found.metric("http_reqs")["count"]),
        int(failed["passes"]),
        took["med"] / 1000,
        took["p(99)"] / 1000,
    )


@dataclass
class Streams:
    """What many streams at once were like. Times in seconds."""

    whole: int = 0
    cut: int = 0
    events: int = 0
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


class _Reader(asyncio.Protocol):
    """One stream, from its request to its end."""

    def __init__(self, request: bytes, found: Streams) -> None:
        self._request, self._found = request, found
        self._before: float | None = None
        self._end = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._asked = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now, events = time.monotonic(), data.count(b"data: {")
        if events and self._before is None:
            self._found.firsts.append(now - self._asked)
        elif events and self._before is not None:
            self._found.gaps.append(now - self._before)
        if events:
            self._before = now
            self._found.events += events
        self._end = (self._end + data)[-64:]
        if self._end.endswith(b"0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if b"data: [DONE]" in self._end:
            self._found.whole += 1
        else:
            self._found.cut += 1
        if not self.over.done():
            self.over.set_result(None)


def streams(
    url: str, headers: Headers, body: Any, connections: int, ramp: float
) -> Streams:
    """One stream on each of so many connections, which begin within *ramp* seconds."""
    return asyncio.run(_streams(url, headers, body, connections, ramp))


async def _streams(
    url: str, headers: Headers, body: Any, connections: int, ramp: float
) -> Streams:
    found, loop = Streams(), asyncio.get_running_loop()
    host, _, path = url.removeprefix("http://").partition("/")
    request = _request(host, path, headers, body)
    name, _, port = host.partition(":")

    async def one(wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            _, reader = await loop.create_connection(
                lambda: _Reader(request, found), name, int(port)
            )
        except OSError:
            found.cut += 1
            return
        await reader.over

    waits = [ramp * n / connections for n in range(connections)]
    async with asyncio.timeout(180):
        await asyncio.gather(*map(one, waits))
    return found


def _request(host: str, path: str, headers: Headers, body: Any) -> bytes:
    data = json.dumps(body).encode()
    lines = {
        "Host": host,
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /{path} HTTP/1.1\r\n{head}\r\n".encode() + data
