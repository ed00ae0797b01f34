"""Random headers that a caller wants forwarded, and which of them may arrive.

Headers that must not arrive are listed by name, from the documentation of services
and proxies, independently of the gateway's own rule.
"""

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .world import OWN_KEY, World

# Headers that authenticate somewhere, or that name the account that pays.
CREDENTIALS = frozenset(
    "authorization proxy-authorization cookie cookie2 api-key apikey x-api-key "
    "x-apikey x-api-token x-goog-api-key x-goog-user-project "
    "x-goog-iam-authority-selector x-amz-security-token x-amz-date "
    "x-amz-content-sha256 x-auth-token x-auth-key x-auth-email x-access-token "
    "x-csrf-token x-xsrf-token x-session-token x-session-id x-functions-key "
    "ocp-apim-subscription-key x-ms-client-principal x-rapidapi-key x-vault-token "
    "private-token job-token x-gitlab-token x-shopify-access-token x-figma-token "
    "x-aws-ec2-metadata-token openai-api-key x-openai-api-key anthropic-api-key "
    "hf-token cf-access-client-id cf-access-client-secret cf-access-token "
    "client-secret x-client-secret x-secret-key signature signature-input "
    "x-hub-signature dpop x-jwt-assertion x-id-token x-forwarded-access-token "
    "x-amzn-oidc-data x-amzn-oidc-accesstoken x-goog-iap-jwt-assertion "
    "x-pomerium-jwt-assertion x-wsse x-authentication x-authorization "
    "authentication openai-organization openai-project openai-beta "
    "anthropic-version anthropic-beta opc-compartment-id extra-parameters "
    "x-portkey-api-key x-portkey-virtual-key x-portkey-config".split()
)
CONNECTION = frozenset(
    "connection keep-alive proxy-connection te trailer transfer-encoding upgrade "
    "expect host content-length content-type content-encoding accept-encoding "
    "proxy-authenticate http2-settings".split()
)
PLAIN = ("x-tenant", "x-request-tag", "user-agent", "referer", "x-trace", "baggage")


def _spelled(rng: random.Random, name: str) -> str:
    """A name in one of the spellings that some servers treat as equal."""
    kinds = (str.lower, str.upper, str.title, lambda n: n.replace("-", "_"))
    return str(rng.choice(kinds)(name))


def _value(rng: random.Random, key: str) -> str:
    encoded = base64.b64encode(f"{'u' * rng.randint(0, 3)}:{key}".encode()).decode()
    forms = (
        "plain",
        OWN_KEY,
        key,
        f"Bearer {key}",
        f"x;y={key}",
        f"Basic {encoded}",
        quote(f"k={key}", safe="").replace("-", "%2d"),
        encoded.replace("+", "-").replace("/", "_").rstrip("="),
        "z" * rng.randint(0, 40) + key + "z" * rng.randint(0, 40),
    )
    return rng.choice(forms)


def _violations(world: World, key: str, sealed: bool) -> Iterator[str]:
    for call in world.reached:
        for name, value in call.request.headers.items():
            if name in CONNECTION and "SENT" in value:
                yield f"{name} of the caller's connection"
            if sealed and name in CREDENTIALS and "SENT" in value:
                yield f"{name} beside a virtual key"
            if key in value or quote(key).replace("-", "%2d") in value:
                yield f"a gateway key in {name}"
            for word in value.replace("SENT", " ").split():
                padded = word + "=" * (-len(word) % 4)
                try:
                    plain = base64.urlsafe_b64decode(padded.replace("+", "-"))
                except ValueError:
                    continue
                if key.encode() in plain:
                    yield f"a gateway key in base64 in {name}"


# Headers that werkzeug's test client or WSGI treat specially.
_NOT_SENT = {"host", "content-length", "content-type", "transfer-encoding", "expect"}


def run(folder: Path, seed: int, requests: int) -> tuple[int, int]:
    """Send so many requests; return how many were answered and headers forwarded."""
    rng = random.Random(seed)
    world = World(folder, rng)
    key, answered, travelled = world.key_for_all(), 0, 0
    names = [*CREDENTIALS, *CONNECTION, *PLAIN * 4]
    try:
        client = world.app.test_client(use_cookies=False)
        for number in range(requests):
            chosen = rng.sample(names, rng.randint(1, 8))
            headers = {
                name: f"{_value(rng, key)} SENT"
                for name in chosen
                if name not in _NOT_SENT and not name.startswith("x-portkey-")
            }
            listed = ", ".join(_spelled(rng, name) for name in chosen)
            headers["x-portkey-forward-headers"] = listed
            headers |= {"authorization": f"Bearer {key}"}
            sealed = rng.random() < 0.7
            headers |= (
                {"x-portkey-virtual-key": rng.choice(sorted(world.virtual_keys))}
                if sealed
                else {
                    "x-portkey-provider": "vllm",
                    "x-portkey-custom-host": world.upstream.url,
                }
            )
            body: dict[str, Any] = {"model": "m", "prompt": str(number)}
            world.reached.clear()
            with client.post("/v1/completions", json=body, headers=headers) as response:
                violations = list(_violations(world, key, sealed))
                assert not violations, (violations, seed, number, headers)
                assert response.status_code < 500, (response.json, headers)
                answered += response.status_code == 200
            for call in world.reached:
                travelled += sum("SENT" in v for v in call.request.headers.values())
    finally:
        world.close()
    return answered, travelled
