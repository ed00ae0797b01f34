"""Signed requests, for providers that take a signature instead of a key.

A signature is valid for five minutes and for one body, so it is computed with each
attempt, last of all: it covers the headers, too, so none may be added afterwards.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ...core.routing import Target
from ...errors import InvalidRoute
from ...providers import HTTPRequest, Provider
from .access_tokens import missing_package

# Returns the request with the headers of its signature; the one it gets is unchanged.
Sign = Callable[[HTTPRequest], HTTPRequest]


def find_signer(signer: str, provider: Provider, target: Target) -> Sign:
    """The function by which *signer*, the provider's, signs requests to *target*.

    A target without the options that a signature takes has a key instead. Raises
    UnsupportedProvider if the package that signs is not installed.
    """
    has_options = any(map(target.has, provider.credential_settings))
    return _SIGNERS[signer](target.options if has_options else {})


def _unsigned(call: HTTPRequest) -> HTTPRequest:
    return call


def _aws_signer(options: Mapping[str, Any]) -> Sign:
    """AWS Signature Version 4, by botocore, which also decodes Bedrock's streams.

    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
    """
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
    except ImportError as e:
        raise missing_package("Bedrock", "bedrock") from e
    # The package is imported first: an API key needs no signature, but without it the
    # stream could not be decoded, after the request was paid for.
    if not options:
        return _unsigned
    credentials = Credentials(
        options["aws_access_key_id"],
        options["aws_secret_access_key"],
        options.get("aws_session_token"),
    )
    region = str(options["aws_region"])

    def sign(call: HTTPRequest) -> HTTPRequest:
        # It covers method, path, query, headers and the body's SHA-256, and adds
        # X-Amz-Date, Authorization and, for temporary keys, X-Amz-Security-Token.
        # botocore quotes the path once more in what it signs, as all services but S3
        # expect: an ARN in it is quoted twice there. The service's name is the one in
        # its description (`signingName`), and not the host's `bedrock-runtime`.
        request = AWSRequest(call.method, call.url, dict(call.headers), call.body)
        SigV4Auth(credentials, "bedrock", region).add_auth(request)
        return HTTPRequest(call.method, call.url, dict(request.headers), call.body)

    return sign


def _oci_signer(options: Mapping[str, Any]) -> Sign:
    """Oracle's HTTP signature, by its own package.

    Source: https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm
    """
    # In contrast to AWS, nothing of the package is needed with a key.
    if not options:
        return _unsigned
    try:
        import requests
        from oci.signer import Signer
    except ImportError as e:
        raise missing_package("Oracle's Generative AI", "oracle") from e
    try:
        signature = Signer(
            options["oracle_tenancy"],
            options["oracle_user"],
            options["oracle_fingerprint"],
            # A path to the key's file, which callers must not choose.
            None,
            options.get("oracle_key_passphrase"),
            options["oracle_private_key"],
        )
    except Exception as e:  # oci raises a dozen kinds for a key that it cannot read.
        raise InvalidRoute(
            "Invalid oracle_private_key: it cannot be read as a PEM key.",
            legacy="Invalid oracle_private_key passed",
        ) from e

    def sign(call: HTTPRequest) -> HTTPRequest:
        # The package signs prepared requests of the library requests, in place. It adds
        # Date, Host, Content-Length, X-Content-SHA256 and Authorization. If the clock
        # is over five minutes off, Oracle answers 401.
        request = requests.Request(
            call.method, call.url, dict(call.headers), data=call.body
        )
        signed = signature(request.prepare())
        return HTTPRequest(call.method, call.url, dict(signed.headers), call.body)

    return sign


_SIGNERS: Mapping[str, Callable[[Mapping[str, Any]], Sign]] = {
    "aws": _aws_signer,
    "oci": _oci_signer,
}
