"""State in Redis or Valkey, which all machines share.

Each operation on limits and circuits is one Lua script, and one round trip. A counter
is a hash, of parts and their amounts, and every part begins with when it expires. It
takes one server, or several behind one address, and no cluster, since a script touches
several keys.

While Redis is away, everybody is told so at once. It is asked again once a second, by
one caller, which may have to wait for _PATIENCE; the log says once a minute that it is
away. failover.py has what is done without it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from ..core.caching import CacheEntry
from ..core.limits import CounterAdjustment, CounterEntry, CounterState
from ..core.routing import BreakerPolicy
from .breaker import KEPT, Circuit
from .meter import Changes, Drawn, hold
from .rate_limited_warning import RateLimitedWarning
from .response_store import LARGEST, pack, unpack

T = TypeVar("T")

logger = logging.getLogger("lastword")

PREFIX = "lastword:"

# Seconds to wait for a Redis that does not answer, and seconds from then on in which
# it is not asked.
_PATIENCE = 0.5
_REST = 1.0

# Callers of one process that speak to Redis at a time; the others wait for a place.
_CONNECTIONS = 64

# Seconds within which a request has to be settled. Longer than any stream.
_UNSETTLED = 86_400

# What a Redis comes to that cannot be reached.
_SILENT = (redis.ConnectionError, redis.TimeoutError)


class RedisUnavailable(Exception):
    """Redis does not answer, or did not a moment ago.

    *asked* says whether the command may have reached it.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self, reason: str, *, asked: bool
    ) -> None:
        super().__init__(reason)
        self.asked = asked


@dataclass(frozen=True, slots=True)
class RedisScriptCall:
    """A script, and what it is to be run with."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]

    def on(self, client: redis.Redis) -> Any:
        """What it answers; if *client* is a pipeline, that comes later."""
        return self.script([PREFIX + key for key in self.keys], self.args, client)


class RedisClient:
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
        self._complain = RateLimitedWarning(message, clock)

    @property
    def is_away(self) -> bool:
        """Whether it has not answered, and nobody has found it back since."""
        return self._away_until is not None

    def script(self, text: str) -> Script:
        return self._client.register_script(text)

    def run(self, call: RedisScriptCall) -> Any:
        """What *call* answers. Raises Away, also if Redis refuses to do it."""
        return self.ask(call.on, redis.RedisError)

    def run_all(self, calls: Sequence[RedisScriptCall]) -> list[Any]:
        """What each of *calls* answers, which are sent in one go. Raises Away.

        Then any of them may have been made.
        """
        return self.ask(lambda client: _piped(client, calls), redis.RedisError)

    def ask(
        self,
        command: Callable[[redis.Redis], T],
        failures: type[Exception] | tuple[type[Exception], ...] = _SILENT,
    ) -> T:
        """What *command* comes to. Raises Away in place of *failures*."""
        # Looked at with the place in hand: who waited for one finds out that those who
        # had it have waited in vain.
        with self._places:
            trying = self._enter()
            try:
                answer = command(self._client)
            except failures as e:
                self._fail(e)
                raise RedisUnavailable(str(e), asked=True) from e
            if trying:
                self._return()
            return answer

    def close(self) -> None:
        """Let go of all connections; it may go on, with new ones."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def _enter(self) -> bool:
        """Whether this is the one caller that finds out if Redis is back.

        Raises Away to all others, as long as it is away.
        """
        with self._lock:
            if self._away_until is None:
                return False
            if self._clock() < self._away_until:
                raise RedisUnavailable("it was away a moment ago", asked=False)
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
            was_away, self._away_until = self.is_away, None
        if was_away:
            logger.warning("Redis is back")


