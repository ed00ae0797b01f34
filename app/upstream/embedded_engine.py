"""The embedded engine, as the gateway's workers see it.

The gunicorn master runs it (app/server/engine_process.py); a worker only has its URL
and its key.
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

# Characters of the longest token: in common vocabularies a run of 64 or 128 spaces.
_LONGEST_TOKEN = 128

# Seconds between two health checks while the engine loads, and for one of them.
_POLL_INTERVAL = 0.1
_POLL_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class EmbeddedEngine:
    """The engine's address, if it runs; *state* says why not.

    *context* is the size of its context in tokens.
    """

    upstream: HTTPClient
    state: Literal["on", "off", "missing"]
    url: str = ""
    key: str = ""
    context: int = 2048

    @classmethod
    def from_settings(
        cls, settings: Settings, upstream: HTTPClient
    ) -> "EmbeddedEngine":
        """The engine by the settings; "missing" if the master could not start it."""
        if not settings.engine:
            return cls(upstream, "off")
        url, key = settings.engine_url, settings.engine_key
        state: Literal["on", "missing"] = "on" if url else "missing"
        return cls(upstream, state, url, key, settings.engine_context)

    def ensure_on(self) -> None:
        """Raise EngineUnavailable unless the engine is on: running or loading."""
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
        """Raise InvalidRequest for a prompt longer than any context of the engine.

        The engine would refuse it as well, but only after it has tokenized all of it:
        half a minute and two gigabytes for 10 MB.
        """
        for prompt in (*request.prompts, request.suffix):
            size = len(prompt or ())
            # A prompt is a text, a list of token ids, or nothing.
            is_text = isinstance(prompt, str)
            unit = "characters" if is_text else "tokens"
            limit = self.context * (_LONGEST_TOKEN if is_text else 1)
            if size > limit:
                raise InvalidRequest(
                    f"The embedded engine has a context of {self.context} tokens, into "
                    f"which {size} {unit} cannot fit: at most {limit} can.",
                    param="suffix" if prompt is request.suffix else "prompt",
                    code="context_length_exceeded",
                )

    def is_loaded(self) -> bool:
        """Whether it has loaded its model."""
        call = HTTPRequest("GET", self.url + "/health", {})
        try:
            reply = self.upstream.send(call, Deadline.after(_POLL_TIMEOUT))
        except UpstreamError:
            return False
        reply.close()
        return reply.status == 200

    def send_when_loaded(self, send: Callable[[], T], deadline: Deadline) -> T:
        """Call *send*, and again once the engine has loaded, while it is not ready.

        Only a call that the engine did not accept is repeated: one during which it
        ended may be what it ended of. Raises UpstreamTimeout at the deadline.
        """
        while True:
            try:
                return send()
            except UpstreamError as e:
                # What llama.cpp's server answers to every request while it loads:
                # {"error": {"code": 503, "type": "unavailable_error", ...}}
                is_loading = e.status == 503 and e.type == "unavailable_error"
                if not (is_loading or isinstance(e, UpstreamRefused)):
                    raise
            # A refused connection: the process does not listen yet, or starts again.
            while not self.is_loaded():
                if deadline.has_passed:
                    raise deadline.timeout_error()
                time.sleep(_POLL_INTERVAL)


def has_ended(error: UpstreamError) -> bool:
    """Whether *error* shows that the engine ended during the call."""
    # Refused is not lost: then it ended before the call, or has not started yet.
    lost = isinstance(error, (UpstreamUnreachable, UpstreamCut))
    return lost and not isinstance(error, UpstreamRefused)
