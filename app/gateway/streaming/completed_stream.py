"""A whole answer, made of a stream that nobody asked for.

Some servers stream whatever the request says: relays that only know streams, and
Ollama, whose default it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...core.completion import Choice, Completion, Logprobs, Usage, estimate
from ...core.post_processing import prompt_estimate
from ...core.sse import Event
from ...errors import UpstreamCut
from ...providers.declaration import UpstreamAnswer
from ...providers.parsing.error_bodies import raise_error_event
from ...providers.protocols.openai_completions import to_completion
from ...providers.upstream_request import UpstreamRequest
from ..usage_charges import CallRecord


def complete_events(
    events: Sequence[Event], request: UpstreamRequest, record: CallRecord
) -> Completion:
    """The completion that *events* make, of which the generated text is on *record*.

    Raises UpstreamError for a stream that is not whole.
    """
    reader = request.endpoint.reader(request)
    chunks: list[Completion] = []

    def take(answers: Sequence[UpstreamAnswer]) -> None:
        record.note(*answers)
        chunks.extend(map(to_completion, answers))

    for event in events:
        raise_error_event(event)
        take(reader.feed(event))
        if reader.done:
            break
    else:
        take(reader.end())
    completion = joined(chunks)
    prompt_tokens = sum(map(prompt_estimate, request.request.prompts))
    completion_tokens = sum(estimate(choice.text) for choice in completion.choices)
    usage = completion.usage or Usage(estimated=True)
    return replace(
        completion, usage=usage.with_estimates(prompt_tokens, completion_tokens)
    )


def joined(chunks: Iterable[Completion]) -> Completion:
    """The whole answer that *chunks* of a stream make up.

    Choices are in the order of their indices; one may still have no finish reason.
    Raises UpstreamCut if there are none.
    """
    head: Completion | None = None
    usage: Usage | None = None
    choices: dict[int, list[Choice]] = {}
    for chunk in chunks:
        # The chunk with the usage may have no head.
        head = head or (chunk if chunk.choices else None)
        if chunk.usage is not None:
            usage = (usage or chunk.usage).updated(chunk.usage)
        for choice in chunk.choices:
            choices.setdefault(choice.index, []).append(choice)
    if head is None:
        raise UpstreamCut("upstream ended the stream before the completion was done")
    whole = tuple(_joined_choice(choices[index]) for index in sorted(choices))
    return replace(head, choices=whole, usage=usage)


def _joined_choice(pieces: Sequence[Choice]) -> Choice:
    reasons = (piece.finish_reason for piece in reversed(pieces))
    parts = [piece.logprobs for piece in pieces if piece.logprobs]
    logprobs = Logprobs(
        [token for part in parts for token in part.tokens],
        [value for part in parts for value in part.token_logprobs],
        [top for part in parts for top in part.top_logprobs],
        [offset for part in parts for offset in part.text_offset],
    )
    return Choice(
        "".join(piece.text for piece in pieces),
        pieces[0].index,
        logprobs if parts else None,
        next(filter(None, reasons), None),
    )
