"""Sends to Redis, in a thread, the commands that no request waits for."""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from .per_process import PerProcess
from .redis_store import RedisClient, RedisScriptCall, RedisUnavailable

logger = logging.getLogger("lastword")

# Commands that wait while Redis is unavailable, and how many are sent at a time.
_MAX_QUEUED = 10_000
_BATCH = 200

# Seconds between two tries while Redis is unavailable, and until `close` gives up.
_RETRY_INTERVAL = 0.2
_CLOSE_TIMEOUT = 2.0


class _Queue:
    """The commands that wait in one process, and its thread."""

    def __init__(self) -> None:
        # A full deque drops its oldest entry with each append: while Redis is down,
        # the newest adjustments are worth most, as their windows last longest.
        self.commands: deque[RedisScriptCall] = deque(maxlen=_MAX_QUEUED)
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        # When the thread gives up, by the monotonic clock; None while it is open.
        self.deadline: float | None = None

    def next_batch(self) -> list[RedisScriptCall]:
        """Wait for commands. Empty once it is closed and drained, or out of time."""
        with self.changed:
            self.changed.wait_for(lambda: self.commands or self.deadline is not None)
            late = self.deadline is not None and time.monotonic() >= self.deadline
            if late or not self.commands:
                # Cleared under the lock: a `put` right after this starts a new thread,
                # instead of leaving its command to one that has just ended.
                self.thread = None
                return []
            count = min(_BATCH, len(self.commands))
            return [self.commands.popleft() for _ in range(count)]

    def put_back(self, commands: Sequence[RedisScriptCall]) -> None:
        """Queue *commands* before the others; too many push out the oldest."""
        with self.changed:
            # Built anew from both: `extendleft` on a full deque would drop the newest.
            self.commands = deque([*commands, *self.commands], maxlen=_MAX_QUEUED)


class BackgroundWriter:
    """Sends commands to *client* in their order, in batches.

    Each process has its own queue and thread, which starts with the first command.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._queues = PerProcess(_Queue)

    def put(self, command: RedisScriptCall) -> None:
        """Send *command* soon. Never waits for Redis."""
        queue = self._queues.get()
        with queue.changed:
            queue.commands.append(command)
            # Started here and not in the constructor, which may run in the master
            # (`--preload`), as threads do not survive a fork.
            if queue.thread is None:
                queue.thread = threading.Thread(
                    target=self._run,
                    args=(queue,),
                    name="background-writer",
                    daemon=True,
                )
                queue.thread.start()
                atexit.register(self.close)
            queue.changed.notify()

    def _run(self, queue: _Queue) -> None:
        while batch := queue.next_batch():
            try:
                self._client.run_scripts(batch)
            except RedisUnavailable:
                # Some of them may have been executed. Scripts that adjust do so once
                # for each reservation, so they can be sent again.
                queue.put_back(batch)
                time.sleep(_RETRY_INTERVAL)
            except Exception:
                # A bug, or an invalid command: put back, it would fail for ever.
                logger.exception("commands for Redis are lost")

    def close(self) -> None:
        """Send the queued commands, for a few seconds at most, and stop the thread.

        A later `put` starts a new one.
        """
        queue = self._queues.get()
        with queue.changed:
            queue.deadline = time.monotonic() + _CLOSE_TIMEOUT
            thread = queue.thread
            queue.changed.notify()
        # One second more than the thread's own deadline: it may be waiting for a reply.
        if thread and thread is not threading.current_thread():
            thread.join(_CLOSE_TIMEOUT + 1)
        with queue.changed:
            queue.deadline = None
            lost = len(queue.commands)
            queue.commands.clear()
        if lost:
            logger.warning("Redis is away: %d changes are lost", lost)
        atexit.unregister(self.close)
