"""What a provider declares, and the pieces that several declarations share."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import quote

import orjson

from .. import safe_json
from ..core.completion import Completion, Usage
from ..core.hosts import custom_host
from ..core.request import CompletionRequest
from ..core.routing import CompletionMode, Target
from ..core.sse import Event
from ..errors import (
    InvalidRequest,
    InvalidRoute,
    UnsupportedProvider,
    UpstreamError,
    UpstreamProtocol,
    UpstreamStatus,
)


@dataclass(frozen=True, slots=True)
class RawCompletion:
    """JSON that goes to the caller as it came, or nothing; and the *usage* in it."""

    body: bytes
    usage: Usage | None = None


# What is passed on, or a completion that is to be written.
UpstreamAnswer = RawCompletion | Completion


class StreamReader(Protocol):
    """Reads the events of one streamed answer as they come. It waits for nothing and
    does no input or output: whoever has the network feeds it.
    """

    @property
    def done(self) -> bool:
        """Whether the provider's last event was read. Nothing more is to be fed then,
        and `end` not to be called.
        """

    def feed(self, event: Event) -> Sequence[UpstreamAnswer]:
        """The chunks that *event* completes. It runs for each event of each stream.

        Raises UpstreamError for an event that is one, or that cannot be read.
        """

    def end(self, failure: UpstreamError | None = None) -> Sequence[UpstreamAnswer]:
        """The chunks that follow when the body has ended, or broke with *failure*.

        Raises *failure* or UpstreamCut if the stream is not whole; see
        parsing/stream_ending.py.
        """


def read_stream(
    reader: StreamReader, events: Iterable[Event]
) -> Iterator[UpstreamAnswer]:
    """The chunks of *events*, each as soon as its event is there."""
    source = iter(events)
    failure: UpstreamError | None = None
    while not reader.done:
        try:
            event = next(source)
        except StopIteration:
            break
        except UpstreamError as e:
            failure = e
            break
        yield from reader.feed(event)
    else:
        return
    yield from reader.end(failure)


# The parameters of the legacy endpoint, besides model, prompt and stream.
LEGACY_PARAMS = (
    "best_of",
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream_options",
    "suffix",
    "temperature",
    "top_p",
    "user",
)


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A decided, unsent HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ParamMapping:
    """What one way of a provider makes of a parameter.

    *name* is its own for it; dots lead into objects. Values outside of *low* and *high*
    it does not take; of a list, no more than *most* items, and only those that *takes*
    says. *write* puts a value into its form.
    """

    name: str
    low: float | None = None
    high: float | None = None
    most: int | None = None
    takes: Callable[[Any], bool] = lambda value: True
    write: Callable[[Any], Any] = lambda value: value

    def fits(self, value: Any) -> bool:
        """Whether *value* can be said to it as it is."""
        if isinstance(value, (int, float)):
            low, high = self.low, self.high
            return (low is None or value >= low) and (high is None or value <= high)
        items = value if isinstance(value, list) else [value]
        enough = self.most is None or len(items) <= self.most
        return enough and all(map(self.takes, items))


ParamMappings = Mapping[str, ParamMapping]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One way of a provider to a completion. Functions are pure.

    params       the parameters that it understands, by their legacy names
    passes       parameters that nobody here knows travel on to it
    tokens       takes prompts of token ids
    batches      takes several prompts in one call, and as many choices as it draws
    null         takes null, for no prompt at all
    choices      the most that it draws in one call
    exclusive    pairs of parameters of which it takes only one
    least        the smallest max_tokens that it takes
    default_max  the max_tokens that it has to be sent when the caller names none
    raw          answers in the legacy shape, which may go to the caller untouched
    check        raises for what cannot be had, beyond what the fields above say
    call         the request as it wants it; the Ask stays unchanged, since a retry
                 reads it again
    completion   a whole answer's body; raises UpstreamError if it is none
    reader       reads the events of one streamed answer
    """

    params: ParamMappings
    passes: bool = False
    tokens: bool = False
    batches: bool = False
    null: bool = False
    choices: int = 1
    exclusive: Sequence[tuple[str, str]] = ()
    least: int = 1
    default_max: int | None = None
    raw: bool = False
    check: Callable[["UpstreamRequest"], None] = lambda ask: None
    call: Callable[["UpstreamRequest"], HTTPRequest]
    completion: Callable[[bytes, "UpstreamRequest"], UpstreamAnswer]
    reader: Callable[["UpstreamRequest"], StreamReader]


