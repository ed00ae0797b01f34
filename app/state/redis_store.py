"""State in Redis or Valkey, which several machines share: counters, and the cache.

Each operation on counters is one Lua script, and one round trip. A counter is a hash of
parts and their amounts, and every part begins with its expiry. Scripts touch several
keys, so a cluster does not work; one server does, or several behind one address.

While Redis is unavailable, callers get RedisUnavailable at once. Once a second, one
caller tries it again, and may have to wait for the timeout; the log has a warning once
a minute. failover.py decides what happens meanwhile.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from ..core.caching import CacheEntry
from ..core.counters import CounterAdjustment, CounterEntry, CounterState
from .cache_codec import MAX_BODY_BYTES, pack, unpack
from .meter import Adjustments, ReserveResult, reservation_id
from .rate_limited_warning import RateLimitedWarning

T = TypeVar("T")

logger = logging.getLogger("lastword")

PREFIX = "lastword:"

# Seconds that a command may take, and seconds after a failure until the next try.
_TIMEOUT = 0.5
_RETRY_INTERVAL = 1.0

# Connections of one process; further callers wait for one.
_MAX_CONNECTIONS = 64

# Seconds within which a request has to be settled. Longer than any stream.
_RESERVATION_TTL = 86_400

# Errors of a Redis that cannot be reached.
_CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError)


class RedisUnavailable(Exception):
    """Redis does not answer, or did not a moment ago.

    *maybe_executed* says whether the command may have reached it.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self, reason: str, *, maybe_executed: bool
    ) -> None:
        super().__init__(reason)
        self.maybe_executed = maybe_executed


@dataclass(frozen=True, slots=True)
class RedisScriptCall:
    """A script with its arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any]

    def run(self, client: redis.Redis) -> Any:
        """The script's result; if *client* is a pipeline, that comes later."""
        return self.script([PREFIX + key for key in self.keys], self.args, client)


class RedisClient:
    """A client of the Redis at *url*, shared by all of a process's state there."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            # The client's default retries a command whose reply was lost: an entry that
            # is added twice would count twice.
            retry=Retry(NoBackoff(), 0),
            # RESP2 needs no HELLO, which some servers and proxies do not know.
            protocol=2,
        )
        self._client = redis.Redis(connection_pool=pool)
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._clock, self._lock = clock, threading.Lock()
        # No caller tries it before this time; None while it is available.
        self._unavailable_until: float | None = None
        message = "Redis is away: this machine keeps its own limits"
        self._warn = RateLimitedWarning(message, clock)

    @property
    def is_unavailable(self) -> bool:
        """Whether the last command failed, and none has succeeded since."""
        return self._unavailable_until is not None

    def script(self, text: str) -> Script:
        return self._client.register_script(text)

    def run_script(self, call: RedisScriptCall) -> Any:
        """The result of *call*. Raises RedisUnavailable, also if Redis refuses it."""
        return self.execute(call.run, redis.RedisError)

    def run_scripts(self, calls: Sequence[RedisScriptCall]) -> list[Any]:
        """The results of *calls*, which are sent in one go. Raises RedisUnavailable.

        In that case any of them may have been executed.
        """

        def run(client: redis.Redis) -> list[Any]:
            # Without MULTI: each script is atomic by itself, and that is enough.
            with client.pipeline(transaction=False) as pipe:
                for call in calls:
                    call.run(pipe)
                return pipe.execute()

        return self.execute(run, redis.RedisError)

    def execute(
        self,
        command: Callable[[redis.Redis], T],
        failures: type[Exception] | tuple[type[Exception], ...] = _CONNECTION_ERRORS,
    ) -> T:
        """The result of *command*. Raises RedisUnavailable in place of *failures*."""
        # Availability is checked after the wait for a connection: of many callers that
        # waited for one, only the first may spend the timeout on a dead server.
        with self._slots:
            retrying = self._check_available()
            try:
                result = command(self._client)
            except failures as e:
                self._mark_unavailable(e)
                raise RedisUnavailable(str(e), maybe_executed=True) from e
            if retrying:
                self._mark_available()
            return result

    def close(self) -> None:
        """Close all connections; later commands open new ones."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def _check_available(self) -> bool:
        """Whether this is the one caller that tries an unavailable Redis again.

        Raises RedisUnavailable to the others.
        """
        with self._lock:
            if self._unavailable_until is None:
                return False
            if self._clock() < self._unavailable_until:
                reason = "it was away a moment ago"
                raise RedisUnavailable(reason, maybe_executed=False)
            # Moved on at once, so that callers during this try fail and do not wait.
            self._unavailable_until = self._clock() + _RETRY_INTERVAL
            return True

    def _mark_unavailable(self, error: Exception) -> None:
        with self._lock:
            self._unavailable_until = self._clock() + _RETRY_INTERVAL
        # The idle connections lead to a server that may be gone.
        self._client.connection_pool.disconnect(inuse_connections=False)
        self._warn(error)

    def _mark_available(self) -> None:
        # Of several tries that overlap, one logs the return.
        with self._lock:
            was_unavailable = self.is_unavailable
            self._unavailable_until = None
        if was_unavailable:
            logger.warning("Redis is back")


