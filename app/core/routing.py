"""Where a request goes."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """One provider, with all that is needed to call it.

    *path* is its place in the config (`config` when the headers alone name it).
    *base_url* replaces the provider's own. *headers* go upstream as they are, over
    those that the provider sets. *request_timeout* is the caller's own limit in
    seconds, until the first event of the answer.
    """

    provider: str
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_timeout: float | None = None
    path: str = "config"
