"""Commands, as an operator types them, on a store of their own."""

import json
from dataclasses import dataclass
from typing import Any

from app import create_app
from app.settings import Settings


@dataclass
class Operator:
    """Runs commands for a gateway with *settings*."""

    settings: Settings

    def __call__(self, *words: str, stdin: str = "", **environ: str) -> str:
        """The output of a command, which has to succeed."""
        result = self._run(words, stdin, environ)
        assert result.exit_code == 0, result.output
        return str(result.output)

    def refused(self, *words: str, stdin: str = "", **environ: str) -> str:
        """The error of a command, which has to fail."""
        result = self._run(words, stdin, environ)
        assert result.exit_code in (1, 2), result.output
        assert "Traceback" not in result.output and not _crashed(result)
        return str(result.output)

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def _run(self, words: tuple[str, ...], stdin: str, environ: dict[str, str]) -> Any:
        app = create_app(self.settings)
        result = app.test_cli_runner().invoke(args=words, input=stdin, env=environ)
        app.extensions["lastword"].close()
        app.extensions["lastword.directory"].close()
        return result


def _crashed(result: Any) -> bool:
    return result.exception is not None and not isinstance(result.exception, SystemExit)
