"""The providers by name. docs/adding-a-provider.md says what a new one needs."""

from collections.abc import Mapping

from .anthropic import ANTHROPIC
from .azure import AZURE_AI, AZURE_OPENAI, GITHUB
from .bedrock import BEDROCK
from .chat_hosts import CHAT_HOSTS
from .cohere import COHERE
from .fim import CODESTRAL, DEEPSEEK, INCEPTION, MISTRAL
from .gemini import GOOGLE
from .llama_cpp import LLAMA_CPP, LOCAL
from .native import ENGINES, HOSTED, RETIRED
from .ollama import OLLAMA
from .spec import Call, Provider
from .textless import TEXTLESS
from .triton import TRITON
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
        *ENGINES,
        LLAMA_CPP,
        OLLAMA,
        TRITON,
        *RETIRED,
        *TEXTLESS,
    )
}

__all__ = ["PROVIDERS", "Call", "Provider"]
