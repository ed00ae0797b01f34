"""The providers by name. docs/adding-a-provider.md says what a new one needs."""

from collections.abc import Mapping

from .anthropic import ANTHROPIC
from .azure import AZURE_AI, AZURE_OPENAI, GITHUB
from .bedrock import BEDROCK
from .catalog.chat_hosts import CHAT_HOSTS
from .catalog.completion_hosts import HOSTED
from .catalog.fim_hosts import CODESTRAL, DEEPSEEK, INCEPTION, MISTRAL
from .catalog.retired_hosts import RETIRED
from .catalog.self_hosted import SELF_HOSTED
from .catalog.unsupported import UNSUPPORTED
from .cohere import COHERE
from .declaration import Provider
from .gemini import GOOGLE
from .llama_cpp import LLAMA_CPP, LOCAL
from .ollama import OLLAMA
from .triton import TRITON
from .upstream_request import HTTPRequest
from .vertex import VERTEX
from .workers_ai import WORKERS_AI

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        LOCAL,
        *HOSTED,
        AZURE_OPENAI,
        AZURE_AI,
        GITHUB,
        ANTHROPIC,
        GOOGLE,
        VERTEX,
        BEDROCK,
        COHERE,
        WORKERS_AI,
        MISTRAL,
        CODESTRAL,
        DEEPSEEK,
        INCEPTION,
        *CHAT_HOSTS,
        *SELF_HOSTED,
        LLAMA_CPP,
        OLLAMA,
        TRITON,
        *RETIRED,
        *UNSUPPORTED,
    )
}

__all__ = ["PROVIDERS", "HTTPRequest", "Provider"]
