"""Request signatures, checked like a server would, from the received bytes."""

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.conftest import Caller
from tests.upstream import ReceivedRequest, Upstream, reply, whole

AWS = {
    "provider": "bedrock",
    "aws_access_key_id": "AKIDEXAMPLE",
    "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "aws_region": "eu-west-1",
}
CONVERSED = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Yes"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
}


def caller_for(call: Callable[..., Caller], upstream: Upstream, target: Any) -> Caller:
    caller = call(upstream)
    for name in ("x-portkey-provider", "Authorization"):
        del caller.headers[name]
    caller.headers["x-portkey-config"] = json.dumps(target)
    return caller


# AWS


def signature_of(request: ReceivedRequest, secret: str) -> tuple[str, str]:
    """The signature of *request*, and the right one.

    From
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    scheme, _, rest = request.headers["authorization"].partition(" ")
    assert scheme == "AWS4-HMAC-SHA256"
    parameters = dict(part.strip().split("=", 1) for part in rest.split(","))
    names = parameters["SignedHeaders"].split(";")
    lines = [f"{name}:{request.headers[name]}\n" for name in names]
    canonical = "\n".join(
        [
            request.method,
            # Everywhere but on S3 the path is encoded once more.
            quote(request.path.partition("?")[0], safe="/~-._"),
            "",
            "".join(lines),
            parameters["SignedHeaders"],
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    _, day, region, service, end = parameters["Credential"].split("/")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    scope = f"{day}/{region}/{service}/{end}"
    text = "\n".join([scheme, request.headers["x-amz-date"], scope, digest])
    key = b"AWS4" + secret.encode()
    for word in (day, region, service, end, text):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    assert (region, service) == ("eu-west-1", "bedrock")
    return parameters["Signature"], key.hex()


def test_bedrock_request_is_signed_as_received(call, script) -> None:
    upstream = script(whole(CONVERSED))
    target = AWS | {"aws_session_token": "a-session"}
    response = caller_for(call, upstream, target).complete(
        model="anthropic.claude-3-haiku-20240307-v1:0", prompt="Où?"
    )

    assert response.json["choices"][0]["text"] == "Yes"
    assert upstream.last.path.endswith("claude-3-haiku-20240307-v1%3A0/converse")
    carried, right = signature_of(upstream.last, AWS["aws_secret_access_key"])
    assert carried == right
    assert upstream.last.headers["x-amz-security-token"] == "a-session"


def test_each_attempt_is_signed_anew(call, script) -> None:
    busy = whole({"message": "Too many requests"}, 503)
    upstream = script(busy, whole(CONVERSED))
    target = AWS | {"retry": {"attempts": 1}}
    caller = caller_for(call, upstream, target)

    assert caller.complete(model="amazon.nova-lite-v1:0").status_code == 200
    for request in upstream.requests:
        carried, right = signature_of(request, AWS["aws_secret_access_key"])
        assert carried == right


def test_bedrock_api_key_needs_no_signature(call, script) -> None:
    upstream = script(whole(CONVERSED))
    target = {"provider": "bedrock", "api_key": "bedrock-api-key-x"}

    assert caller_for(call, upstream, target).complete().status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer bedrock-api-key-x"
    assert "x-amz-date" not in upstream.last.headers


def test_incomplete_aws_keys_yield_to_api_key(call, script) -> None:
    upstream = script(whole(CONVERSED))
    target = {"provider": "bedrock", "api_key": "k", "aws_access_key_id": "AKIDEXAMPLE"}

    assert caller_for(call, upstream, target).complete().status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer k"


def test_incomplete_aws_keys_are_unauthorized(call, script) -> None:
    upstream = script(whole(CONVERSED))
    target = {"provider": "bedrock", "aws_access_key_id": "AKIDEXAMPLE"}
    error = caller_for(call, upstream, target).complete()

    assert error.status_code == 401 and upstream.requests == []
    assert "aws_secret_access_key" in error.json["error"]["message"]


def test_aws_keys_from_headers_sign(call, script) -> None:
    upstream = script(whole(CONVERSED))
    caller = call(upstream)
    caller.headers["x-portkey-provider"] = "bedrock"
    del caller.headers["Authorization"]
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_region")
    caller.headers |= {f"x-portkey-{n.replace('_', '-')}": AWS[n] for n in names}

    assert caller.complete().status_code == 200
    carried, right = signature_of(upstream.last, AWS["aws_secret_access_key"])
    assert carried == right
    assert AWS["aws_secret_access_key"] not in str(upstream.last.headers)


# Oracle


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def oracle(private_key: rsa.RSAPrivateKey) -> dict[str, str]:
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "provider": "oracle",
        "oracle_region": "eu-frankfurt-1",
        "oracle_tenancy": "ocid1.tenancy.oc1..t",
        "oracle_user": "ocid1.user.oc1..u",
        "oracle_fingerprint": "20:3b:97:13",
        "oracle_compartment_id": "ocid1.compartment.oc1..c",
        "oracle_private_key": pem.decode(),
    }


def test_oracle_request_is_signed_as_received(
    call, script, oracle, private_key: rsa.RSAPrivateKey
) -> None:
    """After https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm"""
    upstream = script(whole(reply("Yes")))
    response = caller_for(call, upstream, oracle).complete()
    assert response.status_code == 200, response.json

    request = upstream.last
    scheme, _, rest = request.headers["authorization"].partition(" ")
    parameters = {
        k: v.strip('"') for k, v in (p.split("=", 1) for p in rest.split(","))
    }
    values = {"(request-target)": f"post {request.path}", **request.headers}
    lines = [f"{name}: {values[name]}" for name in parameters["headers"].split()]
    private_key.public_key().verify(
        base64.b64decode(parameters["signature"]),
        "\n".join(lines).encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
    assert scheme == "Signature" and request.headers["x-content-sha256"] == digest
    assert parameters["keyId"] == "ocid1.tenancy.oc1..t/ocid1.user.oc1..u/20:3b:97:13"
    assert {"x-content-sha256", "host", "date", "(request-target)"} <= set(
        parameters["headers"].split()
    )


def test_oracle_api_key_needs_no_signature(call, script) -> None:
    upstream = script(whole(reply("Yes")))
    target = {"provider": "oracle", "api_key": "sk-oracle", "oracle_tenancy": "t"}

    assert caller_for(call, upstream, target).complete().status_code == 200
    assert upstream.last.headers["authorization"] == "Bearer sk-oracle"


def test_invalid_oracle_key_is_not_echoed(call, script, oracle) -> None:
    upstream = script(whole(reply()))
    broken = oracle | {"oracle_private_key": "-----BEGIN nothing"}
    error = caller_for(call, upstream, broken).complete()

    assert error.status_code == 400 and upstream.requests == []
    assert "oracle_private_key" in error.json["error"]["message"]
    assert "BEGIN nothing" not in error.get_data(as_text=True)


# Without the optional packages


@pytest.mark.parametrize(
    "package, extra", [("botocore.auth", "bedrock"), ("oci.signer", "oracle")]
)
def test_missing_package_names_its_extra(
    call, script, oracle, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    upstream = script(whole(reply()))
    bedrock = {"provider": "bedrock", "api_key": "bedrock-api-key-x"}
    target = bedrock if extra == "bedrock" else oracle
    error = caller_for(call, upstream, target).complete()

    assert error.status_code == 400 and upstream.requests == []
    assert error.json["error"]["code"] == "unsupported_provider"
    assert f"lastword[{extra}]" in error.json["error"]["message"]
