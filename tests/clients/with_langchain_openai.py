"""LangChain's `OpenAI`, which is the class for text completions.

It sends an array of prompts even for one (a string if streamed), and null for what is
not set; of an answer it keeps the choices, in order, and the sum of the usages.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from cases import KEYLESS, MAX_TOKENS, MODEL, PROMPTS, base_url, report
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import GenerationChunk
from langchain_openai import OpenAI
from openai import APIStatusError

# Sent as extras: the class has no `echo`, and for `logprobs` it is the older way.
EXTRAS = ("echo", "logprobs")
# The token "The" of the embedded model.
THE = "504"


class Chunks(BaseCallbackHandler):
    """Keeps each chunk of a stream whole; `OpenAI.stream` yields the texts alone."""

    def __init__(self) -> None:
        self.received: list[GenerationChunk] = []

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **_: Any) -> None:
        self.received.append(chunk)


def language_model(**params: Any) -> OpenAI:
    extras = {name: params.pop(name) for name in EXTRAS if name in params}
    settings = {"model": MODEL, "max_tokens": MAX_TOKENS, "temperature": 0} | params
    return OpenAI(
        base_url=base_url(), api_key="any-key", model_kwargs=extras, **settings
    )


def create(*, prompt: Any, stream: bool = False, **params: Any) -> Any:
    """The answer in the shape of the endpoint, as far as LangChain keeps it."""
    if stream:
        return streamed(language_model(**params), prompt)
    prompts = prompt if isinstance(prompt, list) else [prompt]
    result = language_model(**params).generate(prompts)
    generations = [one for several in result.generations for one in several]
    choices = [{"text": one.text, **one.generation_info} for one in generations]
    return {"choices": choices, "usage": result.llm_output["token_usage"]}


def streamed(model: OpenAI, prompt: str) -> Iterator[dict[str, Any]]:
    chunks = Chunks()
    texts = list(model.stream(prompt, config={"callbacks": [chunks]}))
    for text, chunk in zip(texts, chunks.received, strict=True):
        yield {"choices": [{"text": text, **chunk.generation_info}]}


report(
    "langchain-openai",
    create,
    partial(create, default_headers=KEYLESS),
    APIStatusError,
    invoke=language_model().invoke(PROMPTS[0]),
    singles=[create(prompt=prompt) for prompt in PROMPTS],
    five=create(prompt=PROMPTS, batch_size=2),
    best=create(prompt=PROMPTS[:2], n=2, best_of=2),
    biased=create(prompt=PROMPTS[0], logit_bias={THE: 100.0}),
)
