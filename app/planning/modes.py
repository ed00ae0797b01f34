"""By which way a target is asked: the native one, filling in, or a chat."""

import re

from ..core.request import CompletionRequest
from ..core.routing import CompletionMode, Target
from ..errors import UnsupportedProvider
from ..providers.declaration import Provider
from .capabilities import ModelCapabilities


def choose_mode(
    provider: Provider,
    target: Target,
    request: CompletionRequest,
    model: ModelCapabilities,
) -> CompletionMode:
    """The way that the target asks for, else the model's, else the provider's."""
    if provider.retired and target.base_url is None:
        raise UnsupportedProvider(f"Provider {provider.name}: {provider.retired}.")
    if target.via is not None:
        return _asked_for(provider, target.via)
    own_address = target.base_url is None
    # On a custom host a well-known name may stand for any model.
    known = (model.modes if own_address else None) or ()
    able = (provider.own_modes if own_address else ()) or tuple(provider.modes)
    ways = [each for each in known if each in able] or able
    if not request.suffix:
        return ways[0]
    filling = (
        each for each in (CompletionMode.FIM, *ways, *able) if _fills(provider, each)
    )
    return next(filling, ways[0])


def _asked_for(provider: Provider, mode: CompletionMode) -> CompletionMode:
    if mode in provider.modes:
        return mode
    raise UnsupportedProvider(
        f"Provider {provider.name} cannot be asked via {mode}, but via "
        f"{', '.join(provider.modes)}."
    )


def _fills(provider: Provider, mode: CompletionMode) -> bool:
    endpoints = provider.endpoints(mode).values() if mode in provider.modes else ()
    return any("suffix" in endpoint.params for endpoint in endpoints)


# How servers say on the completions endpoint that a model only chats.
# Sources: OpenAI ("This is a chat model and not supported in the v1/completions
# endpoint"), Azure ("The completion operation does not work with the specified model"),
# Perplexity ("should only be queried with the /chat/completions endpoint").
_CHAT_MODEL = re.compile(
    r"chat model|/chat/completions|completions? operation does not work", re.I
)


def is_chat_only_error(message: str) -> bool:
    """Whether the *message* of an error says that the model only chats."""
    return bool(_CHAT_MODEL.search(message))
