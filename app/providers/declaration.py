"""The types of a provider's declaration.

A `Provider` has one `Endpoint` for each completion mode, and an endpoint a table of
parameters and pure functions. planning/ decides from these values alone what is sent;
gateway/ sends it, and hands the answers back to the endpoint's functions.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ..core.completion import Completion, Usage
from ..core.hosts import custom_host
from ..core.routing import CompletionMode, Target
from ..core.sse import Event
from ..errors import InvalidRoute, UnsupportedProvider, UpstreamError, UpstreamStatus
from .upstream_request import HTTPRequest, UpstreamRequest, bearer, host_label


# A NamedTuple is made in half the time, and there is one for each event of a stream.
class RawCompletion(NamedTuple):
    """JSON that goes to the caller as it came, if any; and the *usage* in it.

    A chunk has about so many *tokens*, a whole answer so many *choices*.
    """

    body: bytes
    usage: Usage | None = None
    tokens: int = 1
    choices: int = 0


# What is read of an answer, or of a chunk: JSON to be passed on, or a completion to be
# serialized.
UpstreamAnswer = RawCompletion | Completion


class StreamReader(Protocol):
    """Reads the events of one streamed answer. It does no I/O: the caller feeds it."""

    @property
    def done(self) -> bool:
        """Whether the provider's last event was read. Nothing more is to be fed then,
        and `end` not to be called.
        """

    @property
    def holds_text(self) -> bool:
        """Whether text is held, to go on in one chunk with its finish reason."""

    def flush(self) -> Sequence[UpstreamAnswer]:
        """That text, without the reason: it has waited for long enough."""

    def feed(self, event: Event) -> Sequence[UpstreamAnswer]:
        """The chunks that *event* completes. It runs for each event of each stream, so
        it has to be fast.

        Raises UpstreamError for an event that is one, or that cannot be read.
        """

    def end(self, failure: UpstreamError | None = None) -> Sequence[UpstreamAnswer]:
        """The chunks that follow when the body has ended, or broke with *failure*.

        Raises *failure* or UpstreamCut if the stream is not whole; see
        parsing/stream_ending.py.
        """


@dataclass(frozen=True, slots=True)
class ParamMapping:
    """How one endpoint of a provider takes a parameter.

    *name* is the endpoint's own; dots lead into objects. It takes values from *low* to
    *high*; of a list, at most *max_items*, and only those for which *takes* is true.
    *convert* turns a value into the endpoint's form.
    """

    name: str
    low: float | None = None
    high: float | None = None
    max_items: int | None = None
    takes: Callable[[Any], bool] = lambda value: True
    convert: Callable[[Any], Any] = lambda value: value

    def fits(self, value: Any) -> bool:
        """Whether the endpoint takes *value* as it is."""
        # Numbers have bounds; all else is a list, or a single item of one.
        if isinstance(value, (int, float)):
            low, high = self.low, self.high
            return (low is None or value >= low) and (high is None or value <= high)
        items = value if isinstance(value, list) else [value]
        if self.max_items is not None and len(items) > self.max_items:
            return False
        return all(map(self.takes, items))


ParamMappings = Mapping[str, ParamMapping]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """How a provider generates completions in one mode. All functions are pure.

    params              the parameters that it supports, by their legacy names
    passes_unknown      unknown parameters are passed on to it
    takes_token_ids     takes prompts of token ids
    takes_batches       takes several prompts in one call
    takes_null_prompt   takes null, for no prompt at all
    choices_per_call    the maximum of choices for each prompt of a call
    exclusive_params    pairs of parameters of which it takes only one
    min_tokens          the minimum of max_tokens
    default_max_tokens  the max_tokens to send when the caller sends none, if required
    legacy_shape        answers in the legacy shape, which may go to the caller as it is
    check               raises for requests that it cannot serve, beyond these fields
    call                builds the HTTP request; it leaves the UpstreamRequest as it
                        is, since a retry reads that again
    completion          parses the body of a whole answer; raises UpstreamError
    reader              makes the reader of one streamed answer
    """

    params: ParamMappings
    passes_unknown: bool = False
    takes_token_ids: bool = False
    takes_batches: bool = False
    takes_null_prompt: bool = False
    choices_per_call: int = 1
    exclusive_params: Sequence[tuple[str, str]] = ()
    min_tokens: int = 1
    default_max_tokens: int | None = None
    legacy_shape: bool = False
    check: Callable[[UpstreamRequest], None] | None = None
    call: Callable[[UpstreamRequest], HTTPRequest]
    completion: Callable[[bytes, UpstreamRequest], UpstreamAnswer]
    reader: Callable[[UpstreamRequest], StreamReader]


@dataclass(frozen=True, slots=True)
class ModelFamilies:
    """Endpoints of one mode that differ by model: *family_of* a model's name is a key
    of *endpoints*.
    """

    endpoints: Mapping[str, Endpoint]
    family_of: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that a target has for one provider only, by *name* in a config, or in
    a header.

    *header* is by default `x-portkey-` and the name; *alternative_header* may hold it
    as well, *alias* is another name in configs, *default* its value otherwise.
    *upstream_header* is the header of the upstream request that carries it. A setting
    with *is_base_url* replaces the provider's own address, as a custom host does.
    *token_url* reads the URL of a token endpoint out of a value, or None. One with
    *is_object* may be JSON; one with *secret* is never shown.
    """

    name: str
    header: str = ""
    alternative_header: str = ""
    alias: str = ""
    default: str = ""
    upstream_header: str = ""
    is_base_url: bool = False
    token_url: Callable[[Any], str | None] | None = None
    is_object: bool = False
    secret: bool = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The names of the request's headers that may hold it."""
        own = self.header or "x-portkey-" + self.name.replace("_", "-")
        return (own, self.alternative_header) if self.alternative_header else (own,)

    def check_url(self, value: Any, trusted: Iterable[str]) -> str | None:
        """The URL that *value* makes the gateway call, if any.

        Raises ValueError unless it may be called; *trusted* are hosts that may be
        internal. Credentials for tokens are sent over TLS only.
        """
        if self.is_base_url:
            return custom_host(str(value), trusted)
        url = self.token_url(value) if self.token_url else None
        return None if url is None else custom_host(url, trusted, ("https",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How one provider is called, and how its errors are read.

    docs                 the URL of its documentation
    base_url             its address; `{name}` stands for a setting of the target
    modes                its completion modes; the first is the default, unless the
                         request, the model or the target selects another
    own_host_modes       the modes of its own address, where a custom host has more
    unsupported_because  why it has no mode at all
    retired_because      why its own address is out of service, while custom hosts may
                         be used
    needs_key            refused without a key, and without all settings of one entry
                         of `credential_settings`
    credential_settings  groups of settings that take the place of a key
    auth                 the headers that carry the key
    token_source         turns the target's settings into a token: a name in
                         upstream/auth/access_tokens.py
    signer               signs its calls: a name in upstream/auth/request_signing.py
    embedded             the gateway runs it itself, and has its address and key
    settings             its settings besides key and address
    model_settings       the settings that name a model, beside or in place of the
                         request's
    error                reads an answer with an error status
    models               builds the request for its list of models; None if it has no
                         such list
    model_list           converts the answer to that into OpenAI's shape
    """

    name: str
    docs: str = ""
    base_url: str = ""
    modes: Mapping[CompletionMode, Endpoint | ModelFamilies] = field(
        default_factory=dict
    )
    own_host_modes: Sequence[CompletionMode] = ()
    unsupported_because: str = ""
    retired_because: str = ""
    needs_key: bool = True
    credential_settings: Sequence[Sequence[str]] = ()
    auth: Callable[[Target], Mapping[str, str]] = bearer
    token_source: str | None = None
    signer: str | None = None
    embedded: bool = False
    settings: Sequence[Setting] = ()
    model_settings: Sequence[str] = ()
    error: Callable[[int, bytes], UpstreamStatus]
    models: Callable[["Provider", Target], HTTPRequest] | None = None
    model_list: Callable[[bytes], bytes] = lambda body: body

    def endpoint(self, mode: CompletionMode, model: str) -> Endpoint:
        """The endpoint of *mode* for *model*. Raises UnsupportedProvider."""
        declared = self.modes[mode]
        if isinstance(declared, Endpoint):
            return declared
        family = declared.family_of(model)
        if family not in declared.endpoints:
            raise UnsupportedProvider(
                f"Provider {self.name} cannot ask {model[:80]!r} via {mode}, but "
                f"models of {', '.join(declared.endpoints)}."
            )
        return declared.endpoints[family]

    def endpoints(self, mode: CompletionMode) -> Mapping[str, Endpoint]:
        """All endpoints of *mode*, by their families of models."""
        declared = self.modes[mode]
        if isinstance(declared, Endpoint):
            return {"": declared}
        return declared.endpoints

    def address(self, target: Target) -> str:
        """The base URL for this target. Raises InvalidRoute for an invalid setting."""
        if target.base_url:
            return target.base_url
        if not self.base_url:
            raise InvalidRoute(
                f"Provider {self.name} has no address of its own: name it by "
                "x-portkey-custom-host, or custom_host in a config.",
                legacy="Invalid custom host",
                code="invalid_custom_host",
            )
        options = target.options
        return _PLACEHOLDER.sub(
            lambda match: host_label(options.get(match[1]), match[1]), self.base_url
        )


_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def same_named(*names: str, **others: ParamMapping | str) -> dict[str, ParamMapping]:
    """Parameters of the same name upstream, and *others* with another name there."""
    renamed = {
        k: ParamMapping(v) if isinstance(v, str) else v for k, v in others.items()
    }
    return {name: ParamMapping(name) for name in names} | renamed


def as_list(stop: Any) -> Any:
    """Stop sequences as a list, also if it is a single string."""
    return [stop] if isinstance(stop, str) else stop
