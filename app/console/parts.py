"""What the console is made of: the parts of the gateway that it shows."""

from dataclasses import dataclass

from ..gateway.service import Gateway
from ..observability.metrics import Metrics
from ..settings import Settings
from ..store.directory import Directory
from ..store.history import History


@dataclass(frozen=True, slots=True)
class Parts:
    """Without *metrics*, what is open now is known of this process alone."""

    gateway: Gateway
    directory: Directory
    history: History
    metrics: Metrics | None
    settings: Settings
