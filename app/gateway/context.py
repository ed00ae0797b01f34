"""What belongs to one request while it is under way."""

from dataclasses import dataclass, field, replace
from math import inf

from ..core.routing import Route, Target
from ..errors import UpstreamTimeout
from .clients.cancellation import Cancellation
from .metering import RequestMeter
from .retries import Clock, Trace


@dataclass(slots=True)
class RequestContext:
    """One request: where it may go, and what has become of it so far.

    *trace* is written as it goes, *meter* holds and settles what it uses,
    *cancellation* ends it. *deadline* is when the whole of it has to be answered, on
    the monotonic clock; None if the route sets none. It began at *began*, on the same
    clock.
    """

    route: Route
    trace: Trace
    meter: RequestMeter
    cancellation: Cancellation
    clock: Clock
    began: float = field(init=False)
    deadline: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()
        seconds = self.route.deadline
        self.deadline = self.began + seconds if seconds else None

    def limit(self, target: Target) -> Target:
        """*target* with the time that is left of the whole request's, which has a
        deadline. Raises UpstreamTimeout when there is none.
        """
        # Each attempt gets what is left: a retry must not outlive the request.
        left = (self.deadline or inf) - self.clock.monotonic()
        if left <= 0:
            raise UpstreamTimeout("The deadline of the config has passed.", status=408)
        timeout = min(left, target.request_timeout or left)
        return replace(target, request_timeout=timeout)
