"""Access tokens for providers that want more than a key, kept until they expire.

Microsoft's and Google's own libraries do the work; what they send goes through the
gateway's client, so that its limits and its guard hold for it as well.

Sources:
https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
https://developers.google.com/identity/protocols/oauth2/service-account
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import orjson

from ...core.hosts import custom_host
from ...core.routing import Target
from ...errors import InvalidRoute, Unauthorized, UnsupportedProvider
from ...providers import HTTPRequest, Provider
from ...providers.parsing.json_bodies import excerpt
from ...providers.request_parts import host_label
from ..client import ByteBudget, HTTPClient
from ..target_secrets import TOKEN
from ..timeouts import Deadline

# Who may ask for tokens at a time before the oldest is forgotten, and the bytes that an
# answer with a token may have.
_MOST = 1000
_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer, by the names that both libraries look for."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def status_code(self) -> int:
        return self.status

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")

    def raise_for_status(self) -> None:
        if self.status >= 400:
            raise OSError(f"status {self.status}")


class AccessTokens:
    """Turns the settings of a target into a token. One for each process."""

    def __init__(self, upstream: HTTPClient) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._sources: dict[str, tuple[threading.Lock, Callable[[], str]]] = {}

    def resolved(self, provider: Provider, target: Target) -> Target:
        """*target* with its token, if this provider needs one. Raises GatewayError."""
        kind = provider.token
        if kind is None or not target.has(_NEEDS[kind]):
            return target
        lock, source = self._source(kind, target)
        with lock:
            token = source()
        return replace(target, options={**target.options, TOKEN: token})

    def _source(
        self, kind: str, target: Target
    ) -> tuple[threading.Lock, Callable[[], str]]:
        """The source for this target's settings, of which there is one."""
        names = sorted({*_NEEDS[kind], *_OPTIONAL})
        trusted = target.trusted_hosts
        told = [kind, trusted, [target.options.get(name) for name in names]]
        key = hashlib.blake2b(orjson.dumps(told)).hexdigest()
        with self._lock:
            if key not in self._sources:
                if len(self._sources) >= _MOST:
                    self._sources.pop(next(iter(self._sources)))
                made = _KINDS[kind](_Sender(self._upstream, trusted), target.options)
                self._sources[key] = threading.Lock(), made
            return self._sources[key]


@dataclass(frozen=True, slots=True)
class _Sender:
    """Makes calls for tokens, to addresses that callers may have a say in.

    None but the *trusted* hosts may be internal.
    """

    upstream: HTTPClient
    trusted: tuple[str, ...]

    def check(self, url: str, name: str) -> str:
        """*url*, which the setting *name* leads to. Raises InvalidRoute."""
        try:
            return custom_host(url, self.trusted, ("https",))
        except ValueError as e:
            raise InvalidRoute(
                f"Invalid {name}: {e}.", legacy=f"Invalid {name} passed"
            ) from e

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> _Answer:
        """One call for a token. Who names the address may name another one for the
        call itself, as Entra's authorities do, so it has to be TLS here as well.
        """
        if not url.lower().startswith("https://"):
            raise _refused("The token service", "it wants to be asked without TLS")
        call = HTTPRequest(method, url, headers, body)
        deadline = Deadline.after(self.upstream.limits.connect * 6)
        reply = self.upstream.send(call, deadline, trusted=self.trusted)
        let_go = reply.abort
        try:
            body = reply.read(ByteBudget(_MOST_BYTES))
            let_go = reply.close
        finally:
            let_go()
        return _Answer(reply.status, reply.headers, body)


# Microsoft


