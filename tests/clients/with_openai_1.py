"""openai 1.0 and every major release since: the interface has stayed the same."""

from cases import KEYLESS, base_url, completions, report
from openai import APIStatusError, OpenAI

client = OpenAI(base_url=base_url(), api_key="any-key")
keyless = client.with_options(default_headers=KEYLESS)

report("openai", completions(client), completions(keyless), APIStatusError)
