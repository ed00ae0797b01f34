"""What the console is made of: the parts of the gateway that it shows."""

from dataclasses import dataclass

from ..gateway.pipeline import Gateway
from ..observability.metrics import Metrics
from ..settings import Settings
from ..store.ledger_queries import LedgerQueries
from ..store.store_cache import StoreCache


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """Without *metrics*, what is open now is known of this process alone."""

    gateway: Gateway
    directory: StoreCache
    history: LedgerQueries
    metrics: Metrics | None
    settings: Settings
