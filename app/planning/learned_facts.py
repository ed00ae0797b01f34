"""What the errors of an upstream say about a deployment, beyond the table of models.

A deployment can have any name, and models are newer than the table: some take the limit
of tokens only as `max_completion_tokens`, older servers only as `max_tokens`; some only
chat; some servers do not know `stream_options`. Their refusals say so. The request is
planned again, and the fact is used for the next ones (state/fact_memory.py).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..core.cache_key import fingerprint
from ..core.request import CompletionRequest
from ..core.routing import CompletionMode, Target
from ..errors import UpstreamStatus

# The two names of the limit of tokens; each is the alternative of the other.
OTHER_LIMIT = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}


@dataclass(frozen=True, slots=True)
class LearnedFacts:
    """What is known of one deployment: that it *only_chats*; that its endpoints are
    *unversioned*, right below the custom host; and the parameters, by their names
    upstream, that it has *refused* in a mode.
    """

    only_chats: bool = False
    unversioned: bool = False
    refused: frozenset[tuple[CompletionMode, str]] = frozenset()

    def refusing(self, mode: CompletionMode, name: str) -> "LearnedFacts":
        """These facts, and that *name* is refused. Of the two limits only one is."""
        other = (mode, OTHER_LIMIT.get(name, ""))
        return replace(self, refused=self.refused - {other} | {(mode, name)})

    def limit_name(self, mode: CompletionMode, name: str) -> str:
        """The name of the limit of tokens: *name*, unless that was refused."""
        return OTHER_LIMIT.get(name, name) if (mode, name) in self.refused else name


NO_FACTS = LearnedFacts()


def facts_key(target: Target) -> str:
    """The key of what is learned from calls to *target*: equal for equal deployments.

    Provider, host and settings, the model, and the credentials with all that is sent
    beside them: who sends requests to a host of theirs, or with a key of theirs,
    teaches nothing about others' calls.
    """
    assert target.request, "a route to completions has a request for every target"
    return fingerprint(
        [
            target.provider,
            target.base_url,
            target.request.model,
            target.virtual_key,
            target.api_key,
            dict(target.options),
            dict(target.headers),
        ]
    )


# How servers say that they do not take a parameter, with its name for `{}`. A value out
# of its range ("max_tokens is too large", "Invalid 'max_tokens'") is none of these.
# Sources: OpenAI, and Azure with new models ("Unsupported parameter: 'max_tokens' is
# not supported with this model. Use 'max_completion_tokens' instead.",
# https://github.com/openai/openai-python/issues/1724), Azure with older versions of its
# API ("Unrecognized request argument supplied: max_completion_tokens", the same issue),
# vLLM and Mistral ("extra_forbidden", "Extra inputs are not permitted",
# https://github.com/editor-code-assistant/eca/issues/231), Groq ("property 'x' is
# unsupported").
_REFUSALS = (
    r"(?:unsupported|unrecognized|unknown|unexpected|does(?: not|n't) support)"
    r"(?: (?:the|request|keyword|json|body))*"
    r"(?: (?:parameter|argument|field|key|name|property|option)s?)?(?:\(s\))?"
    r"(?: supplied)?\W{{0,4}}{}\b"
    r"(?!\W*(?:above|greater|larger|more|of|over|values?|\d))",
    r"\b{}\b\W{{0,3}}(?:is |are )?(?:not (?:supported|permitted|allowed|recognized)"
    r"|unsupported|unknown|unrecognized)",
    # An entry of a list of validation errors: `'loc': ('body', 'NAME'), 'msg': ...`, or
    # `body.NAME: Extra inputs ...` as error_bodies.py writes it.
    r"\b{}\b[^{{}}]{{0,20}}(?:msg\W+)?extra (?:inputs|fields) (?:are )?not permitted",
)


def refuses_parameter(error: UpstreamStatus, name: str) -> bool:
    """Whether *error* says that the endpoint takes no parameter of this *name*."""
    if error.param == name and error.code in _CODES:
        return True
    patterns = [pattern.format(name) for pattern in _REFUSALS]
    if name in OTHER_LIMIT:
        patterns.append(rf"\buse\W+{OTHER_LIMIT[name]}\b\W+instead")
    return any(re.search(pattern, error.message, re.I) for pattern in patterns)


_CODES = ("unsupported_parameter", "unknown_parameter")


def is_unknown_path(error: UpstreamStatus) -> bool:
    """Whether *error* says that there is no such path; a model may be missing, too."""
    names_model = "model" in f"{error.code} {error.message}".lower()
    return error.status in (404, 405) and not names_model


def may_quote(request: CompletionRequest, words: re.Pattern[str]) -> bool:
    """Whether *words* in an error may be the caller's own, quoted from *request*.

    What a caller can write must not become a fact for others.
    """
    sent = [request.model, *request.prompts, *request.params.values()]
    return any(map(words.search, _texts(sent)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value if isinstance(value, list) else [*value, *value.values()]:
            yield from _texts(item)