@dataclass(frozen=True, slots=True)
class Families:
    """Endpoints of one way that differ by model: *of* a model's name is a key of
    *endpoints*.
    """

    endpoints: Mapping[str, Endpoint]
    of: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a target has to say to one provider only: in a config by *name*, or in a
    header.

    *header* is `x-portkey-` and the name, if it is not given; *also* is another header
    that may hold it, *alias* another name in configs, *default* its value otherwise.
    *sends* is the header of the call that takes it. An *url* replaces the provider's
    own address, as a custom host does. *token_url* reads out of a value where tokens
    are asked for because of it, or None. An *is_object* may be JSON, and a *secret* is
    never shown.
    """

    name: str
    header: str = ""
    also: str = ""
    alias: str = ""
    default: str = ""
    sends: str = ""
    url: bool = False
    token_url: Callable[[Any], str | None] | None = None
    is_object: bool = False
    secret: bool = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The names of the request's headers that may hold it."""
        own = self.header or "x-portkey-" + self.name.replace("_", "-")
        return (own, self.also) if self.also else (own,)

    def check_url(self, value: Any, trusted: Iterable[str]) -> str | None:
        """The URL that is called because of *value*, if there is one.

        Raises ValueError unless it may be called; *trusted* are hosts that may be
        internal. Credentials for tokens travel by TLS alone.
        """
        if self.url:
            return custom_host(str(value), trusted)
        url = self.token_url(value) if self.token_url else None
        return None if url is None else custom_host(url, trusted, ("https",))


def bearer(target: Target) -> dict[str, str]:
    """The target's key as most take it."""
    return {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}


def key_header(header: str, scheme: str = "") -> Callable[[Target], dict[str, str]]:
    """The target's key in a *header* of the provider's own."""

    def auth(target: Target) -> dict[str, str]:
        return {header: scheme + target.api_key} if target.api_key else {}

    return auth


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """How one provider is asked, and what its errors mean.

    docs        where its interface is described
    base_url    its address; `{name}` stands for a setting of the target
    modes       how it comes to completions; the first is taken unless the request, the
                model or the target asks for another
    own_modes   those that its own address has, where a custom host has more
    absent      why it has none
    retired     why its own address serves nobody any more; a custom host may
    needs_key   refused without a key; or without all settings of one of `keys`
    auth        the headers that carry the key
    token       who turns the target's settings into a key: a name that
                upstream/auth/access_tokens.py knows
    signer      who signs its calls: a name that upstream/auth/request_signing.py knows
    hosted      the gateway runs it itself, and knows its address and key
    settings    what else it has to know
    model_settings  the settings that name a model, beside or in place of the request's
    error       an answer with an error status, as the error that the caller gets
    models      the call that lists its models; None if it has no such list
    model_list  its answer to that, in OpenAI's shape
    """

    name: str
    docs: str = ""
    base_url: str = ""
    modes: Mapping[CompletionMode, Endpoint | Families] = field(default_factory=dict)
    own_modes: Sequence[CompletionMode] = ()
    absent: str = ""
    retired: str = ""
    needs_key: bool = True
    keys: Sequence[Sequence[str]] = ()
    auth: Callable[[Target], Mapping[str, str]] = bearer
    token: str | None = None
    signer: str | None = None
    hosted: bool = False
    settings: Sequence[Setting] = ()
    model_settings: Sequence[str] = ()
    error: Callable[[int, bytes], UpstreamStatus]
    models: Callable[["Provider", Target], HTTPRequest] | None = None
    model_list: Callable[[bytes], bytes] = lambda body: body

    def endpoint(self, way: CompletionMode, model: str) -> Endpoint:
        """How *model* is asked by this *way*. Raises UnsupportedProvider."""
        found = self.modes[way]
        if isinstance(found, Endpoint):
            return found
        family = found.of(model)
        if family not in found.endpoints:
            raise UnsupportedProvider(
                f"Provider {self.name} cannot ask {model[:80]!r} via {way}, but models "
                f"of {', '.join(found.endpoints)}."
            )
        return found.endpoints[family]

    def endpoints(self, way: CompletionMode) -> Mapping[str, Endpoint]:
        """All endpoints of this *way*, by the families of models that they are for."""
        found = self.modes[way]
        return {"": found} if isinstance(found, Endpoint) else found.endpoints

    def address(self, target: Target) -> str:
        """Where it lies for this target. Raises InvalidRoute if a setting is amiss."""
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
        return _PLACE.sub(
            lambda found: host_label(options.get(found[1]), found[1]), self.base_url
        )


