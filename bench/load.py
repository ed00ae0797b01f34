"""Load generators: k9-load for whole answers, a reader of our own for streams.

k9-load is written in Rust, so that it is not the bottleneck, but it only knows whole
responses. The reader records the time of each event as it arrives.

Source: https://pypi.org/project/k9-load/
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Headers = Mapping[str, str]


@dataclass(frozen=True)
class WholeStats:
    """Counts and latencies, in seconds, of whole answers."""

    count: int
    failed: int
    p50: float
    p99: float


def load_whole(
    url: str, headers: Headers, body: Any, connections: int, seconds: float
) -> WholeStats:
    """Send requests on so many *connections* at once, again and again."""
    # Here, as only `make bench` installs it.
    import k9
    from k9 import plan

    step = plan.post(url, json=body, headers=dict(headers))
    options = {"discardResponseBodies": True}
    stats = k9.run(
        plan.Plan([step], options=options),
        vus=connections,
        duration=seconds,
        timeout=seconds + 60,
    )
    latency = stats.metric("http_req_duration")
    failed = stats.metric("http_req_failed")
    return WholeStats(
        int(stats.metric("http_reqs")["count"]),
        int(failed["passes"]),
        latency["med"] / 1000,
        latency["p(99)"] / 1000,
    )


@dataclass
class StreamStats:
    """Counts and times, in seconds, of many streams."""

    whole: int = 0
    cut: int = 0
    events: int = 0
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


class _Reader(asyncio.Protocol):
    """One stream, from its request to its end."""

    def __init__(self, request: bytes, stats: StreamStats) -> None:
        self._request, self._stats = request, stats
        self._last: float | None = None
        self._end = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._sent = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # Counted and not parsed, which would cost more than the gateway does. An event
        # that is cut between two reads counts once, unless within these seven bytes.
        now, events = time.monotonic(), data.count(b"data: {")
        if events and self._last is None:
            self._stats.firsts.append(now - self._sent)
        elif events and self._last is not None:
            self._stats.gaps.append(now - self._last)
        if events:
            self._last = now
            self._stats.events += events
        # The end of a chunked body; the connection would be kept alive after it.
        self._end = (self._end + data)[-64:]
        if self._end.endswith(b"0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if b"data: [DONE]" in self._end:
            self._stats.whole += 1
        else:
            self._stats.cut += 1
        if not self.closed.done():
            self.closed.set_result(None)


def load_streams(
    url: str, headers: Headers, body: Any, connections: int, ramp: float
) -> StreamStats:
    """One stream on each of so many connections, which begin within *ramp* seconds."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    content = json.dumps(body).encode()
    lines = {
        "Host": host,
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        **headers,
    }
    head = "".join(f"{field}: {value}\r\n" for field, value in lines.items())
    request = f"POST /{path} HTTP/1.1\r\n{head}\r\n".encode() + content
    stats = StreamStats()

    async def load_one(delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            _, reader = await asyncio.get_running_loop().create_connection(
                lambda: _Reader(request, stats), name, int(port)
            )
        except OSError:
            stats.cut += 1
            return
        await reader.closed

    async def load_all() -> None:
        async with asyncio.timeout(180):
            await asyncio.gather(
                *(load_one(ramp * n / connections) for n in range(connections))
            )

    asyncio.run(load_all())
    return stats
