"""Puts the gateway together from its parts.

It loads all of them, so it must not be imported where gevent has not patched yet.
"""

from . import __version__
from .gateway.accounts import bookkeeper
from .gateway.attempts import Clock
from .gateway.credentials import Credentials
from .gateway.deadline import Limits
from .gateway.exchange import Sizes
from .gateway.hosted import Engine
from .gateway.service import Gateway
from .gateway.upstream import Upstream
from .settings import Settings
from .state.breaker import LocalBreaker
from .store.ledger import Ledger


def gateway(settings: Settings, ledger: Ledger, clock: Clock | None) -> Gateway:
    """A gateway as *settings* want it, which enters its requests into *ledger*."""
    clock = clock or Clock()
    upstream = _upstream(settings)
    return Gateway(
        upstream,
        Engine.of(settings, upstream),
        LocalBreaker(clock.monotonic),
        _sizes(settings),
        Credentials(upstream),
        # Tabby's client fails on a frame without choices; others read them first.
        beside_error={"choices": []} if settings.error_frame_choices else {},
        clock=clock,
        hooks=[bookkeeper(ledger)] if settings.ledger else [],
    )


def _upstream(settings: Settings) -> Upstream:
    limits = Limits(
        settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout
    )
    return Upstream(
        limits,
        user_agent=f"lastword/{__version__}",
        ca_bundle=settings.ca_bundle,
        trusted=settings.trusted_custom_hosts,
    )


def _sizes(settings: Settings) -> Sizes:
    return Sizes(
        settings.max_answer_bytes,
        settings.max_event_bytes,
        settings.max_choices,
        settings.fanout,
    )
