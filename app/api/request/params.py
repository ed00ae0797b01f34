"""From the parameters in a body to a CompletionRequest."""

import secrets
import time
from typing import Any

from ...core.request import CompletionRequest
from . import schemas

Params = dict[str, Any]


def completion_request(
    body: Params, default_max_tokens: int | None
) -> CompletionRequest:
    """The request in *body*, validated. Raises InvalidRequest.

    *default_max_tokens* is set here because upstreams differ in it from OpenAI's
    documentation; the other defaults of the endpoint are theirs as well.
    """
    params = schemas.load(body)
    defaults = {}
    if "max_tokens" not in params and default_max_tokens is not None:
        defaults = {"max_tokens": default_max_tokens}
    return CompletionRequest(
        model=params.pop("model"),
        prompt=params.pop("prompt"),
        params=params | defaults,
        id=f"cmpl-{secrets.token_hex(16)}",
        created=int(time.time()),
        defaults=defaults,
    )