# KEYS: the counter of each entry, and the reservation of each holder. ARGV: now, the
# TTL of reservations; of each entry its part, expiry, amount, and limit (-1: none).
# Result: the index of the entry that was refused (-1: none), the counters' sums, their
# last expiries, and the entries of the counter that refused.
#
# It reads all counters before it changes any, as one that refuses keeps the others from
# being changed. Expired parts are deleted on the way. A key's TTL is that of its last
# part and 5 seconds, by which the clocks of machines may differ. The reservation makes
# an adjustment idempotent: only the script that deletes it adjusts.
_RESERVE = """
local now, sums, last_expiries = tonumber(ARGV[1]), {}, {}
local refused, blocking = -1, {}
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
  sums[i], last_expiries[i] = sum, last
  local amount, limit = tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2])
  if refused < 0 and limit >= 0 and sum + amount > limit then
    refused, blocking = i - 1, entries
  end
end
if refused >= 0 then return {refused, sums, last_expiries, blocking} end
for i = count + 1, #KEYS do redis.call('SET', KEYS[i], 1, 'EX', ARGV[2]) end
for i = 1, count do
  local part, expires = ARGV[4 * i - 1], tonumber(ARGV[4 * i])
  local amount = tonumber(ARGV[4 * i + 1])
  if amount > 0 then
    redis.call('HINCRBY', KEYS[i], part, ARGV[4 * i + 1])
    sums[i] = sums[i] + amount
    last_expiries[i] = math.max(last_expiries[i], expires)
    redis.call('EXPIRE', KEYS[i], math.ceil(last_expiries[i] - now) + 5)
  end
end
return {-1, sums, last_expiries, {}}
"""

# KEYS: a reservation, and the counter of each adjustment. ARGV: now; of each adjustment
# its part, expiry and amount. A reservation that does not exist was settled before, or
# was lost with all counters.
_ADJUST = """
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
    """Counters in Redis. Raises RedisUnavailable."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._reserve_script = client.script(_RESERVE)
        self._adjust_script = client.script(_ADJUST)

    def reserve(
        self, request_id: str, entries: Sequence[CounterEntry], now: float
    ) -> ReserveResult:
        holders = dict.fromkeys(entry.holder for entry in entries)
        keys = [_counter_key(entry.counter) for entry in entries]
        keys += [_reservation_key(reservation_id(request_id, h)) for h in holders]
        args: list[Any] = [now, _RESERVATION_TTL]
        for entry in entries:
            limit = -1 if entry.limit is None else entry.limit
            args += (entry.part, entry.expires, entry.amount, limit)
        call = RedisScriptCall(self._reserve_script, keys, args)
        refused, sums, last_expiries, flat = self._client.run_script(call)
        states = [CounterState(*pair) for pair in zip(sums, last_expiries, strict=True)]
        blocking = list(zip(flat[::2], flat[1::2], strict=True))
        return ReserveResult(self, states, None if refused < 0 else refused, blocking)

    def adjust(self, adjustments: Adjustments, now: float) -> None:
        self._client.run_scripts(
            [self.adjust_call(id, own, now) for id, own in adjustments.items()]
        )

    def adjust_call(
        self, id: str, adjustments: Sequence[CounterAdjustment], now: float
    ) -> RedisScriptCall:
        """The call that adjusts the reservation *id*, the first time it is run."""
        keys = [_reservation_key(id), *(_counter_key(a.counter) for a in adjustments)]
        args: list[Any] = [now]
        for adjustment in adjustments:
            args += (adjustment.part, adjustment.expires, adjustment.amount)
        return RedisScriptCall(self._adjust_script, keys, args)

    def close(self) -> None:
        self._client.close()


def _reservation_key(id: str) -> str:
    return f"reservation:{id}"


def _counter_key(counter: str) -> str:
    return f"counter:{counter}"


class RedisCache:
    """A cache in Redis. While that is unavailable, every lookup is a miss.

    Entries leave when they are too old, or as that server's `maxmemory-policy` says.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._warn = RateLimitedWarning("Redis refuses to keep answers")

    def get(self, key: str, now: float) -> CacheEntry | None:
        value = self._execute(lambda client: client.get(_cache_key(key)))
        entry = unpack(value) if isinstance(value, bytes) else None
        return entry if entry and entry.is_fresh(now) else None

    def put(self, key: str, entry: CacheEntry, now: float) -> None:
        # In milliseconds (PX): with whole seconds, short ages would round to nothing.
        ttl = int(1000 * (entry.max_age - entry.age(now)))
        if len(entry.body) <= MAX_BODY_BYTES and ttl > 0:
            value = pack(entry)
            self._execute(lambda client: client.set(_cache_key(key), value, px=ttl))

    def close(self) -> None:
        self._client.close()

    def _execute(self, command: Callable[[redis.Redis], T]) -> T | None:
        """The result of *command*; None if Redis is unavailable or refuses it."""
        try:
            return self._client.execute(command)
        except RedisUnavailable:
            return None
        except redis.RedisError as e:
            self._warn(e)
            return None


def _cache_key(key: str) -> str:
    return f"{PREFIX}cache:{key}"
