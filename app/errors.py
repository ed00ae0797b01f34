"""The errors that a caller can get, as one tree. Names say whose fault it is.

The OpenAPI document shows the first sentence of each docstring.

GatewayError                  500  ours
├── InvalidRequest            400  the caller's
│   ├── UnsupportedParameter  400  valid, but not supported by this provider
│   ├── UnsupportedProvider   400  a known name without an implementation
│   ├── InvalidRoute          400  a header or config; the body has both error formats
│   ├── HostRefused           400  a custom host that is an internal one
│   ├── BodyTooLarge          413
│   ├── NotFound              404
│   └── MethodNotAllowed      405
├── Unauthorized              401
│   └── WrongKey              401  an invalid key of the gateway
├── Forbidden                 403  a valid key without this permission
├── RateLimited               429  a valid key, too often
│   └── TooManyWrongKeys      429  wrong keys, too often
├── CallerLeft                499  the client has hung up
├── Busy                      503  this process has as many requests as it takes
├── ShuttingDown              503  this process ends, and could not wait longer
├── StoreUnavailable          503  the database is out of reach
├── EngineUnavailable         503  the embedded engine is off, or not installed
│   ├── EngineEnded           503  it ended while it worked on this very request
│   └── EngineWithheld        503  it ended too often on requests of this caller
└── UpstreamError                  the provider's
    ├── UpstreamStatus             it answered with an error; its status is kept
    │   └── UpstreamInBand         an error inside an answer with a good status
    ├── UpstreamTimeout       504  too slow; 408 if the caller set the limit
    ├── UpstreamUnreachable   502  no answer
    │   └── UpstreamRefused   502  no connection: nothing was sent
    └── UpstreamProtocol      502  the answer is not what it claims to be
        └── UpstreamCut       502  the answer ended before it was complete

The body is always OpenAI's: {"error": {"message", "type", "param", "code"}}.
Source: the ErrorResponse schema of https://github.com/openai/openai-openapi
"""

from collections.abc import Mapping, Sequence
from typing import Any

# The `type` of an error for which the provider has set none; of other statuses it is
# `server_error` or `invalid_request_error`, see `type_of_status`.
_TYPES = {
    408: "timeout_error",
    429: "rate_limit_error",
}


def type_of_status(status: int) -> str:
    """The `type` that OpenAI's errors with this HTTP status have."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    return _TYPES.get(status, fallback)


class GatewayError(Exception):
    """An answer other than a completion.

    *headers* are sent with it. `to_body()` never holds a key or a stack trace.
    """

    status = 500

    def __init__(  # noqa: B042 - errors are never pickled
        self,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        # Most classes have a fixed status; UpstreamStatus has the provider's own.
        self.status = self.status if status is None else status
        self.type = type or type_of_status(self.status)
        self.param = param
        self.code = code
        self.headers: dict[str, str] = dict(headers or {})
        self.attempts: list[dict[str, Any]] = []

    def to_body(self) -> dict[str, Any]:
        """The error in OpenAI's shape; with the attempts, if there were several."""
        # `param` and `code` are there even if null: OpenAI's clients read them.
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error | ({"attempts": self.attempts} if self.attempts else {})}


class InvalidRequest(GatewayError):
    """The caller asked for something that no provider could answer."""

    status = 400


class UnsupportedParameter(InvalidRequest):
    """A valid parameter that the chosen provider cannot honour."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message, param=param, code="unsupported_parameter")


class UnsupportedProvider(InvalidRequest):
    """A provider that this gateway knows by name only."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="unsupported_provider")


class InvalidRoute(InvalidRequest):
    """A header or a config that names no usable route.

    The body carries Portkey's shape as well, so that either parser works:
    *legacy* is Portkey's own wording, *errors* its list of all that is wrong.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self,
        message: str,
        *,
        legacy: str,
        code: str = "invalid_route",
        errors: Sequence[str] = (),
    ) -> None:
        super().__init__(message, code=code)
        self.legacy = legacy
        self.errors = errors

    def to_body(self) -> dict[str, Any]:
        body = super().to_body() | {"status": "failure", "message": self.legacy}
        return body | {"errors": list(self.errors)} if self.errors else body


class HostRefused(InvalidRequest):
    """A custom host that leads into the network of the gateway, or is no base URL."""

    def __init__(
        self,
        reason: str = "its name leads to an address of a private or reserved network, "
        "and is called only if GATEWAY_TRUSTED_CUSTOM_HOSTS lists it",
    ) -> None:
        super().__init__(f"Invalid custom host: {reason}.", code="invalid_custom_host")


class BodyTooLarge(InvalidRequest):
    """The request's body is longer than GATEWAY_MAX_BODY_BYTES."""

    status = 413


class NotFound(InvalidRequest):
    """No such path."""

    status = 404


class MethodNotAllowed(InvalidRequest):
    """The path exists, for other methods."""

    status = 405


class Unauthorized(GatewayError):
    """No key where one is needed."""

    status = 401


