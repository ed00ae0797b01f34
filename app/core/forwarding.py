"""Which request headers of a caller are forwarded to a provider.

A caller, or a config, names headers to forward. Some never are, since they belong to
one connection or would change the framing of the call. Others are credentials: beside a
virtual key, which is the operator's, they would join or replace its own.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from .credentials import holds_gateway_key

# Headers of one connection, or of the form of one message.
# Source: RFC 9110 section 7.6.1, RFC 9112, and what proxies add in their own name.
_NEVER = {
    "accept-encoding",
    "alt-svc",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

# A header whose name contains one of these authenticates.
_CREDENTIAL_WORDS = re.compile(
    "auth|bearer|cookie|credential|dpop|jwt|key|passw|secret|session|signature|token|"
    "wsse"
)

# Prefixes of vendors whose headers name accounts, projects and signatures.
_CREDENTIAL_PREFIXES = tuple(
    "x-amz- x-amzn-oidc- x-goog- x-ms- x-oci- opc- x-portkey- cf-access-".split()
)


def is_credential_header(name: str) -> bool:
    """Whether a header, in any spelling, may identify who is calling or who pays."""
    lower = name.strip().lower().replace("_", "-")
    return bool(_CREDENTIAL_WORDS.search(lower)) or lower.startswith(
        _CREDENTIAL_PREFIXES
    )


def forwarded_headers(
    names: Iterable[str],
    values: Mapping[str, str | None],
    reserved: Collection[str] | None = None,
) -> dict[str, str]:
    """Those of the headers *names* that may be forwarded, in lower case, with values.

    *values* maps names in lower case to what the caller sent. *reserved* is for a
    target with a virtual key: the headers, in lower case, that the provider's settings
    send; then no credential is forwarded either.
    """
    forwarded = {}
    for name in sorted({each.strip().lower() for each in names}):
        # WSGI cannot tell `_` from `-`: such a name could be any of two headers.
        if not name or "_" in name or name in _NEVER:
            continue
        if reserved is not None and (name in reserved or is_credential_header(name)):
            continue
        value = values.get(name)
        if value is not None and not holds_gateway_key(value):
            forwarded[name] = value
    return forwarded
