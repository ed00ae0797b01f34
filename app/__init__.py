"""lastword: the legacy completions endpoint, answered by any provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from .gateway.attempts import Clock
    from .settings import Settings

__version__ = "0.1.0"


def create_app(settings: Settings, clock: Clock | None = None) -> Flask:
    """The application: everything is made here, and handed down.

    A test may bring a *clock* of its own.
    """
    # Imported here because the gunicorn master imports app.engine, and so this file:
    # it must not load the modules that gevent patches in the workers later.
    from . import cli
    from .api import application
    from .gateway.accounts import bookkeeper
    from .gateway.attempts import Clock
    from .gateway.credentials import Credentials
    from .gateway.deadline import Limits
    from .gateway.exchange import Sizes
    from .gateway.hosted import Engine
    from .gateway.service import Gateway
    from .gateway.upstream import Upstream
    from .state.breaker import LocalBreaker
    from .store import opening as store

    clock = clock or Clock()
    limits = Limits(
        settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout
    )
    upstream = Upstream(
        limits,
        user_agent=f"lastword/{__version__}",
        ca_bundle=settings.ca_bundle,
        trusted=settings.trusted_custom_hosts,
    )
    ledger = store.ledger(settings)
    gateway = Gateway(
        upstream,
        Engine.of(settings, upstream),
        LocalBreaker(clock.monotonic),
        Sizes(
            settings.max_answer_bytes,
            settings.max_event_bytes,
            settings.max_choices,
            settings.fanout,
        ),
        Credentials(upstream),
        # Tabby's client fails on a frame without choices; others read them first.
        beside_error={"choices": []} if settings.error_frame_choices else {},
        clock=clock,
        hooks=[bookkeeper(ledger)] if settings.ledger else [],
    )
    directory = store.directory(settings)
    app = application(gateway, directory, settings)
    app.extensions["lastword.directory"] = directory
    app.extensions["lastword.ledger"] = ledger
    app.extensions["lastword"] = gateway
    app.extensions["lastword.settings"] = settings
    cli.register(app)
    return app
