"""The providers by name. A new one is a row here; docs say what a row needs."""

from collections.abc import Mapping

from .llama_cpp import LOCAL
from .native import OPENAI
from .spec import Call, Provider

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider for provider in (OPENAI, LOCAL)
}

__all__ = ["PROVIDERS", "Call", "Provider"]
