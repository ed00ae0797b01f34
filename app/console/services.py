"""What the console is made of: the parts of the gateway that it shows."""

from dataclasses import dataclass

from ..gateway.pipeline import Gateway
from ..observability.metrics import Metrics
from ..settings import Settings
from ..store.ledger_queries import History
from ..store.store_cache import Directory


@dataclass(frozen=True, slots=True)
class Parts:
    """Without *metrics*, what is open now is known of this process alone."""

    gateway: Gateway
    directory: Directory
    history: History
    metrics: Metrics | None
    settings: Settings
