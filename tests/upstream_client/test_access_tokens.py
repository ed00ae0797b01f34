"""Access tokens: fetched once, cached, and renewed; over HTTP."""

import base64
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import assume, given
from hypothesis import strategies as st

from app.core.routing import Target
from app.errors import InvalidRoute
from app.providers import PROVIDERS
from app.upstream.auth.access_tokens import AccessTokens
from app.upstream.client import HTTPClient
from app.upstream.timeouts import Timeouts
from tests.conftest import Caller
from tests.upstream import Answer, ReceivedRequest, Upstream, completion, whole

SECRET = "a-secret-of-the-application"


def caller_for(call: Callable[..., Caller], target: Any, **changes: Any) -> Caller:
    caller = call(SimpleNamespace(url=""), **changes)
    caller.headers.clear()
    caller.headers["x-portkey-config"] = json.dumps(target)
    return caller


# Microsoft Entra ID


class Entra:
    """A fake of Entra's token endpoint, which records its requests."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.host = f"127.0.0.1:{upstream.port}"
        self.lifetime = 3599

    def __call__(self, request: ReceivedRequest) -> Answer:
        base = f"https://{self.host}/a-tenant"
        if request.path.endswith("openid-configuration"):
            return whole(
                {
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "issuer": f"{base}/v2.0",
                }
            )
        if SECRET not in request.body.decode():
            denied = {"error": "invalid_client", "error_description": "AADSTS7000215"}
            return whole(denied, 401)
        number = len(self.tokens)
        token = {"access_token": f"token-{number}", "expires_in": self.lifetime}
        return whole(token | {"token_type": "Bearer"})

    @property
    def tokens(self) -> list[ReceivedRequest]:
        """The requests for a token."""
        return [
            request for request in self.upstream.requests if request.method == "POST"
        ]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def entra(script, authority: trustme.CA) -> Entra:
    upstream = script(whole({}))
    upstream.encrypt(server_context(authority))
    entra = Entra(upstream)
    upstream.answers[:] = [entra]
    return entra


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def azure(script, entra: Entra) -> tuple[Upstream, dict[str, str]]:
    upstream = script(whole(completion()))
    return upstream, {
        "provider": "azure-openai",
        "custom_host": upstream.url,
        "azure_entra_tenant_id": "a-tenant",
        "azure_entra_client_id": "a-client",
        "azure_entra_client_secret": SECRET,
        "azure_entra_authority": entra.host,
    }


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def test_entra_token_is_cached(call, azure, entra: Entra, bundle: str) -> None:
    upstream, target = azure
    caller = caller_for(call, target, ca_bundle=bundle)

    for _ in range(3):
        assert caller.complete(model="dep").status_code == 200
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer token-1"] * 3 and len(entra.tokens) == 1
    assert "api-key" not in upstream.last.headers
    form = parse_qs(entra.tokens[0].body.decode())
    assert form["scope"] == ["https://cognitiveservices.azure.com/.default"]
    assert form["grant_type"] == ["client_credentials"]


def test_expired_token_is_renewed(call, azure, entra: Entra, bundle: str) -> None:
    upstream, target = azure
    entra.lifetime = 1
    caller = caller_for(call, target, ca_bundle=bundle)
    caller.complete(model="dep")
    caller.complete(model="dep")

    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer token-1", "Bearer token-2"]


def test_tokens_are_kept_per_application(
    call, azure, entra: Entra, bundle: str
) -> None:
    upstream, target = azure
    caller = caller_for(call, target, ca_bundle=bundle)
    caller.complete(model="dep")
    other = json.dumps(target | {"azure_entra_client_id": "another"})
    caller.complete(model="dep", headers={"x-portkey-config": other})

    assert len(entra.tokens) == 2


def test_wrong_secret_is_not_echoed(call, azure, entra: Entra, bundle: str) -> None:
    upstream, target = azure
    wrong = target | {"azure_entra_client_secret": "guessed-in-vain"}
    error = caller_for(call, wrong, ca_bundle=bundle).complete(model="dep")

    assert error.status_code == 401 and upstream.requests == []
    assert error.json["error"]["code"] == "no_access_token"
    assert "AADSTS7000215" in error.json["error"]["message"]
    assert "guessed-in-vain" not in error.get_data(as_text=True)


def test_unreachable_authority_is_bad_gateway(
    call, azure, entra: Entra, bundle: str
) -> None:
    upstream, target = azure
    entra.upstream.stop()
    error = caller_for(call, target, ca_bundle=bundle).complete(model="dep")

    assert error.status_code == 502 and upstream.requests == []


@pytest.mark.parametrize("host", ["a.example@b", "a/b", "a:b", "x" * 300])
def test_authority_must_be_a_host(call, azure, host: str) -> None:
    upstream, target = azure
    error = caller_for(call, target | {"azure_entra_authority": host}).complete()

    assert error.status_code == 400 and upstream.requests == []
    assert "azure_entra_authority" in error.json["error"]["message"]


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'"x"', b'{"token_endpoint": 7, "authorization_endpoint": 7}'],
)
def test_authority_without_endpoints_is_unauthorized(
    call, azure, entra: Entra, bundle: str, document: bytes
) -> None:
    upstream, target = azure
    entra.upstream.answers[:] = [whole(document)]
    error = caller_for(call, target, ca_bundle=bundle).complete(model="dep")

    assert error.status_code == 401 and upstream.requests == []
    assert error.json["error"]["code"] == "no_access_token"


def test_internal_authority_is_refused(call, azure) -> None:
    upstream, target = azure
    error = caller_for(
        call, target | {"azure_entra_authority": "10.0.0.1"}, trusted_custom_hosts=()
    ).complete()

    assert error.status_code == 400 and upstream.requests == []


def test_callers_own_token_is_used(call, azure, entra: Entra) -> None:
    upstream, target = azure
    own = {"azure_ad_token": "mine", "provider": "azure-openai"}
    caller_for(call, own | {"custom_host": upstream.url}).complete(model="dep")

    assert upstream.last.headers["authorization"] == "Bearer mine"
    assert entra.upstream.requests == []


# Google


class Google:
    """A service account, and a fake of its token endpoint."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.account = {
            "type": "service_account",
            "client_email": "robot@p.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "token_uri": f"https://127.0.0.1:{upstream.port}/token",
        }


