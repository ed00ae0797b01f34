"""Another process: opens what its first argument names, and does what it is told.

    limits WHERE TIMES NOW    ask for one of 100 requests a minute, TIMES times
    places WHERE TIMES NOW    the same for one of 3 parallel places, and keep it
    trip WHERE                fail twice at the target `t`

Prints how often it was let through.
"""

import sys
from pathlib import Path

from app.core.limits import LimitReached, Limits, UsageRequest
from app.core.routing import BreakerPolicy, Target
from app.state.breaker import Breaker, Circuits
from app.state.local_store import LocalCircuits, LocalCounters, LocalFile
from app.state.meter import Counters, Meter
from app.state.redis_store import RedisCircuits, RedisClient, RedisCounters

LIMITS = {
    "limits": Limits(requests_per_minute=100),
    "places": Limits(requests_in_parallel=3),
}
TARGET = Target("p", identity="t", breaker=BreakerPolicy(failure_threshold=2))


def opened(where: str) -> tuple[Counters, Circuits]:
    if where.startswith("redis"):
        link = RedisClient(where)
        return RedisCounters(link), RedisCircuits(link)
    file = LocalFile(Path(where))
    return LocalCounters(file), LocalCircuits(file)


def let_through(counters: Counters, what: str, times: int, now: float) -> int:
    meter, count = Meter(counters), 0
    for _ in range(times):
        try:
            meter.reserve([UsageRequest("key:a", LIMITS[what])], now)
            count += 1
        except LimitReached:
            pass
    return count


def trip(circuits: Circuits) -> int:
    breaker = Breaker(circuits)
    for _ in range(2):
        breaker.enter(TARGET)
        breaker.leave(TARGET, 500)
    return 2


if __name__ == "__main__":
    what, where, *numbers = sys.argv[1:]
    counters, circuits = opened(where)
    # All begin at once, when the test says so.
    print("ready", flush=True)
    sys.stdin.readline()
    if what == "trip":
        print(trip(circuits))
    else:
        print(let_through(counters, what, int(numbers[0]), float(numbers[1])))
