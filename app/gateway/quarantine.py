"""Keeps those away from the embedded engine at whose requests it ends.

The engine is one process for all callers, and its end cuts all of their streams. A
request at which it ended is not sent to it again, neither by a retry nor by a fallback.
After two of them, their caller has to do without the engine for a while; then one
request is let through, and its end decides.

The count is kept where the circuits of breakers are, so it holds for all workers of a
machine. All callers whose requests had no answer yet when the engine ended are counted,
since nobody can tell which of these requests was the cause.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..core.cache_key import fingerprint
from ..core.routing import BreakerPolicy
from ..errors import EngineEnded, EngineWithheld
from ..state.breaker import Circuits
from .retries import Trace

# Both within so many seconds, and for so long.
_POLICY = BreakerPolicy(failure_threshold=2, cooldown=120.0)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Who may ask the engine. One for each process; *now* is in Unix seconds."""

    circuits: Circuits
    now: Callable[[], float]

    @contextmanager
    def guarding(self, trace: Trace) -> Iterator[None]:
        """Have the engine asked in the block, for the request of *trace*.

        Raises EngineEnded if it ended at this request before, and EngineWithheld.
        """
        if any(attempt.failure == EngineEnded.__name__ for attempt in trace.attempts):
            raise EngineEnded
        name = _name(trace.caller)
        circuit = self.circuits.read(name, self.now())
        probes = circuit is not None and circuit.is_open
        if circuit is not None and not circuit.available(self.now()):
            raise EngineWithheld(circuit.blocked_until - self.now())
        if probes:
            self.circuits.enter(name, _POLICY, self.now())
        ended = False
        try:
            yield
        except EngineEnded:
            ended = True
            raise
        finally:
            if ended or probes:
                self.circuits.leave(name, _POLICY, ended, self.now())


def _name(caller: str) -> str:
    """The name of a caller's circuit, in the form of those of targets."""
    digest = fingerprint(caller)[:16]
    return f"engine:{digest}|local||caller {digest[:8]}"