class _MsalClient:
    """What msal takes for an HTTP client."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender

    def get(self, url: str, params: Any = None, headers: Any = None, **_: Any) -> Any:
        query = "?" + urlencode(params) if params else ""
        return self._sender.send("GET", url + query, headers or {}, None)

    def post(
        self,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        **_: Any,
    ) -> Any:
        query = "?" + urlencode(params) if params else ""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(data or {}).encode()
        return self._sender.send("POST", url + query, form | (headers or {}), body)

    def close(self) -> None:
        """Nothing is kept open."""


def _entra(sender: _Sender, options: Mapping[str, Any]) -> Callable[[], str]:
    """Tokens for an application that is registered in Entra, by its secret."""
    try:
        import msal
    except ImportError as e:
        raise missing("Entra ID", "azure") from e
    tenant = host_label(options.get("azure_entra_tenant_id"), "azure_entra_tenant_id")
    host = _host(options.get("azure_entra_authority") or "login.microsoftonline.com")
    authority = sender.check(f"https://{host}", "azure_entra_authority")
    scope = str(
        options.get("azure_entra_scope")
        or "https://cognitiveservices.azure.com/.default"
    )
    try:
        # Asks the authority for its endpoints, which may be anything.
        application = msal.ConfidentialClientApplication(
            str(options["azure_entra_client_id"]),
            client_credential=str(options["azure_entra_client_secret"]),
            authority=f"{authority}/{tenant}",
            http_client=_MsalClient(sender),
            instance_discovery=False,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        raise _refused("Entra ID", "its authority names no usable endpoints") from e

    def token() -> str:
        try:
            answer = application.acquire_token_for_client([scope])
        except (OSError, ValueError, RuntimeError) as e:
            raise _refused("Entra ID", str(e)) from e
        if "access_token" not in answer:
            raise _refused("Entra ID", str(answer.get("error_description")))
        return str(answer["access_token"])

    return token


def _host(given: Any) -> str:
    """A host, with its port if it has one."""
    name, _, port = str(given).partition(":")
    if port and not port.isdecimal():
        raise InvalidRoute(
            "Invalid azure_entra_authority: expected a host such as "
            "login.microsoftonline.us.",
            legacy="Invalid azure_entra_authority passed",
        )
    return host_label(name, "azure_entra_authority") + (f":{port}" if port else "")


# Google


def _google(sender: _Sender, options: Mapping[str, Any]) -> Callable[[], str]:
    """Tokens for a service account, by its key."""
    try:
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2.service_account import Credentials as Account
    except ImportError as e:
        raise missing("Vertex AI with a service account", "vertex") from e
    make: Any = Account.from_service_account_info
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    name = "vertex_service_account_json"
    described = _account(options[name])
    # What is checked is what is called: one text, not two that are alike.
    url = sender.check(str(described["token_uri"]), f"token_uri of {name}")
    try:
        account = make(described | {"token_uri": url}, scopes=scopes)
    except (GoogleAuthError, ValueError, TypeError) as e:
        raise _no_account("its private_key cannot be read as a PEM key") from e

    def request(
        url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any
    ) -> _Answer:
        return sender.send(method, url, headers or {}, body)

    def token() -> str:
        if not account.valid:
            try:
                account.refresh(request)
            except (GoogleAuthError, ValueError) as e:
                raise _refused("Google", str(e.args[0] if e.args else e)) from e
        return str(account.token)

    return token


def _account(given: Any) -> dict[str, Any]:
    """The service account's JSON, as an object or as text."""
    try:
        account = orjson.loads(given) if isinstance(given, str) else dict(given)
        if not {"client_email", "private_key", "token_uri"} <= set(account):
            raise ValueError
    except ValueError as e:
        raise _no_account("it lacks client_email, private_key or token_uri") from e
    return account


def _no_account(why: str) -> InvalidRoute:
    return InvalidRoute(
        "Invalid vertex_service_account_json: expected the JSON of a service account's "
        f"key, but {why}.",
        legacy="Invalid vertex_service_account_json passed",
    )


def missing(what: str, extra: str) -> UnsupportedProvider:
    """The answer where a package is not installed."""
    return UnsupportedProvider(
        f"{what} needs a package that is not installed here: "
        f"pip install 'lastword[{extra}]'."
    )


def _refused(who: str, why: str) -> Unauthorized:
    seen = excerpt(why.encode("utf-8", "replace"), 300)
    return Unauthorized(f"{who} gave no token: {seen}", code="no_access_token")


_NEEDS: Mapping[str, Sequence[str]] = {
    "entra": (
        "azure_entra_tenant_id",
        "azure_entra_client_id",
        "azure_entra_client_secret",
    ),
    "google": ("vertex_service_account_json",),
}
_OPTIONAL = ("azure_entra_scope", "azure_entra_authority")
_KINDS = {"entra": _entra, "google": _google}
