"""Quarantine: keeps callers whose requests end the embedded engine away from it.

The engine is one process for all callers, and its end cuts all of their streams. A
request at which it ended is not sent to it again, neither by a retry nor by a fallback.
After two such requests their caller cannot use the engine for a while; then one request
is let through as a probe, and its result decides.

The count is kept where the circuits of breakers are, so it holds for all workers of a
machine. All callers whose requests had no answer yet when the engine ended are counted,
since there is no telling which of these requests was the cause.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..core.cache_key import fingerprint
from ..core.routing import BreakerPolicy
from ..errors import EngineEnded, EngineWithheld
from ..state.breaker import Circuits
from .retries import Trace

# The cooldown, in seconds, is also the time in which both ends have to occur.
_POLICY = BreakerPolicy(failure_threshold=2, cooldown=120.0)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Decides who may use the engine. One per process; *now* is in Unix seconds."""

    circuits: Circuits
    now: Callable[[], float]

    @contextmanager
    def guarding(self, trace: Trace) -> Iterator[None]:
        """Call the engine in the block, for the request of *trace*.

        Raises EngineEnded if the engine ended at this request before, and
        EngineWithheld if its caller is in quarantine.
        """
        if any(attempt.failure == EngineEnded.__name__ for attempt in trace.attempts):
            raise EngineEnded
        # The name of the caller's circuit, in the form of those of targets.
        digest = fingerprint(trace.caller)[:16]
        name = f"engine:{digest}|local||caller {digest[:8]}"
        circuit = self.circuits.read(name, self.now())
        is_probe = circuit is not None and circuit.is_open
        if circuit is not None and not circuit.available(self.now()):
            until = max(circuit.open_until or 0, circuit.probed_until or 0)
            raise EngineWithheld(until - self.now())
        if is_probe:
            self.circuits.enter(name, _POLICY, self.now())
        engine_ended = False
        try:
            yield
        except EngineEnded:
            engine_ended = True
            raise
        finally:
            # A success is counted only for a probe: it closes the circuit.
            if engine_ended or is_probe:
                self.circuits.leave(name, _POLICY, engine_ended, self.now())
