"""Chooses the completion mode of a target: native, fill-in-the-middle, or chat."""

import re
from collections.abc import Sequence

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
    """The mode that the target sets, else the model's best, else the provider's.

    Raises UnsupportedProvider if there is none.
    """
    if provider.retired_because and target.base_url is None:
        raise UnsupportedProvider(
            f"Provider {provider.name}: {provider.retired_because}."
        )
    available: tuple[CompletionMode, ...] = tuple(provider.modes)
    preferred: tuple[CompletionMode, ...] = ()
    if provider.is_own(target):
        # A custom host may serve any model under a well-known name, and in all modes
        # of the provider's software: only for its own address more is known.
        available = tuple(provider.own_host_modes) or available
        preferred = model.modes or ()
    if target.via is not None:
        if target.via not in available:
            raise UnsupportedProvider(_why_not_via(provider, target.via, available))
        return target.via
    modes = [mode for mode in preferred if mode in available] or list(available)
    if request.suffix:
        for mode in (CompletionMode.FIM, *modes, *available):
            if mode in available and _takes_suffix(provider, mode):
                return mode
    return modes[0]


def _why_not_via(
    provider: Provider, via: CompletionMode, available: Sequence[CompletionMode]
) -> str:
    reason = f"Provider {provider.name} cannot be asked via {via}"
    if via in provider.modes:
        reason += " at its own address"
    return f"{reason}, but via {', '.join(available)}."


def _takes_suffix(provider: Provider, mode: CompletionMode) -> bool:
    endpoints = provider.endpoints(mode).values()
    return any("suffix" in endpoint.params for endpoint in endpoints)


# How servers say on the completions endpoint that a model only chats.
# Sources: OpenAI ("This is a chat model and not supported in the v1/completions
# endpoint"), Azure ("The completion operation does not work with the specified model"),
# Perplexity ("should only be queried with the /chat/completions endpoint").
CHAT_ONLY = re.compile(
    r"chat model|/chat/completions|completions? operation does not work", re.I
)


def is_chat_only_error(message: str) -> bool:
    """Whether the *message* of an error says that the model only chats."""
    return bool(CHAT_ONLY.search(message))


def may_chat_instead(
    provider: Provider, target: Target, request: CompletionRequest, mode: CompletionMode
) -> bool:
    """Whether a request whose *mode* was chosen freely can be a chat in its place."""
    mode_is_free = target.via is None and mode == CompletionMode.NATIVE
    return mode_is_free and CompletionMode.CHAT in provider.modes and not request.suffix
