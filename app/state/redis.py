"""State in Redis or Valkey, which all machines share; and the machine's own without it.

Each operation is one Lua script, and one round trip. A counter is a hash, of parts and
their amounts, and every part begins with when it expires. It takes one server, or
several behind one address, and no cluster, since a script touches several keys.

While Redis is away, requests go on with what is kept locally. It is asked again once a
second, by one request, which may have to wait for _PATIENCE; the log says once a minute
that it is away.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from ..core.limits import Change, Draw, Standing
from ..core.routing import BreakerPolicy
from .breaker import KEPT, Circuit, Circuits
from .complaint import Complaint
from .limits import Counters, Drawn

logger = logging.getLogger("lastword")

PREFIX = "lastword:"

# Seconds to wait for a Redis that does not answer, and seconds from then on in which
# it is not asked.
_PATIENCE = 0.5
_REST = 1.0

# Requests of one process that speak to Redis at a time; the others wait for a place.
_CONNECTIONS = 64

# Seconds within which a request has to be settled. Longer than any stream.
_UNSETTLED = 86_400

# Changes that wait for Redis to come back, and how many of them go with one request.
_OWED = 10_000
_PAID = 5


class Away(Exception):
    """Redis does not answer, or did not a moment ago.

    *asked* says whether the command may have reached it.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self, reason: str, *, asked: bool
    ) -> None:
        super().__init__(reason)
        self.asked = asked


