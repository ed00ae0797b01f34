"""OAuth access tokens for Azure and Vertex AI, cached until they expire.

Microsoft's and Google's own libraries do the work. Their HTTP requests go through the
gateway's client, so that its limits and its address checks hold for them as well.

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
from ...providers.parsing.excerpts import excerpt
from ...providers.upstream_request import host_label
from ..client import ByteBudget, HTTPClient
from ..target_secrets import TOKEN
from ..timeouts import Deadline

# Credentials whose tokens are cached in a process, and bytes of a token service's
# response.
_MAX_SOURCES = 1000
_MAX_RESPONSE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class _TokenResponse:
    """A response with the attributes that both libraries look for."""

    # google-auth reads `status`, `headers` and `data`; msal `status_code`, `headers`,
    # `text` and raise_for_status(), as requests has them.
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
    """Exchanges the credentials of a target for a token. One for each process.

    A source is a function that returns a valid token, from its cache while that lasts.
    """

    # The libraries renew tokens, not this class, and both do so before they expire.
    # google-auth fetches another one 3 minutes and 45 seconds before; msal 5 minutes
    # before, and where the service sends `refresh_in`, tries it from then on, but uses
    # the old token if that fails. So each attempt begins with a token that is valid for
    # minutes.
    # Sources: google/auth/_helpers.py (REFRESH_THRESHOLD), msal/application.py

    def __init__(self, upstream: HTTPClient) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._sources: dict[str, tuple[threading.Lock, Callable[[], str]]] = {}

    def with_token(self, provider: Provider, target: Target) -> Target:
        """*target* with its token, if this provider needs one. Raises GatewayError."""
        kind = provider.token_source
        if kind is None or not target.has(_REQUIRED_OPTIONS[kind]):
            return target
        names = sorted({*_REQUIRED_OPTIONS[kind], *_OPTIONAL_OPTIONS})
        trusted = target.trusted_hosts
        credentials = [kind, trusted, [target.options.get(name) for name in names]]
        # Options may be long, and objects, which are no keys of a dictionary: so their
        # hash is. It covers the secret, so that a target with a wrong one does not get
        # a token from the cache, and the trusted hosts, by which URLs are checked.
        key = hashlib.blake2b(orjson.dumps(credentials)).hexdigest()
        with self._lock:
            if key not in self._sources:
                # The oldest goes, also if it is in use: it is created again then.
                if len(self._sources) >= _MAX_SOURCES:
                    self._sources.pop(next(iter(self._sources)))
                client = _TokenClient(self._upstream, trusted)
                source = _SOURCES[kind](client, target.options)
                self._sources[key] = threading.Lock(), source
            lock, source = self._sources[key]
        # One request at a time fetches a token; the others then find it cached. Each
        # source has its lock, so that a slow service delays only those who need it.
        with lock:
            token = source()
        return replace(target, options={**target.options, TOKEN: token})


@dataclass(frozen=True, slots=True)
class _TokenClient:
    """Requests to token services, at addresses that callers may choose.

    None but the *trusted* hosts may be internal.
    """

    upstream: HTTPClient
    trusted: tuple[str, ...]

    def check(self, url: str, name: str) -> str:
        """*url*, which the option *name* has set. Raises InvalidRoute."""
        try:
            return custom_host(url, self.trusted, ("https",))
        except ValueError as e:
            raise InvalidRoute(
                f"Invalid {name}: {e}.", legacy=f"Invalid {name} passed"
            ) from e

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> _TokenResponse:
        """Send one request, by TLS alone.

        An authority that has been checked may name any endpoint for tokens, as Entra's
        do, so the URL of each request is checked again.
        """
        if not url.lower().startswith("https://"):
            raise _no_token("The token service", "it wants to be asked without TLS")
        call = HTTPRequest(method, url, headers, body)
        # A token is fetched before the upstream call, whose own limit has not begun.
        deadline = Deadline.after(self.upstream.limits.connect * 6)
        reply = self.upstream.send(call, deadline, trusted=self.trusted)
        # The connection serves again only if the body was read to its end.
        release = reply.abort
        try:
            body = reply.read(ByteBudget(_MAX_RESPONSE_BYTES))
            release = reply.close
        finally:
            release()
        return _TokenResponse(reply.status, reply.headers_in_any_case, body)


# Microsoft


class _MsalClient:
    """The interface that msal expects of an HTTP client."""

    def __init__(self, client: _TokenClient) -> None:
        self._client = client

    def get(self, url: str, params: Any = None, headers: Any = None, **_: Any) -> Any:
        query = "?" + urlencode(params) if params else ""
        return self._client.send("GET", url + query, headers or {}, None)

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
        return self._client.send("POST", url + query, form | (headers or {}), body)

    def close(self) -> None:
        """Keep nothing open."""


def _entra_source(
    client: _TokenClient, options: Mapping[str, Any]
) -> Callable[[], str]:
    """Tokens for an application that is registered in Entra, by its secret."""
    try:
        import msal
    except ImportError as e:
        raise missing_package("Entra ID", "azure") from e
    tenant = host_label(options.get("azure_entra_tenant_id"), "azure_entra_tenant_id")
    # The host of a national cloud, as login.microsoftonline.us, or of a test.
    host, _, port = str(
        options.get("azure_entra_authority") or "login.microsoftonline.com"
    ).partition(":")
    if port and not port.isdecimal():
        raise InvalidRoute(
            "Invalid azure_entra_authority: expected a host such as "
            "login.microsoftonline.us.",
            legacy="Invalid azure_entra_authority passed",
        )
    host = host_label(host, "azure_entra_authority") + (f":{port}" if port else "")
    authority = client.check(f"https://{host}", "azure_entra_authority")
    scope = str(
        options.get("azure_entra_scope")
        or "https://cognitiveservices.azure.com/.default"
    )
    try:
        # Fetches the endpoints from the authority, which may answer anything.
        application = msal.ConfidentialClientApplication(
            str(options["azure_entra_client_id"]),
            client_credential=str(options["azure_entra_client_secret"]),
            authority=f"{authority}/{tenant}",
            http_client=_MsalClient(client),
            # Would call Microsoft's public cloud to ask whether the host is known.
            instance_discovery=False,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        raise _no_token("Entra ID", "its authority names no usable endpoints") from e

    def token() -> str:
        # msal caches the token, and renews it before it expires.
        try:
            answer = application.acquire_token_for_client([scope])
        except (OSError, ValueError, RuntimeError) as e:
            raise _no_token("Entra ID", str(e)) from e
        if "access_token" not in answer:
            raise _no_token("Entra ID", str(answer.get("error_description")))
        return str(answer["access_token"])

    return token


# Google


def _google_source(
    client: _TokenClient, options: Mapping[str, Any]
) -> Callable[[], str]:
    """Tokens for a service account, by its private key."""
    try:
        from google.auth.exceptions import GoogleAuthError
        from google.oauth2.service_account import Credentials as Account
    except ImportError as e:
        raise missing_package("Vertex AI with a service account", "vertex") from e
    # google-auth signs a JWT by the account's private key, and posts it to token_uri,
    # which answers with a token that is valid for an hour.
    make: Any = Account.from_service_account_info
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    name = "vertex_service_account_json"
    info = _service_account(options[name])
    # The text that was checked is the one that is called, not one that looks like it.
    url = client.check(str(info["token_uri"]), f"token_uri of {name}")
    try:
        account = make(info | {"token_uri": url}, scopes=scopes)
    except (GoogleAuthError, ValueError, TypeError) as e:
        raise _invalid_account("its private_key cannot be read as a PEM key") from e

    def request(
        url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any
    ) -> _TokenResponse:
        return client.send(method, url, headers or {}, body)

    def token() -> str:
        if not account.valid:
            # `valid` turns false before the token expires, see AccessTokens.
            try:
                account.refresh(request)
            except (GoogleAuthError, ValueError) as e:
                raise _no_token("Google", str(e.args[0] if e.args else e)) from e
        return str(account.token)

    return token


def _service_account(document: Any) -> dict[str, Any]:
    """The JSON of a service account, which comes as an object or as text."""
    account = document
    if isinstance(document, str):
        try:
            account = orjson.loads(document)
        except ValueError as e:
            raise _invalid_account("it is not JSON") from e
    # The library takes these three for texts without looking at them.
    names = ("client_email", "private_key", "token_uri")
    is_object = isinstance(account, Mapping)
    if not (is_object and all(isinstance(account.get(name), str) for name in names)):
        raise _invalid_account("it lacks client_email, private_key or token_uri")
    return dict(account)


def _invalid_account(reason: str) -> InvalidRoute:
    return InvalidRoute(
        "Invalid vertex_service_account_json: expected the JSON of a service account's "
        f"key, but {reason}.",
        legacy="Invalid vertex_service_account_json passed",
    )


def missing_package(what: str, extra: str) -> UnsupportedProvider:
    """The error where the package of an extra is not installed."""
    return UnsupportedProvider(
        f"{what} needs a package that is not installed here: "
        f"pip install 'lastword[{extra}]'."
    )


def _no_token(service: str, reason: str) -> Unauthorized:
    # What the service says tells which credential is wrong.
    quoted = excerpt(reason.encode("utf-8", "replace"), 300)
    return Unauthorized(f"{service} gave no token: {quoted}", code="no_access_token")


_REQUIRED_OPTIONS: Mapping[str, Sequence[str]] = {
    "entra": (
        "azure_entra_tenant_id",
        "azure_entra_client_id",
        "azure_entra_client_secret",
    ),
    "google": ("vertex_service_account_json",),
}
_OPTIONAL_OPTIONS = ("azure_entra_scope", "azure_entra_authority")
_SOURCES = {"entra": _entra_source, "google": _google_source}