@pytest.fixture
def google(script, authority: trustme.CA) -> Google:
    upstream = script(whole({"access_token": "ya29.x", "expires_in": 3599}))
    upstream.encrypt(server_context(authority))
    return Google(upstream)


ANSWER = {
    "candidates": [{"content": {"parts": [{"text": "Yes"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1},
}


@pytest.fixture
def vertex(script, google: Google) -> tuple[Upstream, dict[str, Any]]:
    upstream = script(whole(ANSWER))
    return upstream, {
        "provider": "vertex-ai",
        "custom_host": upstream.url.removesuffix("/v1"),
        "vertex_project_id": "p",
        "vertex_region": "europe-west1",
        "vertex_service_account_json": google.account,
    }


@pytest.mark.parametrize("form", [dict, json.dumps], ids=["object", "text"])
def test_google_token_is_cached(
    call, vertex, google: Google, bundle: str, form: Any
) -> None:
    upstream, target = vertex
    target["vertex_service_account_json"] = form(google.account)
    caller = caller_for(call, target, ca_bundle=bundle)

    for _ in range(2):
        assert caller.complete(model="gemini-2.0-flash").status_code == 200
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Bearer ya29.x"] * 2 and len(google.upstream.requests) == 1
    assert upstream.last.path.startswith("/v1/projects/p/locations/europe-west1/")


def test_assertion_is_signed_by_account(
    call, vertex, google: Google, bundle: str
) -> None:
    _, target = vertex
    caller_for(call, target, ca_bundle=bundle).complete(model="gemini-2.0-flash")

    (assertion,) = parse_qs(google.upstream.last.body.decode())["assertion"]
    signed, _, signature = assertion.rpartition(".")
    google.key.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="),
        signed.encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    claims = json.loads(base64.urlsafe_b64decode(signed.partition(".")[2] + "=="))
    assert claims["iss"] == google.account["client_email"]
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"


@pytest.mark.parametrize(
    "account",
    ["{", "[]", {"client_email": "x"}, {"private_key": "x"}],
    ids=str,
)
def test_invalid_service_account_is_refused(call, vertex, account: Any) -> None:
    upstream, target = vertex
    error = caller_for(
        call, target | {"vertex_service_account_json": account}
    ).complete()

    assert error.status_code == 400 and upstream.requests == []
    assert "vertex_service_account_json" in error.json["error"]["message"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["client_email", "private_key", "token_uri", "type"]), inner
    ),
    max_leaves=6,
)


CLIENT = HTTPClient(Timeouts(1, 1, 1))


@given(JSON_VALUES, st.booleans())
def test_no_document_is_taken_for_a_service_account(value: Any, as_text: bool) -> None:
    """Whatever JSON is there instead of one: a refusal that names it, and no 500."""
    document = json.dumps(value) if as_text else value
    assume(document)
    options = {"vertex_service_account_json": document}
    target = Target("vertex-ai", options=options, trusted_hosts=())
    with pytest.raises(InvalidRoute):
        AccessTokens(CLIENT).with_token(PROVIDERS["vertex-ai"], target)


def test_invalid_private_key_is_not_echoed(call, vertex, google: Google) -> None:
    upstream, target = vertex
    target["vertex_service_account_json"] = google.account | {
        "private_key": "gibberish"
    }
    error = caller_for(call, target).complete()

    assert error.status_code == 400 and upstream.requests == []
    assert "gibberish" not in error.get_data(as_text=True)


def test_unknown_service_account_is_unauthorized(
    call, vertex, google: Google, bundle: str
) -> None:
    upstream, target = vertex
    denied = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    google.upstream.answers[:] = [whole(denied, 400)]
    error = caller_for(call, target, ca_bundle=bundle).complete()

    assert error.status_code == 401 and upstream.requests == []
    assert "invalid_grant" in error.json["error"]["message"]


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:PORT/token",
        "https://127.0.0.1:PORT/token?",
        "https://127.0.0.1:PORT/v1.41/create?x=",
        "https://127.0.0.1:PORT/token#",
        "https://127.0.0.1:PORT/x/../token",
        "https://127.0.0.1:PORT/x%2ftoken",
        "https://u:p@127.0.0.1:PORT/token",
        "https://169.254.169.254/latest",
        "https://metadata.google.internal/token",
        "file:///etc/passwd",
        7,
        None,
    ],
)
@pytest.mark.parametrize("form", [dict, json.dumps], ids=["object", "text"])
def test_token_uri_is_checked_like_custom_host(
    call, vertex, google: Google, bundle: str, form: Any, uri: Any
) -> None:
    upstream, target = vertex
    if isinstance(uri, str):
        uri = uri.replace("PORT", str(google.upstream.port))
    target["vertex_service_account_json"] = form(google.account | {"token_uri": uri})
    error = caller_for(call, target, ca_bundle=bundle).complete(
        model="gemini-2.0-flash"
    )

    assert error.status_code == 400
    assert "vertex_service_account_json" in error.json["error"]["message"]
    assert upstream.opened == google.upstream.opened == 0


