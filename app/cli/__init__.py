"""Commands for operators: `flask --help` lists them.

They open the store themselves, and talk to no gateway that runs: its workers notice a
change by the store's revision, within GATEWAY_STORE_TTL seconds.
"""

from flask import Flask

from .aliases import aliases
from .apply_export import apply, export
from .configs import configs
from .keys import keys
from .providers import providers
from .secrets import db, secrets
from .usage import usage
from .virtual_keys import virtual_keys


def register(app: Flask) -> None:
    """Add the commands to *app*."""
    for command in (
        aliases,
        apply,
        configs,
        db,
        export,
        keys,
        providers,
        secrets,
        usage,
        virtual_keys,
    ):
        app.cli.add_command(command)
