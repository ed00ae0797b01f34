"""lastword: the legacy completions endpoint, answered by any provider."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from .gateway.retries import Clock
    from .settings import Settings

__version__ = "0.1.0"


def create_app(settings: Settings, clock: Clock | None = None) -> Flask:
    """The application with all its parts, which are created here and passed down.

    A test may pass a *clock* of its own.
    """
    # Imported here because the gunicorn master imports app.server, and so this file: it
    # must not load the modules that gevent patches in the workers later.
    from . import assembly, cli
    from .api import application
    from .state import private_files
    from .store import factory as store

    private_files.tighten(Path(settings.instance))
    ledger, directory = store.ledger(settings), store.store_cache(settings)
    observers = assembly.observers(settings, ledger)
    gateway = assembly.gateway(settings, ledger, observers, clock)
    app = application(
        gateway, directory, observers.dispatcher, observers.metrics, settings
    )
    if settings.console_token:
        # It takes 1 MB, which a worker whose console is off need not hold.
        from . import console

        history = store.ledger_queries(settings)
        gateway.resources.callback(history.close)
        parts = gateway, directory, history, observers.metrics, settings
        app.register_blueprint(console.blueprint(console.ConsoleServices(*parts)))
    app.extensions["lastword.directory"] = directory
    app.extensions["lastword.ledger"] = ledger
    app.extensions["lastword"] = gateway
    app.extensions["lastword.settings"] = settings
    cli.register(app)
    return app
