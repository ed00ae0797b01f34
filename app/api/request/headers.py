"""A request, and its headers, without a proxy or an exception for each look."""

from typing import Any, overload

from flask import Request
from flask.globals import request_ctx

from ...core.text_cache import cached_by_text


def request() -> Request:
    """The request that is being answered here."""
    context: Any = request_ctx
    found: Request = context.request
    return found


class RequestHeaders:
    """The headers of a request. Nearly all that are asked for are not there."""

    __slots__ = ("_environ",)

    def __init__(self, environ: dict[str, Any]) -> None:
        self._environ = environ

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """The header of that *name*, in whichever case."""
        value: str | None = self._environ.get(_variable(name), default)
        return value

    def __contains__(self, name: str) -> bool:
        return _variable(name) in self._environ


@cached_by_text
def _variable(name: str) -> str:
    """What WSGI calls a header.

    Source: https://peps.python.org/pep-3333/#environ-variables
    """
    variable = name.upper().replace("-", "_")
    plain = variable in ("CONTENT_TYPE", "CONTENT_LENGTH")
    return variable if plain else f"HTTP_{variable}"