_PLACE = re.compile(r"\{(\w+)\}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


def host_label(given: Any, name: str) -> str:
    """The setting *name* as part of a host's name or a path. Raises InvalidRoute."""
    value = str(given or "")
    if len(value) <= 200 and _PART.fullmatch(value):
        return value
    seen = f"not {value[:40]!r}" if value else "and there is none"
    raise InvalidRoute(
        f"Invalid {name}: expected letters, digits, '-', '_' and '.', {seen}.",
        legacy=f"Invalid {name} passed",
    )


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One call's worth of a request, for one target."""

    provider: Provider
    endpoint: Endpoint
    target: Target
    request: CompletionRequest
    params: ParamMappings = field(repr=False, default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The request's parameters in the endpoint's own words, nested as it wants."""
        body: dict[str, Any] = {}
        for name, value in self.request.params.items():
            if name in self.params:
                param = self.params[name]
                _put(body, param.name, param.write(value))
            elif self.endpoint.passes and name not in LEGACY_PARAMS:
                body[name] = value
        return body

    def url(self, path: str) -> str:
        """Where *path* lies. The names in it are the caller's to quote."""
        return self.provider.address(self.target) + path

    def headers(self) -> dict[str, str]:
        """Those of a JSON call with the target's key."""
        auth = self.provider.auth(self.target)
        return merge_headers(
            {"Content-Type": "application/json", **auth}, self.target.headers
        )

    def post(
        self, path: str, body: Any, headers: Mapping[str, str] = MappingProxyType({})
    ) -> HTTPRequest:
        """The call that posts *body*; *headers* yield to those of the target."""
        sent = merge_headers(headers, self.headers())
        return HTTPRequest("POST", self.url(path), sent, orjson.dumps(body))


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    *places, name = path.split(".")
    for place in places:
        body = body.setdefault(place, {})
    body[name] = value


def merge_headers(low: Mapping[str, str], high: Mapping[str, str]) -> dict[str, str]:
    """Both, where *high* wins, however the names are spelled."""
    taken = set(map(str.lower, high))
    return {k: v for k, v in low.items() if k.lower() not in taken} | dict(high)


def quote_path_segment(name: str, safe: str = "") -> str:
    """*name* as one segment of a path; with a slash in *safe*, as several.

    Raises InvalidRequest for one that leads up.
    """
    if {".", ".."} & set(name.split("/")):
        raise InvalidRequest(f"Invalid model: {name[:80]!r}.", param="model")
    return quote(name, safe=safe)


def same_named(*names: str, **others: ParamMapping | str) -> dict[str, ParamMapping]:
    """Parameters of the same name upstream, and *others* with a name of their own."""
    renamed = {
        k: ParamMapping(v) if isinstance(v, str) else v for k, v in others.items()
    }
    return {name: ParamMapping(name) for name in names} | renamed


def as_list(stop: Any) -> Any:
    """Stop sequences as a list, also if it is one alone."""
    return [stop] if isinstance(stop, str) else stop


def models_request(path: str) -> Callable[[Provider, Target], HTTPRequest]:
    """`GET /models`, as on every OpenAI-compatible provider."""

    def models(provider: Provider, target: Target) -> HTTPRequest:
        headers = merge_headers(provider.auth(target), target.headers)
        return HTTPRequest("GET", provider.address(target) + path, headers)

    return models


def model_list(body: bytes) -> bytes:
    """A list of models, as it came if it is one."""
    if not isinstance(read_object(body).get("data"), list):
        raise UpstreamProtocol(f"the answer is no list of models: {excerpt(body)}")
    return body


def openai_model_list(names: Iterable[str], owner: str) -> bytes:
    """A list of models in OpenAI's shape."""
    fixed = {"object": "model", "created": 0, "owned_by": owner}
    return orjson.dumps(
        {"object": "list", "data": [{"id": name, **fixed} for name in names]}
    )


def read_object(body: bytes) -> dict[str, Any]:
    """*body* as a JSON object. Raises UpstreamProtocol with an excerpt of other."""
    try:
        document = safe_json.load(body)
    except ValueError as e:
        raise UpstreamProtocol(f"the answer is not JSON: {excerpt(body)}") from e
    if not isinstance(document, dict):
        raise UpstreamProtocol(f"the answer is no JSON object: {excerpt(body)}")
    return document


def read_completion(
    body: bytes, reader: Callable[[dict[str, Any]], Completion]
) -> Completion:
    """What *reader* makes of a JSON object. Raises UpstreamProtocol if it stumbles."""
    document = read_object(body)
    with malformed_as_upstream_error(body):
        return _sound(reader(document))


# A context manager is named like a function; one is made for each event of a stream.
class malformed_as_upstream_error:  # noqa: N801
    """What trips over an answer in here is upstream's fault: UpstreamProtocol."""

    __slots__ = ("_body",)

    def __init__(self, body: bytes = b"") -> None:
        self._body = body

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, _STUMBLES):
            seen = f": {excerpt(self._body)}" if self._body else ""
            raise UpstreamProtocol(f"the answer is not as expected{seen}") from error


_STUMBLES = (KeyError, IndexError, TypeError, AttributeError, ValueError)


def _sound(answer: Completion) -> Completion:
    """*answer*, if what others count on is there. Raises TypeError."""
    for choice in answer.choices:
        if not (isinstance(choice.text, str) and _is_place(choice.index)):
            raise TypeError
    usage = answer.usage
    numbers = (usage.paid_tokens, usage.cached_tokens) if usage else ()
    if not all(map(_is_count, (answer.created, *numbers))):
        raise TypeError
    return answer


def _is_place(index: Any) -> bool:
    return type(index) is int and index >= 0


def _is_count(number: Any) -> bool:
    """Whether it can be written, also the sum of thousands of its kind."""
    return type(number) is int and 0 <= number < 2**40


def excerpt(body: bytes, length: int = 200) -> str:
    """At most *length* characters of what was seen, on one line, in whole words.

    A secret that was quoted is in there as a whole, or is not: the first few
    characters of one could not be recognised. Only a word that is half of the excerpt
    is cut, which leaves enough of it.
    """
    text = " ".join(body[: 4 * length].decode("utf-8", "replace").split())
    printable = "".join(c if c.isprintable() else "\ufffd" for c in text)
    shown = printable[:length]
    if len(printable) > length or len(body) > 4 * length:
        words = _LAST_WORD.sub("", shown)
        shown = words if len(words) > length // 2 else shown
    return shown or "(an empty body)"


# What may be a key, or an encoded one, at the end of a text.
_LAST_WORD = re.compile(r"[\w+/=%~.*\\-]+\Z")
