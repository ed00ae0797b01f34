"""Another process on the same store. Its arguments are a command:

    requests ADDRESS TIMES NOW    reserve one of 100 requests a minute, TIMES times
    slots ADDRESS TIMES NOW       the same for one of 3 parallel slots, and keep it
    trip FILE                     fail twice at the target `t`

Prints how often that succeeded.
"""

import sys
from pathlib import Path

from app.core.counters import LimitReached, UsageRequest
from app.core.limits import Limits
from app.core.routing import BreakerPolicy, Target
from app.state.breaker import Breaker
from app.state.local_store import LocalCircuits, LocalCounters, LocalFile
from app.state.meter import Counters, Meter
from app.state.redis_store import RedisClient, RedisCounters

LIMITS = {
    "requests": Limits(requests_per_minute=100),
    "slots": Limits(requests_in_parallel=3),
}
TARGET = Target("p", identity="t", breaker=BreakerPolicy(failure_threshold=2))


def reserve(counters: Counters, limits: Limits, times: int, now: float) -> int:
    meter, count = Meter(counters), 0
    for _ in range(times):
        try:
            meter.reserve([UsageRequest("key:a", limits)], now)
            count += 1
        except LimitReached:
            pass
    return count


def trip(path: str) -> int:
    breaker = Breaker(LocalCircuits(LocalFile(Path(path))))
    for _ in range(2):
        breaker.enter(TARGET)
        breaker.leave(TARGET, 500)
    return 2


def run(command: str, address: str, *numbers: str) -> int:
    if command == "trip":
        return trip(address)
    counters: Counters
    if address.startswith("redis"):
        counters = RedisCounters(RedisClient(address))
    else:
        counters = LocalCounters(LocalFile(Path(address)))
    times, now = numbers
    return reserve(counters, LIMITS[command], int(times), float(now))


if __name__ == "__main__":
    # All processes begin together, on a signal of the test.
    print("ready", flush=True)
    sys.stdin.readline()
    print(run(*sys.argv[1:]))
