"""What errors of upstreams have said about deployments, for a while, in this process.

Without it, each request to a model that only chats, say, would be refused once before
it is asked in the right way.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from ..planning.learned_facts import NO_FACTS, LearnedFacts

# Deployments are updated, and servers replaced: every hour a request asks again.
_LIFETIME = 3600.0

# Deployments that are remembered: callers choose models and hosts. A few hundred bytes
# each.
_MAX_DEPLOYMENTS = 4096


class FactMemory:
    """The facts of deployments, by key. The one that was learned first is dropped."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        lifetime: float = _LIFETIME,
        max_deployments: int = _MAX_DEPLOYMENTS,
    ) -> None:
        self._clock, self._lifetime = clock, lifetime
        self._max_deployments = max_deployments
        # In the order in which they were learned, and so expire.
        self._facts: OrderedDict[str, tuple[float, LearnedFacts]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Callable[[], str]) -> LearnedFacts:
        """The facts under *key*, which is computed only if there are any at all."""
        if not self._facts:
            return NO_FACTS
        learned_at, facts = self._facts.get(key(), (0.0, NO_FACTS))
        return facts if self._clock() < learned_at + self._lifetime else NO_FACTS

    def learn(self, key: str, facts: LearnedFacts) -> None:
        """Keep *facts* under *key*, in place of what was there."""
        with self._lock:
            self._facts.pop(key, None)
            self._facts[key] = self._clock(), facts
            now, oldest = self._clock(), next(iter(self._facts.values()))
            while (
                len(self._facts) > self._max_deployments
                or oldest[0] + self._lifetime <= now
            ):
                self._facts.popitem(last=False)
                oldest = next(iter(self._facts.values()))
