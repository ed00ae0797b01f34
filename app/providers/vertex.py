"""Vertex AI: Google's own models, and those of other publishers, each in its language.

The model's name says whose it is: `gemini-...`, `anthropic.claude-...`,
`mistralai.mistral-...`, `meta.llama-...`, or `endpoints.ID` for one of your own. Open
models of others are named as Vertex does: `deepseek-ai/deepseek-...`.

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
from .declaration import (
    Endpoint,
    HTTPRequest,
    ModelFamilies,
    ParamMapping,
    Provider,
    Setting,
    UpstreamRequest,
)
from .protocols import openai_chat
from .request_parts import host_label, quote_path_segment

_ANTHROPIC_VERSION = "vertex-2023-10-16"


def _auth(target: Target) -> dict[str, str]:
    """A service account's token, or one that the caller got."""
    token = target.options.get("access_token") or target.api_key
    return {"Authorization": f"Bearer {token}"} if token else {}


def _post(
    ask: UpstreamRequest, place: str, body: object, version: str = "v1"
) -> HTTPRequest:
    """*body* to a *place* within the project and its region."""
    region = host_label(ask.target.options.get("vertex_region"), "vertex_region")
    project = host_label(
        ask.target.options.get("vertex_project_id"), "vertex_project_id"
    )
    address = ask.target.base_url or f"https://{_host(region)}"
    target = replace(ask.target, base_url=address)
    path = f"/{version}/projects/{project}/locations/{region}/{place}"
    return replace(ask, target=target).post(path, body)


def _host(region: str) -> str:
    """Where a region is served; `us` and `eu` stand for several."""
    if region in ("us", "eu"):
        return f"aiplatform.{region}.rep.googleapis.com"
    host = "aiplatform.googleapis.com"
    return host if region == "global" else f"{region}-{host}"


def _split(model: str) -> tuple[str, str]:
    """Who publishes a model, and its name there."""
    publisher, _, name = model.replace("/", ".", 1).partition(".")
    if publisher in _PUBLISHERS:
        return publisher, name
    if model.startswith("claude"):
        return "anthropic", model
    return ("others" if "/" in model else "google"), model


def _bare(ask: UpstreamRequest) -> str:
    """The model's name without its publisher's, as it stands in a path."""
    return quote_path_segment(_split(ask.request.model)[1])


def _google(ask: UpstreamRequest) -> HTTPRequest:
    place = f"publishers/google/models/{_bare(ask)}:{gemini.method(ask)}"
    return _post(ask, place, gemini.request(ask))


def _anthropic(ask: UpstreamRequest) -> HTTPRequest:
    verb = "streamRawPredict" if ask.request.stream else "rawPredict"
    body = anthropic.request(ask) | {"anthropic_version": _ANTHROPIC_VERSION}
    return _post(ask, f"publishers/anthropic/models/{_bare(ask)}:{verb}", body)


def _mistral(ask: UpstreamRequest) -> HTTPRequest:
    verb = "streamRawPredict" if ask.request.stream else "rawPredict"
    body = openai_chat.request(ask) | {"model": _split(ask.request.model)[1]}
    return _post(ask, f"publishers/mistralai/models/{_bare(ask)}:{verb}", body)


def _open(ask: UpstreamRequest) -> HTTPRequest:
    publisher, name = _split(ask.request.model)
    whole = name if publisher == "others" else f"{publisher}/{name}"
    body = openai_chat.request(ask) | {"model": whole}
    return _post(ask, "endpoints/openapi/chat/completions", body, "v1beta1")


def _own(ask: UpstreamRequest) -> HTTPRequest:
    place = f"endpoints/{_bare(ask)}/chat/completions"
    return _post(ask, place, openai_chat.request(ask), "v1beta1")


def _chat(
    call: Callable[[UpstreamRequest], HTTPRequest], *without: str, **others: Any
) -> Endpoint:
    lacks = ("n", "logprobs", *without)
    return replace(openai_chat.endpoint(without=lacks, **others), call=call)


def _token_uri(account: Any) -> str | None:
    """Where a service account, as an object or as JSON, has its tokens from."""
    try:
        document = safe_json.load(account) if isinstance(account, str) else account
    except ValueError:
        return None
    uri = document.get("token_uri") if isinstance(document, dict) else None
    return None if uri is None else str(uri)


_PUBLISHERS = {
    "google": replace(gemini.ENDPOINT, call=_google),
    "anthropic": replace(anthropic.ENDPOINT, call=_anthropic),
    # As on Mistral's own: the usage comes without being asked for.
    "mistralai": _chat(
        _mistral,
        "logit_bias",
        "user",
        "stream_options",
        seed=ParamMapping("random_seed", low=0),
        temperature=ParamMapping("temperature", high=1.5),
    ),
    "meta": _chat(_open, "logit_bias", "user"),
    "others": _chat(_open, "logit_bias", "user"),
    "endpoints": _chat(_own),
}


VERTEX = Provider(
    name="vertex-ai",
    docs="https://docs.cloud.google.com/vertex-ai/generative-ai/docs/"
    "model-reference/inference",
    modes={
        CompletionMode.CHAT: ModelFamilies(_PUBLISHERS, lambda model: _split(model)[0])
    },
    auth=_auth,
    token="google",
    keys=(("vertex_service_account_json",),),
    settings=(
        Setting("vertex_project_id"),
        Setting("vertex_region", default="us-central1"),
        Setting(
            "vertex_service_account_json",
            token_url=_token_uri,
            is_object=True,
            secret=True,
        ),
        Setting("anthropic_beta", also="anthropic-beta", sends="anthropic-beta"),
    ),
    error=gemini.error,
)
