"""Azure: OpenAI's models by deployment, the models of Foundry, and GitHub's.

Sources: https://learn.microsoft.com/azure/ai-services/openai/reference,
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (the v1 form),
https://learn.microsoft.com/rest/api/aifoundry/modelinference/ (its client was
retired on 26 August 2026, in favour of the v1 form),
https://docs.github.com/rest/models/inference
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from ..core.routing import CompletionMode, Target
from .catalog.rows import one_text
from .declaration import ParamMapping, Provider, Setting, as_list
from .parsing import error_bodies
from .protocols import openai_chat, openai_completions
from .upstream_request import HTTPRequest, UpstreamRequest, bearer, quote_path_segment

# The `api-version` where a target names none.
_API_VERSION = "2024-10-21"
_FOUNDRY_VERSION = "2024-05-01-preview"


def azure_auth(target: Target) -> dict[str, str]:
    """A token of Entra ID, or the resource's key."""
    # `azure_ad_token` is the caller's own token; `access_token` the one that
    # upstream/auth/access_tokens.py has fetched.
    options = target.options
    token = options.get("azure_ad_token") or options.get("access_token")
    if token:
        return {"Authorization": f"Bearer {token}"}
    return {"api-key": target.api_key} if target.api_key else {}


def foundry_auth(target: Target) -> dict[str, str]:
    """The same, and a key as a bearer token, too: some endpoints of Foundry take that.

    Azure's own client does it: https://github.com/Azure/azure-sdk-for-python/
    tree/main/sdk/ai/azure-ai-inference
    """
    auth = azure_auth(target)
    return bearer(target) | auth if "api-key" in auth else auth


def _deployment_call(
    path: str, request: Callable[[UpstreamRequest], dict[str, Any]]
) -> Callable[[UpstreamRequest], HTTPRequest]:
    """A `call` that posts *request* to OpenAI's *path* of a deployment.

    The v1 form of the API has no dated versions, and names the deployment as the model.
    """

    def call(upstream: UpstreamRequest) -> HTTPRequest:
        options, model = upstream.target.options, upstream.request.model
        # A deployment has a name of its own, which need not be that of its model.
        version = str(options.get("azure_api_version") or _API_VERSION)
        deployment = str(options.get("azure_deployment_id") or model)
        if version == "v1":
            return upstream.post(
                f"/v1{path}", request(upstream) | {"model": deployment}
            )
        # `/openai/deployments/NAME/completions?api-version=DATE`
        segment = quote_path_segment(deployment)
        query = urlencode({"api-version": version})
        url = f"/deployments/{segment}{path}?{query}"
        return upstream.post(url, request(upstream) | {"model": model})

    return call


_ENTRA = (
    Setting("azure_entra_authority", token_url=lambda host: f"https://{host}"),
    Setting("azure_ad_token", secret=True),
    Setting("azure_entra_tenant_id"),
    Setting("azure_entra_client_id"),
    Setting("azure_entra_client_secret", secret=True),
    Setting("azure_entra_scope"),
)
# What can be used in place of the resource's key: a token that the caller has, or an
# application registered in Entra, for which the gateway fetches tokens.
_KEYS = (
    ("azure_ad_token",),
    ("azure_entra_tenant_id", "azure_entra_client_id", "azure_entra_client_secret"),
)

AZURE_OPENAI = Provider(
    name="azure-openai",
    docs="https://learn.microsoft.com/azure/ai-services/openai/reference",
    base_url="https://{azure_resource_name}.openai.azure.com/openai",
    modes={
        CompletionMode.NATIVE: replace(
            openai_completions.endpoint(),
            call=_deployment_call("/completions", openai_completions.request),
        ),
        CompletionMode.CHAT: replace(
            openai_chat.endpoint(),
            call=_deployment_call("/chat/completions", openai_chat.request),
        ),
    },
    auth=azure_auth,
    token_source="entra",
    credential_settings=_KEYS,
    settings=(
        Setting("azure_resource_name", alias="resource_name"),
        Setting("azure_deployment_id", alias="deployment_id"),
        Setting("azure_api_version", alias="api_version"),
        *_ENTRA,
    ),
    model_settings=("azure_deployment_id",),
    error=error_bodies.error,
)


def _foundry_call(
    path: str, request: Callable[[UpstreamRequest], dict[str, Any]]
) -> Callable[[UpstreamRequest], HTTPRequest]:
    """A `call` that posts *request* to *path* with a version of Foundry's API."""

    def call(upstream: UpstreamRequest) -> HTTPRequest:
        # The newer form of the address, `.../openai/v1`, has no dated versions.
        dated = not upstream.url("").rstrip("/").endswith("/v1")
        default = _FOUNDRY_VERSION if dated else "v1"
        version = upstream.target.options.get("azure_api_version") or default
        query = urlencode({"api-version": version})
        body = request(upstream) | {"model": upstream.request.model}
        # Without it Foundry answers an error for each parameter that it does not know.
        return upstream.post(f"{path}?{query}", body, {"extra-parameters": "drop"})

    return call


_FOUNDRY_LACKS = ("best_of", "echo", "logit_bias", "logprobs", "n", "seed", "suffix")

AZURE_AI = Provider(
    name="azure-ai",
    docs="https://learn.microsoft.com/rest/api/aifoundry/modelinference/",
    modes={
        CompletionMode.CHAT: replace(
            openai_chat.endpoint(
                without=("n", "logprobs", "logit_bias", "user"),
                stop=ParamMapping("stop", convert=as_list),
            ),
            call=_foundry_call("/chat/completions", openai_chat.request),
        ),
        CompletionMode.NATIVE: replace(
            one_text(
                without=_FOUNDRY_LACKS,
                stop=ParamMapping("stop", convert=as_list),
            ),
            call=_foundry_call("/completions", openai_completions.request),
        ),
    },
    auth=foundry_auth,
    token_source="entra",
    credential_settings=_KEYS,
    settings=(
        Setting("azure_foundry_url", is_base_url=True),
        Setting("azure_api_version", alias="api_version"),
        Setting("azure_extra_params", upstream_header="extra-parameters"),
        *_ENTRA,
    ),
    error=error_bodies.error,
)

GITHUB = Provider(
    name="github",
    docs="https://docs.github.com/rest/models/inference",
    base_url="https://models.github.ai/inference",
    modes={
        CompletionMode.CHAT: openai_chat.endpoint(
            without=("n", "logprobs", "logit_bias", "user"),
            temperature=ParamMapping("temperature", high=1),
            stop=ParamMapping("stop", convert=as_list),
        )
    },
    retired_because="GitHub Models was retired on 30 July 2026",
    error=error_bodies.error,
)
