"""Providers of Portkey's list that have no text completions, with the reason."""

from collections.abc import Mapping, Sequence

from ..declaration import Provider
from ..parsing import error_bodies

# Part of the error that a request to them gets: reason -> names.
_REASONS: Mapping[str, str] = {
    "it makes images": "recraft-ai segmind stability-ai",
    "it makes three-dimensional models": "meshy tripo3d",
    "it makes vectors of texts": "jina nomic voyage",
    "it searches vectors": "milvus qdrant",
    "it runs predictions to be fetched later, with inputs that differ by model": (
        "replicate"
    ),
    "an endpoint there speaks whatever its container speaks; if that is OpenAI's "
    "language, ask it as provider openai at a custom host": "sagemaker",
    "Google has switched the PaLM API off; provider google has its successors": "palm",
    "it is the name of another gateway": "portkey",
}

# Declarations without a mode, so that their names are known in configs.
UNSUPPORTED: Sequence[Provider] = tuple(
    Provider(name=name, unsupported_because=reason, error=error_bodies.error)
    for reason, names in _REASONS.items()
    for name in names.split()
)
