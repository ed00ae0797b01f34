"""The parts of the gateway that the console shows."""

from dataclasses import dataclass

from ..gateway.pipeline import Gateway
from ..observability.metrics import Metrics
from ..settings import Settings
from ..store.ledger_queries import LedgerQueries
from ..store.store_cache import StoreCache


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """Without *metrics*, pages count the open requests of this process alone."""

    gateway: Gateway
    store: StoreCache
    ledger: LedgerQueries
    metrics: Metrics | None
    settings: Settings
