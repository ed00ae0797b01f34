"""Lists of models: the request for one, and the answer in OpenAI's shape.

Source: ListModelsResponse in https://github.com/openai/openai-openapi
"""

from collections.abc import Callable, Iterable

import orjson

from ..core.routing import Target
from ..errors import UpstreamProtocol
from .declaration import Provider
from .parsing.excerpts import excerpt
from .parsing.json_answers import read_object
from .upstream_request import HTTPRequest, merge_headers


def models_request(path: str) -> Callable[[Provider, Target], HTTPRequest]:
    """`GET /models`, as on every OpenAI-compatible provider."""

    def models(provider: Provider, target: Target) -> HTTPRequest:
        headers = merge_headers(provider.auth(target), target.headers)
        return HTTPRequest("GET", provider.url(target, path), headers)

    return models


def model_list(body: bytes) -> bytes:
    """A list of models, as it came. Raises UpstreamProtocol if it is none."""
    if not isinstance(read_object(body).get("data"), list):
        raise UpstreamProtocol(f"the answer is no list of models: {excerpt(body)}")
    return body


def openai_model_list(names: Iterable[str], owner: str) -> bytes:
    """A list of models in OpenAI's shape."""
    # OpenAI's schema requires all of them.
    fixed = {"object": "model", "created": 0, "owned_by": owner}
    return orjson.dumps(
        {"object": "list", "data": [{"id": name, **fixed} for name in names]}
    )