class Link:
    """The way to the Redis at *url*. Shared by all that one process keeps there."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            # A draw that is made twice would count twice.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._client = redis.Redis(connection_pool=pool)
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        self._clock, self._lock = clock, threading.Lock()
        self._away_until: float | None = None
        message = "Redis is away: this machine keeps its own limits"
        self._complain = Complaint(message, clock)

    def script(self, text: str) -> Script:
        return self._client.register_script(text)

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """What *script* answers. Raises Away."""
        # Looked at with the place in hand: who waited for one finds out that those who
        # had it have waited in vain.
        with self._places:
            trying = self._enter()
            try:
                answer = script([PREFIX + key for key in keys], args)
            except redis.RedisError as e:
                self._fail(e)
                raise Away(str(e), asked=True) from e
            if trying:
                self._return()
            return answer

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()

    def _enter(self) -> bool:
        """Whether this is the one request that finds out if Redis is back.

        Raises Away to all others, as long as it is away.
        """
        with self._lock:
            if self._away_until is None:
                return False
            if self._clock() < self._away_until:
                raise Away("it was away a moment ago", asked=False)
            self._away_until = self._clock() + _REST
            return True

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._away_until = self._clock() + _REST
        # The idle connections lead to where it was.
        self._client.connection_pool.disconnect(inuse_connections=False)
        self._complain(error)

    def _return(self) -> None:
        with self._lock:
            self._away_until = None
        logger.warning("Redis is back")


# KEYS: the reservation, and the counter of each draw. ARGV: now, how long the
# reservation is kept; of each draw its part, expiry, amount, and limit (-1: none).
# Answers: the number of the draw that was refused (-1: none), sums, the last expiries,
# and the entries in the way.
_DRAW = """
local now, sums, newest = tonumber(ARGV[1]), {}, {}
local refused, in_the_way = -1, {}
for i = 2, #KEYS do
  local sum, last, entries = 0, 0, {}
  local all = redis.call('HGETALL', KEYS[i])
  for j = 1, #all, 2 do
    local expires = tonumber(string.match(all[j], '^%d+'))
    local amount = tonumber(all[j + 1])
    if expires <= now then
      redis.call('HDEL', KEYS[i], all[j])
    else
      sum, last = sum + amount, math.max(last, expires)
      entries[#entries + 1] = expires
      entries[#entries + 1] = amount
    end
  end
  sums[i - 1], newest[i - 1] = sum, last
  local amount, limit = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  if refused < 0 and limit >= 0 and sum + amount > limit then
    refused, in_the_way = i - 2, entries
  end
end
if refused >= 0 then return {refused, sums, newest, in_the_way} end
redis.call('SET', KEYS[1], 1, 'EX', ARGV[2])
for i = 2, #KEYS do
  local part, expires = ARGV[4 * i - 5], tonumber(ARGV[4 * i - 4])
  local amount = tonumber(ARGV[4 * i - 3])
  if amount > 0 then
    redis.call('HINCRBY', KEYS[i], part, ARGV[4 * i - 3])
    sums[i - 1] = sums[i - 1] + amount
    newest[i - 1] = math.max(newest[i - 1], expires)
    redis.call('EXPIRE', KEYS[i], math.ceil(newest[i - 1] - now) + 5)
  end
end
return {-1, sums, newest, {}}
"""

# KEYS: the reservation, and the counter of each change. ARGV: now; of each change its
# part, expiry and amount. A reservation that is not there was settled before, or has
# gone with all counters.
_CHANGE = """
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
local now = tonumber(ARGV[1])
for i = 2, #KEYS do
  local part, expires = ARGV[3 * i - 4], tonumber(ARGV[3 * i - 3])
  local amount = tonumber(ARGV[3 * i - 2])
  if amount < 0 then
    local held = tonumber(redis.call('HGET', KEYS[i], part) or '0')
    if held + amount > 0 then
      redis.call('HINCRBY', KEYS[i], part, ARGV[3 * i - 2])
    else
      redis.call('HDEL', KEYS[i], part)
    end
  elseif expires > now then
    redis.call('HINCRBY', KEYS[i], part, ARGV[3 * i - 2])
    local left = math.ceil(expires - now) + 5
    if redis.call('TTL', KEYS[i]) < left then redis.call('EXPIRE', KEYS[i], left) end
  end
end
return 1
"""


class RedisCounters:
    """Counters in Redis. Raises Away."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._draw, self._change = link.script(_DRAW), link.script(_CHANGE)

    def draw(self, id: str, draws: Sequence[Draw], now: float) -> Drawn:
        keys = [_reservation(id), *(_counter(draw.counter) for draw in draws)]
        args: list[Any] = [now, _UNSETTLED]
        for draw in draws:
            limit = -1 if draw.limit is None else draw.limit
            args += (draw.part, draw.expires, draw.amount, limit)
        at, sums, newest, flat = self._link.run(self._draw, keys, args)
        standings = [Standing(*pair) for pair in zip(sums, newest, strict=True)]
        entries = list(zip(flat[::2], flat[1::2], strict=True))
        return Drawn(self, standings, None if at < 0 else at, entries)

    def change(self, id: str, changes: Sequence[Change], now: float) -> None:
        keys = [_reservation(id), *(_counter(change.counter) for change in changes)]
        args: list[Any] = [now]
        for change in changes:
            args += (change.part, change.expires, change.amount)
        self._link.run(self._change, keys, args)


def _reservation(id: str) -> str:
    return f"reservation:{id}"


def _counter(name: str) -> str:
    return f"counter:{name}"


class FailoverCounters:
    """Counters in Redis; those of *local* while it is away.

    What was drawn in Redis and could not be settled there is owed to it, and paid when
    it is back.
    """

    def __init__(self, shared: RedisCounters, local: Counters) -> None:
        self._shared, self._local = shared, local
        self._owed: deque[tuple[str, Sequence[Change]]] = deque(maxlen=_OWED)

    def draw(self, id: str, draws: Sequence[Draw], now: float) -> Drawn:
        try:
            drawn = self._shared.draw(id, draws, now)
        except Away as e:
            if e.asked:
                # It may have been made, though nobody has heard of it.
                self._owed.append((id, [_undone(draw) for draw in draws]))
            return self._local.draw(id, draws, now)
        self._pay(now)
        return Drawn(self, drawn.standings, drawn.refused, drawn.entries)

    def change(self, id: str, changes: Sequence[Change], now: float) -> None:
        try:
            self._shared.change(id, changes, now)
        except Away:
            self._owed.append((id, changes))

    def _pay(self, now: float) -> None:
        for _ in range(min(_PAID, len(self._owed))):
            try:
                id, changes = self._owed.popleft()
            except IndexError:
                return
            self.change(id, changes, now)


def _undone(draw: Draw) -> Change:
    return Change(draw.counter, draw.part, draw.expires, -draw.amount)


# All of a circuit as one hash; what is not set is absent. It has to do what `Circuit`
# and `current` do. KEYS: the circuit. ARGV: what to do, now, the policy's cooldown,
# minimum_requests, failure_threshold, failure_threshold_percentage (-1: none), whether
# the call has failed, and for how long to keep what it comes to.
_CIRCUIT = """
local what, now, cooldown = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local got = redis.call('HMGET', KEYS[1], 'began', 'calls', 'failures', 'open_until',
  'probed_until')
local began, calls, failures = tonumber(got[1] or now), tonumber(got[2] or 0),
  tonumber(got[3] or 0)
local open, probed = got[4], got[5]
if what == 'enter' then
  if open then
    redis.call('HSET', KEYS[1], 'probed_until', string.format('%.17g', now + cooldown))
    redis.call('EXPIRE', KEYS[1], ARGV[8])
  end
  return
end
local failed = ARGV[7] == '1'
if not open and now - began > cooldown then began, calls, failures = now, 0, 0 end
redis.call('DEL', KEYS[1])
if probed and not failed then
  began, calls, failures, open = now, 0, 0, false
else
  calls = calls + 1
  if failed then failures = failures + 1 end
  local most, share = tonumber(ARGV[5]), tonumber(ARGV[6])
  local tripped = calls >= tonumber(ARGV[4]) and (
    (most >= 0 and failures >= most)
    or (share >= 0 and failures > 0 and 100 * failures >= share * calls))
  if probed or tripped then open = string.format('%.17g', now + cooldown) end
end
redis.call('HSET', KEYS[1], 'began', string.format('%.17g', began), 'calls', calls,
  'failures', failures)
if open then redis.call('HSET', KEYS[1], 'open_until', open) end
redis.call('EXPIRE', KEYS[1], ARGV[8])
"""

_READ = """
return redis.call('HMGET', KEYS[1], 'began', 'calls', 'failures', 'open_until',
  'probed_until')
"""


class RedisCircuits:
    """Circuits in Redis. Raises Away."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._update, self._read = link.script(_CIRCUIT), link.script(_READ)

    def read(self, name: str) -> Circuit | None:
        row = self._link.run(self._read, [_circuit(name)], [])
        if row[0] is None:
            return None
        began, calls, failures, *until = row
        open_until, probed_until = (None if v is None else float(v) for v in until)
        return Circuit(
            float(began), int(calls), int(failures), open_until, probed_until
        )

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        self._run("enter", name, policy, False, now)

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        self._run("leave", name, policy, failed, now)

    def _run(
        self, what: str, name: str, policy: BreakerPolicy, failed: bool, now: float
    ) -> None:
        thresholds = (policy.failure_threshold, policy.failure_threshold_percentage)
        args = (
            what,
            now,
            policy.cooldown,
            policy.minimum_requests,
            *(-1 if value is None else value for value in thresholds),
            int(failed),
            int(policy.cooldown) + KEPT,
        )
        self._link.run(self._update, [_circuit(name)], args)


def _circuit(name: str) -> str:
    return f"circuit:{name}"


class FailoverCircuits:
    """Circuits in Redis; those of *local* while it is away."""

    def __init__(self, shared: Circuits, local: Circuits) -> None:
        self._shared, self._local = shared, local

    def read(self, name: str) -> Circuit | None:
        try:
            return self._shared.read(name)
        except Away:
            return self._local.read(name)

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> None:
        try:
            self._shared.enter(name, policy, now)
        except Away:
            self._local.enter(name, policy, now)

    def leave(self, name: str, policy: BreakerPolicy, failed: bool, now: float) -> None:
        try:
            self._shared.leave(name, policy, failed, now)
        except Away:
            self._local.leave(name, policy, failed, now)
