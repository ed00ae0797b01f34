"""The embedded engine, as the gateway's workers see it.

The gunicorn master runs it (app/server/engine_process.py); a worker only knows where
it listens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from ..core.request import CompletionRequest
from ..errors import (
    EngineUnavailable,
    InvalidRequest,
    UpstreamCut,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from ..providers import HTTPRequest
from ..settings import Settings
from .client import HTTPClient
from .timeouts import Deadline

T = TypeVar("T")

INSTALL = "make serve (or: pip install 'lastword[local]')"

# Characters that one token may stand for; in common vocabularies the longest ones are
# runs of 64 or 128 spaces.
_LONGEST_TOKEN = 128

# Seconds between two looks at the engine, and for one look.
_POLL = 0.1
_POLL_LIMIT = 2.0


@dataclass(frozen=True, slots=True)
class EmbeddedEngine:
    """Where the engine is, if it is: *state* says why not."""

    upstream: HTTPClient
    state: Literal["on", "off", "missing"]
    url: str = ""
    key: str = ""
    context: int = 2048

    @classmethod
    def of(cls, settings: Settings, upstream: HTTPClient) -> "EmbeddedEngine":
        """The engine that the settings turn on; it is missing if nobody started it."""
        if not settings.engine:
            return cls(upstream, "off")
        url, key = settings.engine_url, settings.engine_key
        state: Literal["on", "missing"] = "on" if url else "missing"
        return cls(upstream, state, url, key, settings.engine_context)

    def required(self) -> None:
        """Raise EngineUnavailable unless the engine runs, or will in a moment."""
        if self.state == "off":
            raise EngineUnavailable(
                "The embedded engine is off. GATEWAY_ENGINE=1 turns it on, as "
                "`make serve` does.",
                code="engine_off",
            )
        if self.state == "missing":
            raise EngineUnavailable(
                f"The embedded engine is not installed. To install it: {INSTALL}.",
                code="engine_not_installed",
            )

    def check(self, request: CompletionRequest) -> None:
        """Raise InvalidRequest for a prompt that no context of the engine's could hold.

        It would find out itself, but not before it has made tokens of all of it: half a
        minute and two gigabytes for 10 MB.
        """
        for prompt in (*request.prompts, request.suffix):
            size = len(prompt or ())
            is_text = isinstance(prompt, str)
            unit = "characters" if is_text else "tokens"
            most = self.context * (_LONGEST_TOKEN if is_text else 1)
            if size > most:
                raise InvalidRequest(
                    f"The embedded engine has a context of {self.context} tokens, into "
                    f"which {size} {unit} cannot fit: at most {most} can.",
                    param="suffix" if prompt is request.suffix else "prompt",
                    code="context_length_exceeded",
                )

    def loaded(self) -> bool:
        """Whether it would answer now."""
        call = HTTPRequest("GET", self.url + "/health", {})
        try:
            reply = self.upstream.send(call, Deadline.after(_POLL_LIMIT))
        except UpstreamError:
            return False
        reply.close()
        return reply.status == 200

    def patiently(self, send: Callable[[], T], deadline: Deadline) -> T:
        """What *send* returns, called again when the engine has come up (again).

        Only a call that the engine did not take is sent again: at one that met its end
        it may have ended. Raises UpstreamTimeout at the deadline.
        """
        while True:
            try:
                return send()
            except UpstreamError as e:
                if not _is_absent(e):
                    raise
            self._wait(deadline)

    def _wait(self, deadline: Deadline) -> None:
        while not self.loaded():
            if deadline.passed:
                raise deadline.missed()
            time.sleep(_POLL)


def _is_absent(error: UpstreamError) -> bool:
    """Whether *error* says that the engine is not there, or not yet."""
    loading = error.status == 503 and error.type == "unavailable_error"
    return loading or isinstance(error, UpstreamRefused)


def has_ended(error: UpstreamError) -> bool:
    """Whether *error* says that the engine ended while it had the call."""
    lost = isinstance(error, (UpstreamUnreachable, UpstreamCut))
    return lost and not isinstance(error, UpstreamRefused)
