"""Rows: services that were shut down, whose names work with a custom host.

When each ended, and who says so, is in tools/facts.csv. GitHub's row is in ../azure.py.
"""

from collections.abc import Sequence

from ..declaration import ParamMapping, Provider, as_list
from ..protocols import openai_chat, openai_completions
from .chat_hosts import row
from .rows import OPEN_MODELS_LACK, completion_row, open_chat

# A custom host is called as the service was, by its documentation at that time.
RETIRED: Sequence[Provider] = (
    row(
        "ai21",
        # The models for text completion, j2 and older, had been shut down before.
        "https://docs.ai21.com/reference/jamba-1-6-api-ref",
        "https://api.ai21.com/studio/v1",
        openai_chat.endpoint(
            without=(
                "frequency_penalty",
                "logit_bias",
                "logprobs",
                # Up to 16 choices, but neither in a stream nor at temperature 0.
                "n",
                "presence_penalty",
                "seed",
                "stream_options",
                "user",
            ),
            stop=ParamMapping("stop", convert=as_list),
        ),
        retired_because="AI21 has shut down its Jamba API on 9 August 2026",
    ),
    completion_row(
        "anyscale",
        "https://docs.anyscale.com/",
        "https://api.endpoints.anyscale.com/v1",
        openai_completions.endpoint(without=("seed", "suffix")),
        open_chat(),
        retired_because="Anyscale Endpoints, its public service, ended in August 2024",
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
    row(
        "kluster-ai",
        "https://docs.kluster.ai/get-started/openai-compatibility",
        "https://api.kluster.ai/v1",
        openai_chat.endpoint(
            without=("n", "stream_options"),
            max_tokens=ParamMapping("max_completion_tokens"),
        ),
        retired_because="kluster.ai was sold to MITO AI, and its hosts are gone since "
        "October 2026",
    ),
    completion_row(
        "lambda",
        "https://docs.lambda.ai/",
        "https://api.lambda.ai/v1",
        openai_completions.endpoint(without=("best_of", "suffix")),
        open_chat(),
        retired_because="Lambda has ended its inference API on 25 September 2025",
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
    row(
        "monsterapi",
        "https://developer.monsterapi.ai/",
        "https://llm.monsterapi.ai/v1",
        retired_because="the domain monsterapi.ai is gone since June 2026",
    ),
    row(
        "perplexity-ai",
        "https://docs.perplexity.ai/docs/agent-api/migrate-from-sonar/overview",
        "https://api.perplexity.ai",
        # It has no stop sequences; the gateway applies them.
        openai_chat.endpoint(
            without=(*OPEN_MODELS_LACK, "seed", "stop", "stream_options", "user")
        ),
        retired_because="Perplexity has ended its chat completions (Sonar) on 27 "
        "September 2026; its Agent API, which replaces them, is not supported",
    ),
)