def _piped(client: redis.Redis, calls: Sequence[RedisScriptCall]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for call in calls:
            call.on(pipe)
        return pipe.execute()


# KEYS: the counter of each draw, and what was drawn on each holder. ARGV: now, how long
# the latter is kept unsettled; of each draw its part, expiry, amount, and limit (-1:
# none). Answers: the number of the draw that was refused (-1: none), sums, the last
# expiries, and the entries in the way.
_DRAW = """
local now, sums, newest = tonumber(ARGV[1]), {}, {}
local refused, in_the_way = -1, {}
local count = (#ARGV - 2) / 4
for i = 1, count do
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
  sums[i], newest[i] = sum, last
  local amount, limit = tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2])
  if refused < 0 and limit >= 0 and sum + amount > limit then
    refused, in_the_way = i - 1, entries
  end
end
if refused >= 0 then return {refused, sums, newest, in_the_way} end
for i = count + 1, #KEYS do redis.call('SET', KEYS[i], 1, 'EX', ARGV[2]) end
for i = 1, count do
  local part, expires = ARGV[4 * i - 1], tonumber(ARGV[4 * i])
  local amount = tonumber(ARGV[4 * i + 1])
  if amount > 0 then
    redis.call('HINCRBY', KEYS[i], part, ARGV[4 * i + 1])
    sums[i] = sums[i] + amount
    newest[i] = math.max(newest[i], expires)
    redis.call('EXPIRE', KEYS[i], math.ceil(newest[i] - now) + 5)
  end
end
return {-1, sums, newest, {}}
"""

# KEYS: what was drawn on a holder, and the counter of each change. ARGV: now; of each
# change its part, expiry and amount. What is not there was settled before, or has gone
# with all counters.
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

    def __init__(self, link: RedisClient) -> None:
        self._link = link
        self._draw, self._change = link.script(_DRAW), link.script(_CHANGE)

    def draw(self, id: str, draws: Sequence[CounterEntry], now: float) -> Drawn:
        answer = self._link.run(self._drawing(id, draws, now))
        at, sums, newest, flat = answer
        standings = [CounterState(*pair) for pair in zip(sums, newest, strict=True)]
        entries = list(zip(flat[::2], flat[1::2], strict=True))
        return Drawn(self, standings, None if at < 0 else at, entries)

    def _drawing(
        self, id: str, draws: Sequence[CounterEntry], now: float
    ) -> RedisScriptCall:
        holders = dict.fromkeys(draw.holder for draw in draws)
        keys = [_counter(draw.counter) for draw in draws]
        keys += [_reservation(hold(id, holder)) for holder in holders]
        args: list[Any] = [now, _UNSETTLED]
        for draw in draws:
            limit = -1 if draw.limit is None else draw.limit
            args += (draw.part, draw.expires, draw.amount, limit)
        return RedisScriptCall(self._draw, keys, args)

    def change(self, changes: Changes, now: float) -> None:
        self._link.run_all(
            [self.changing(hold, own, now) for hold, own in changes.items()]
        )

    def changing(
        self, hold: str, changes: Sequence[CounterAdjustment], now: float
    ) -> RedisScriptCall:
        """What corrects that which was drawn as *hold*, the first time it is run."""
        keys = [_reservation(hold), *(_counter(change.counter) for change in changes)]
        args: list[Any] = [now]
        for change in changes:
            args += (change.part, change.expires, change.amount)
        return RedisScriptCall(self._change, keys, args)

    def close(self) -> None:
        self._link.close()


def _reservation(hold: str) -> str:
    return f"reservation:{hold}"


def _counter(name: str) -> str:
    return f"counter:{name}"


_FIELDS = """
local function read()
  return redis.call('HMGET', KEYS[1], 'began', 'calls', 'failures', 'open_until',
    'probed_until')
end
"""

# KEYS: the circuit.
_READ = _FIELDS + "return read()"

# All of a circuit as one hash; what is not set is absent. It has to do what `Circuit`
# and `current` do. KEYS: the circuit, and the list of all circuits. ARGV: what to do,
# now, the policy's cooldown, minimum_requests, failure_threshold,
# failure_threshold_percentage (-1: none), whether the call has failed, for how long to
# keep what it comes to, and the circuit's name. Answers as _READ does.
_CIRCUIT = _FIELDS + """
local what, now, cooldown = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local got = read()
local began, calls, failures = tonumber(got[1] or now), tonumber(got[2] or 0),
  tonumber(got[3] or 0)
local open, probed = got[4], got[5]
if what == 'enter' then
  if open then
    redis.call('HSET', KEYS[1], 'probed_until', string.format('%.17g', now + cooldown))
    redis.call('EXPIRE', KEYS[1], ARGV[8])
  end
  return read()
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
redis.call('ZADD', KEYS[2], now, ARGV[9])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1001)
redis.call('EXPIRE', KEYS[2], 86400)
return read()
"""

# KEYS: the list of all circuits. ARGV: how many are wanted. Answers: names and what
# _READ answers, in turn; those that are open first, then the one that was called last.
_KNOWN = """
local open, closed, told = {}, {}, {}
for _, name in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  local row = redis.call('HMGET', ARGV[2] .. name, 'began', 'calls', 'failures',
    'open_until', 'probed_until')
  table.insert(row[4] and open or closed, {name, row})
end
for _, rows in ipairs({open, closed}) do
  for _, each in ipairs(rows) do
    if #told == 2 * ARGV[1] then return told end
    table.insert(told, each[1])
    table.insert(told, each[2])
  end
end
return told
"""


class RedisCircuits:
    """Circuits in Redis. Raises Away. Who changes one is told how it is then."""

    def __init__(self, link: RedisClient) -> None:
        self._link = link
        self._update, self._read = link.script(_CIRCUIT), link.script(_READ)
        self._known = link.script(_KNOWN)

    @property
    def is_away(self) -> bool:
        """Whether Redis was, when it was last asked."""
        return self._link.is_away

    def read(self, name: str, now: float) -> Circuit | None:
        return circuit_of(self._link.run(self.reading(name)))

    def enter(self, name: str, policy: BreakerPolicy, now: float) -> Circuit | None:
        return circuit_of(self._link.run(self.entering(name, policy, now)))

    def leave(
        self, name: str, policy: BreakerPolicy, failed: bool, now: float
    ) -> Circuit | None:
        return circuit_of(self._link.run(self.leaving(name, policy, failed, now)))

    def known(self, now: float, most: int) -> Mapping[str, Circuit]:
        args = [most, PREFIX + _circuit("")]
        answer = self._link.run(RedisScriptCall(self._known, [_CIRCUITS], args))
        pairs = zip(answer[::2], map(circuit_of, answer[1::2]), strict=True)
        return {name.decode(): circuit for name, circuit in pairs if circuit}

    def reading(self, name: str) -> RedisScriptCall:
        return RedisScriptCall(self._read, [_circuit(name)], [])

    def entering(self, name: str, policy: BreakerPolicy, now: float) -> RedisScriptCall:
        return self._updating("enter", name, policy, False, now)

    def leaving(
        self, name: str, policy: BreakerPolicy, failed: bool, now: float
    ) -> RedisScriptCall:
        return self._updating("leave", name, policy, failed, now)

    def _updating(
        self, what: str, name: str, policy: BreakerPolicy, failed: bool, now: float
    ) -> RedisScriptCall:
        thresholds = (policy.failure_threshold, policy.failure_threshold_percentage)
        args = (
            what,
            now,
            policy.cooldown,
            policy.minimum_requests,
            *(-1 if value is None else value for value in thresholds),
            int(failed),
            int(policy.cooldown) + KEPT,
            name,
        )
        return RedisScriptCall(self._update, [_circuit(name), _CIRCUITS], args)


# The list of all circuits.
_CIRCUITS = "circuits"


def _circuit(name: str) -> str:
    return f"circuit:{name}"


def circuit_of(answer: Sequence[bytes | None]) -> Circuit | None:
    """The circuit that a script has answered."""
    began, calls, failures, *until = answer
    if began is None or calls is None or failures is None:
        return None
    open_until, probed_until = (None if v is None else float(v) for v in until)
    return Circuit(float(began), int(calls), int(failures), open_until, probed_until)


class RedisCache:
    """A cache in Redis. While that is away, nothing is found.

    Entries leave when they are too old, or as that server's `maxmemory-policy` will
    have it.
    """

    def __init__(self, link: RedisClient) -> None:
        self._link = link
        self._complain = RateLimitedWarning("Redis refuses to keep answers")

    def get(self, key: str, now: float) -> CacheEntry | None:
        value = self._tried(lambda client: client.get(_answer(key)))
        entry = unpack(value) if isinstance(value, bytes) else None
        return entry if entry and entry.is_fresh(now) else None

    def put(self, key: str, entry: CacheEntry, now: float) -> None:
        left = int(1000 * (entry.max_age - entry.age(now)))
        if len(entry.body) <= LARGEST and left > 0:
            value = pack(entry)
            self._tried(lambda client: client.set(_answer(key), value, px=left))

    def close(self) -> None:
        self._link.close()

    def _tried(self, command: Callable[[redis.Redis], T]) -> T | None:
        """What *command* answers; None if Redis is away, or will not do it."""
        try:
            return self._link.ask(command)
        except RedisUnavailable:
            return None
        except redis.RedisError as e:
            self._complain(e)
            return None


def _answer(key: str) -> str:
    return f"{PREFIX}cache:{key}"