class WrongKey(Unauthorized):
    """A key, or a token, of the gateway's own that is wrong: somebody may be guessing.

    Only these are counted, and slowed down.
    """


class Forbidden(GatewayError):
    """A key that is right, and not for this, be there such a thing or not."""

    status = 403

    def __init__(self, message: str) -> None:
        super().__init__(message, code="not_allowed")


class RateLimited(GatewayError):
    """A limit of the gateway's own, on a key, is reached."""

    status = 429


class TooManyWrongKeys(RateLimited):
    """As many wrong keys of an address are under way as may wait for their answer."""

    def __init__(self) -> None:
        super().__init__(
            "Too many wrong keys come from your address. Please check yours, and try "
            "again in a second.",
            code="too_many_wrong_keys",
            # OpenAI's clients retry a 429 by themselves, unless this header says no.
            headers={"retry-after": "1", "x-should-retry": "false"},
        )


class CallerLeft(GatewayError):
    """The caller hung up. Nobody reads this; its status is what nginx logs then."""

    status = 499

    def __init__(self) -> None:
        super().__init__("The caller has left.", code="client_left")


class Busy(GatewayError):
    """As many requests are under way as this process takes."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The gateway is busy. Please try again in a second.",
            code="overloaded",
            headers={"retry-after": "1"},
        )


class ShuttingDown(GatewayError):
    """This process has to end before the answer could."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The gateway restarts, and could not wait for the end of this answer.",
            code="shutting_down",
            headers={"retry-after": "1"},
        )


def release(error: BaseException) -> None:
    """Drop the traceback of *error*, its cause and its context.

    Their frames refer to prompts and answers, and form reference cycles with the error,
    so that all of these would stay in memory until the next garbage collection. Where
    an error becomes a body, or is stored, nobody reads its traceback.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


class Cancelled(Exception):
    """A request is cancelled for a *reason*: no retry and no other target follows."""

    def __init__(self, reason: GatewayError) -> None:  # noqa: B042 - never pickled
        super().__init__(reason.message)
        self.reason = reason


class StoreUnavailable(GatewayError):
    """What is stored cannot be read, and is needed."""

    status = 503

    def __init__(self, message: str = "The gateway's store is out of reach.") -> None:
        super().__init__(message, code="store_unavailable")


class EngineUnavailable(GatewayError):
    """The embedded engine was asked for and is not there."""

    status = 503


class EngineEnded(EngineUnavailable):
    """The embedded engine ended while it worked on this request.

    No retry and no client is to send it again: it may be what ended the engine.
    """

    def __init__(self) -> None:
        super().__init__(
            "The embedded engine ended while it worked on this request, which is not "
            "sent to it again.",
            code="engine_ended",
            headers={"x-should-retry": "false"},
        )


class EngineWithheld(EngineUnavailable):
    """The embedded engine ended too often while it worked for this caller."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "The embedded engine ended several times while it worked on your requests. "
            f"It answers you again in {seconds:.0f} s.",
            code="engine_withheld",
            # Whole seconds; 0 would mean at once.
            headers={"retry-after": f"{max(seconds, 1):.0f}"},
        )


class UpstreamError(GatewayError):
    """The provider failed. `provider` is set by the target caller."""

    status = 502
    provider: str | None = None

    def to_body(self) -> dict[str, Any]:
        body = super().to_body()
        return body | {"provider": self.provider} if self.provider else body


class UpstreamStatus(UpstreamError):
    """The provider answered with an error of its own.

    *details* are what its error says besides the four fields of OpenAI's, *called* is
    the method and path of the call, where the error is about that.
    """

    called: str | None = None

    def __init__(  # noqa: B042 - errors are never pickled
        self,
        message: str,
        status: int | None = None,
        *,
        details: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, status=status, **fields)
        self.details: Mapping[str, Any] = dict(details or {})

    def to_body(self) -> dict[str, Any]:
        body = super().to_body()
        error = body["error"]
        # No provider's field takes the place of one of these.
        details = {k: v for k, v in self.details.items() if k not in error}
        called = {"called": self.called} if self.called else {}
        return body | {"error": error | details} | called


class UpstreamInBand(UpstreamStatus):
    """The provider put an error into an answer that had begun as a good one.

    *usage* is what that answer has cost all the same, if the provider counted it.
    """

    def __init__(  # noqa: B042 - errors are never pickled
        self,
        message: str,
        status: int | None = None,
        *,
        usage: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, status, **fields)
        self.usage = usage

    def to_body(self) -> dict[str, Any]:
        body = super().to_body()
        return body | {"usage": dict(self.usage)} if self.usage else body


class UpstreamTimeout(UpstreamError):
    """The provider took longer than a limit allows."""

    status = 504


class UpstreamUnreachable(UpstreamError):
    """The provider was not reached, or hung up before it answered."""


class UpstreamRefused(UpstreamUnreachable):
    """No connection came about, so that nothing was sent."""


class UpstreamProtocol(UpstreamError):
    """The provider's answer is not what it claims to be."""


class UpstreamCut(UpstreamProtocol):
    """The provider's answer ended before it was complete."""
