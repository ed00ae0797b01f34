"""Vertex AI: Google's own models, and those of other publishers, each with its own API.

The model's name contains the publisher: `gemini-...`, `anthropic.claude-...`,
`mistralai.mistral-...`, `meta.llama-...`, or `endpoints.ID` for one of your own. Other
open models have the names that Vertex uses: `deepseek-ai/deepseek-...`.

Sources, below https://docs.cloud.google.com/vertex-ai/generative-ai/docs/:
model-reference/inference, learn/locations, partner-models/claude/use-claude,
partner-models/mistral, partner-models/llama, maas/call-open-model-apis
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .. import safe_json
from ..core.routing import CompletionMode, Target
from . import anthropic, gemini
from .declaration import Endpoint, ModelFamilies, ParamMapping, Provider, Setting
from .parsing import error_bodies
from .protocols import openai_chat
from .upstream_request import (
    HTTPRequest,
    UpstreamRequest,
    host_label,
    quote_path_segment,
)

# In the body, where Anthropic's own API has a header. The official client sends it so.
# Source: https://github.com/anthropics/anthropic-sdk-python/blob/main/src/anthropic/
# lib/vertex/_client.py
_ANTHROPIC_VERSION = "vertex-2023-10-16"


def vertex_auth(target: Target) -> dict[str, str]:
    """A token of the service account, or the caller's own."""
    token = target.options.get("access_token") or target.api_key
    return {"Authorization": f"Bearer {token}"} if token else {}


def _post(
    upstream: UpstreamRequest, path: str, body: object, version: str = "v1"
) -> HTTPRequest:
    """The request to a *path* within the project and its region."""
    # The region is in the host and in the path:
    # https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/REGION/...
    # A custom host replaces only the former.
    options, target = upstream.target.options, upstream.target
    region = host_label(options.get("vertex_region"), "vertex_region")
    project = host_label(options.get("vertex_project_id"), "vertex_project_id")
    if not target.base_url:
        if region in ("us", "eu"):
            # Multi-regions, in which the data stays: learn/locations.
            host = f"aiplatform.{region}.rep.googleapis.com"
        elif region == "global":
            host = "aiplatform.googleapis.com"
        else:
            host = f"{region}-aiplatform.googleapis.com"
        target = replace(target, base_url=f"https://{host}")
    prefix = f"/{version}/projects/{project}/locations/{region}"
    return replace(upstream, target=target).post(f"{prefix}/{path}", body)


def _split(model: str) -> tuple[str, str]:
    """The publisher of a model, which is a key of _PUBLISHERS, and its name there."""
    # `meta.llama-...`, as Portkey has it, and Vertex' `meta/llama-...` are the same.
    publisher, _, name = model.replace("/", ".", 1).partition(".")
    if publisher in _PUBLISHERS:
        return publisher, name
    if model.startswith("claude"):
        return "anthropic", model
    # Names of Google's own models have dots, but no slashes: `gemini-2.5-flash`.
    return ("others" if "/" in model else "google"), model


def _model_segment(upstream: UpstreamRequest) -> str:
    """The model's name without the publisher, as a segment of a path."""
    return quote_path_segment(_split(upstream.request.model)[1])


def _predict_path(upstream: UpstreamRequest, publisher: str) -> str:
    """The path at which a publisher's own API is served."""
    verb = "streamRawPredict" if upstream.request.stream else "rawPredict"
    return f"publishers/{publisher}/models/{_model_segment(upstream)}:{verb}"


def call_google(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of generateContent."""
    path = (
        f"publishers/google/models/{_model_segment(upstream)}:{gemini.method(upstream)}"
    )
    return _post(upstream, path, gemini.request(upstream))


def call_anthropic(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of Anthropic's Messages, without the model, which is in the path.

    `"stream": true` stays in the body besides the verb.
    """
    body = anthropic.request(upstream) | {"anthropic_version": _ANTHROPIC_VERSION}
    return _post(upstream, _predict_path(upstream, "anthropic"), body)


def call_mistral(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of Mistral's chat, with the model in the body as well."""
    body = openai_chat.request(upstream) | {"model": _split(upstream.request.model)[1]}
    return _post(upstream, _predict_path(upstream, "mistralai"), body)


def call_open_model(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of OpenAI's chat, for all open models at one path.

    Its models are `PUBLISHER/NAME`; the body is the only place that names them.
    """
    publisher, name = _split(upstream.request.model)
    model = name if publisher == "others" else f"{publisher}/{name}"
    body = openai_chat.request(upstream) | {"model": model}
    return _post(upstream, "endpoints/openapi/chat/completions", body, "v1beta1")


def call_own_endpoint(upstream: UpstreamRequest) -> HTTPRequest:
    """The request of OpenAI's chat, for a model that the project has deployed.

    The endpoint's id selects the model, and the body has none.
    """
    path = f"endpoints/{_model_segment(upstream)}/chat/completions"
    return _post(upstream, path, openai_chat.request(upstream), "v1beta1")


def _chat(
    call: Callable[[UpstreamRequest], HTTPRequest], *without: str, **others: Any
) -> Endpoint:
    lacks = ("n", "logprobs", *without)
    return replace(openai_chat.endpoint(without=lacks, **others), call=call)


def token_uri(account: Any) -> str | None:
    """The token endpoint of a service account, which is an object or its JSON."""
    # Whoever sets the account says where its signed assertion goes, so that this URL is
    # checked as a custom host is.
    try:
        document = safe_json.load(account) if isinstance(account, str) else account
    except ValueError:
        return None
    uri = document.get("token_uri") if isinstance(document, dict) else None
    return None if uri is None else str(uri)


_PUBLISHERS = {
    "google": replace(gemini.ENDPOINT, call=call_google),
    "anthropic": replace(anthropic.ENDPOINT, call=call_anthropic),
    # As on Mistral's own API: the usage always comes.
    "mistralai": _chat(
        call_mistral,
        "logit_bias",
        "user",
        "stream_options",
        seed=ParamMapping("random_seed", low=0),
        temperature=ParamMapping("temperature", high=1.5),
    ),
    "meta": _chat(call_open_model, "logit_bias", "user"),
    "others": _chat(call_open_model, "logit_bias", "user"),
    "endpoints": _chat(call_own_endpoint),
}


VERTEX = Provider(
    name="vertex-ai",
    docs="https://docs.cloud.google.com/vertex-ai/generative-ai/docs/"
    "model-reference/inference",
    api_path="/v1",
    modes={
        CompletionMode.CHAT: ModelFamilies(_PUBLISHERS, lambda model: _split(model)[0])
    },
    auth=vertex_auth,
    token_source="google",
    credential_settings=(("vertex_service_account_json",),),
    settings=(
        Setting("vertex_project_id"),
        Setting("vertex_region", default="us-central1"),
        # The whole key file of a service account.
        Setting(
            "vertex_service_account_json",
            token_url=token_uri,
            is_object=True,
            secret=True,
        ),
        Setting(
            "anthropic_beta",
            alternative_header="anthropic-beta",
            upstream_header="anthropic-beta",
        ),
    ),
    error=error_bodies.error,
)
