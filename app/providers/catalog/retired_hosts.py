"""Rows: services that were shut down, whose names work with a custom host."""

from collections.abc import Sequence

from ..declaration import Provider
from ..protocols import openai_completions
from .rows import completion_row, open_chat

# A custom host is called as the service was, by its documentation at that time.
RETIRED: Sequence[Provider] = (
    completion_row(
        "anyscale",
        "https://docs.anyscale.com/",
        "https://api.endpoints.anyscale.com/v1",
        openai_completions.endpoint(without=("seed", "suffix")),
        open_chat(),
        retired_because="Anyscale Endpoints, its public service, ended in August 2024",
    ),
    completion_row(
        "lepton",
        "https://docs.nvidia.com/dgx-cloud/lepton/",
        "https://api.lepton.ai",
        openai_completions.endpoint("/api/v1/completions", without=("best_of",)),
        open_chat("/api/v1/chat/completions"),
        prefix="/api/v1",
        retired_because="its public service ended when Lepton became a part of NVIDIA "
        "in 2025",
    ),
    completion_row(
        "lambda",
        "https://docs.lambda.ai/",
        "https://api.lambda.ai/v1",
        openai_completions.endpoint(without=("best_of", "suffix")),
        open_chat(),
        retired_because="Lambda has wound down its inference API",
    ),
    completion_row(
        "hyperbolic",
        "https://docs.hyperbolic.xyz/",
        "https://api.hyperbolic.xyz",
        openai_completions.endpoint("/v1/completions", without=("best_of", "suffix")),
        open_chat("/v1/chat/completions"),
        prefix="/v1",
        retired_because="its inference endpoints are decommissioned, as they answer "
        "themselves",
    ),
)
