"""portkey-ai, which names the provider in a header, and shows the headers it got.

Its api_key is a key of Portkey's. Without one of the provider's, the library
itself sends a made-up one.
"""

from cases import MAX_TOKENS, MODEL, PROMPTS, base_url, completions, report
from portkey_ai import Portkey, openai

client = Portkey(base_url=base_url(), api_key="portkey-key", provider="local")
keyless = Portkey(base_url=base_url(), provider="openai")


def headers(trace_id: str) -> dict[str, str]:
    """The x-portkey- headers of an answer, as the library names them."""
    traced = client.with_options(trace_id=trace_id)
    answer = traced.completions.create(
        model=MODEL, prompt=PROMPTS[0], max_tokens=MAX_TOKENS
    )
    return answer.get_headers()


report(
    "portkey-ai",
    completions(client),
    completions(keyless),
    openai.APIStatusError,
    headers=headers("trace-of-a-caller"),
)
