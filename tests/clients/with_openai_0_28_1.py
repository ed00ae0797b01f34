"""openai 0.28.1, the last release before 1.0, which changed the interface.

The module is the client, answers are dicts, and `engine` names the model in the path.
"""

from functools import partial

import openai
from cases import KEYLESS, MAX_TOKENS, PROMPTS, base_url, report
from openai.error import OpenAIError

openai.api_base = base_url()
openai.api_key = "any-key"

create = openai.Completion.create

report(
    "openai",
    create,
    partial(create, headers=KEYLESS),
    OpenAIError,
    engine=create(
        engine="text-davinci-003",
        prompt=PROMPTS[0],
        max_tokens=MAX_TOKENS,
        temperature=0,
    ),
)