@pytest.mark.parametrize("scheme", ["http", "ftp"])
def test_token_endpoint_requires_tls(
    call, azure, entra: Entra, bundle: str, script, scheme: str
) -> None:
    """A URL from the discovery document is used, so it is validated as well."""
    upstream, target = azure
    plain = script(whole({"access_token": "x", "token_type": "Bearer"}))
    base = f"{scheme}://127.0.0.1:{plain.port}/a-tenant"
    endpoints = {
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "issuer": f"https://{entra.host}/a-tenant/v2.0",
    }
    entra.upstream.answers[:] = [whole(endpoints)]
    error = caller_for(call, target, ca_bundle=bundle).complete(model="dep")

    assert error.status_code in (400, 401)
    assert plain.opened == upstream.opened == 0


# Without the optional packages


@pytest.mark.parametrize("kind", ["azure", "vertex"])
def test_missing_package_names_its_extra(
    call, request: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    package = {"azure": "msal", "vertex": "google.oauth2.service_account"}[kind]
    monkeypatch.setitem(sys.modules, package, None)
    upstream, target = request.getfixturevalue(kind)
    error = caller_for(call, target).complete()

    assert error.status_code == 400 and upstream.requests == []
    assert error.json["error"]["code"] == "unsupported_provider"
    assert f"lastword[{kind}]" in error.json["error"]["message"]
