"""What an upstream call costs, by how it has ended.

A gateway key, a virtual key and the ledger are charged the same: the sum over the calls
of a try. How far a call has come is all that counts, and not what has ended it: a
caller that left, a limit of time or of size, the end of this process, another call of a
batch that failed. The rules follow what providers bill:

- Nothing is charged for what was not sent, and for what was answered with an error: an
  error status, or an error in place of an answer.
- An answer is charged as its provider counts it. Where that counts nothing, tokens are
  estimated.
- A stream that was broken off is charged its prompt, and what came of it: providers
  stop, and bill that far.
- A whole answer that was asked for and not had, or that cannot be read, is charged its
  prompt and all tokens that it could have had. Providers complete a call whose caller
  hangs up, and bill it. Engines such as vLLM stop then, and cost less than is charged.
- So is a stream of which nothing has come yet, if its model thinks unseen. Once text
  comes, the thoughts before it count as many tokens as the model needs at least.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum

import orjson

from ..core.batch import Part
from ..core.completion import Completion, Usage, estimate
from ..core.post_processing import prompt_estimate
from ..core.request import CompletionRequest
from ..core.routing import CompletionMode
from ..errors import UpstreamInBand
from ..planning import capabilities
from ..planning.plan import Plan
from ..providers.declaration import LEGACY_PARAMS, UpstreamAnswer
from ..providers.protocols import openai_chat

# Tokens of a text whose length nobody has limited. Only callers without limits on
# tokens and money can ask for such texts.
_UNLIMITED = 16


class CallStage(StrEnum):
    """How far an upstream call has come."""

    UNSENT = "unsent"
    # The request has gone out, and its answer is not complete.
    SENT = "sent"
    REJECTED = "rejected"
    ANSWERED = "answered"


@dataclass(slots=True, eq=False)
class CallRecord:
    """What is known of one upstream call, which asks for *part* of *plan*.

    *usage* is what the provider has counted, *generated* about how many tokens came.
    """

    plan: Plan
    part: Part
    is_stream: bool
    stage: CallStage = CallStage.UNSENT
    usage: Usage | None = None
    generated: int = 0

    def note(self, answer: UpstreamAnswer) -> None:
        """Take one more piece of the answer into account, or the whole."""
        self.usage = answer.usage or self.usage
        if isinstance(answer, Completion):
            self.generated += sum(estimate(choice.text) for choice in answer.choices)
        else:
            # Nearly every server sends one token a frame.
            self.generated += bool(answer.body)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Note whether what is read within is an answer, or an error in its place."""
        try:
            yield
        except UpstreamInBand:
            if not self.generated:
                self.stage = CallStage.REJECTED
            raise
        self.stage = CallStage.ANSWERED

    @property
    def charge(self) -> Usage:
        """What it costs, as far as it has come."""
        usage = _CHARGES[self.stage, self.is_stream](self)
        if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
            # There are providers that count below nothing.
            usage = replace(
                usage,
                prompt_tokens=max(usage.prompt_tokens, 0),
                completion_tokens=max(usage.completion_tokens, 0),
            )
        return _repeated(usage) if self.part.sample else usage


def _nothing(call: CallRecord) -> Usage:
    return Usage()


def _complete(call: CallRecord) -> Usage:
    return call.usage or _begun(call)


def _begun(call: CallRecord) -> Usage:
    """The prompt and what came, as far as the provider has not counted more."""
    counted = call.usage or Usage(_sent(call.plan, call.part))
    made = max(call.generated, counted.completion_tokens)
    return replace(counted, completion_tokens=made, estimated=True)


def _broken_off(call: CallRecord) -> Usage:
    """That of a stream, with what its model has thought meanwhile."""
    usage, floor = _begun(call), _thinking_floor(call.plan)
    if not floor:
        return usage
    most = _whole(call)
    if not usage.completion_tokens:
        return most
    made = min(usage.completion_tokens + floor, most.completion_tokens)
    return replace(usage, completion_tokens=max(made, usage.completion_tokens))


def _whole(call: CallRecord) -> Usage:
    """The prompt and all that could be made."""
    usage, most = _begun(call), _most_made(call.part.request)
    return replace(usage, completion_tokens=max(usage.completion_tokens, most))


# By how far a call has come, and whether its answer is a stream.
_CHARGES: Mapping[tuple[CallStage, bool], Callable[[CallRecord], Usage]] = {
    (CallStage.UNSENT, False): _nothing,
    (CallStage.UNSENT, True): _nothing,
    (CallStage.REJECTED, False): _nothing,
    (CallStage.REJECTED, True): _nothing,
    (CallStage.SENT, False): _whole,
    (CallStage.SENT, True): _broken_off,
    (CallStage.ANSWERED, False): _complete,
    (CallStage.ANSWERED, True): _complete,
}


def max_usage(plan: Plan) -> Usage:
    """What all calls of *plan* can take: all that they send, about, and may make."""
    sent = sum(_sent(plan, part) for part in plan.parts)
    made = sum(_most_made(part.request) for part in plan.parts)
    return Usage(sent, made, estimated=True)


def _repeated(usage: Usage) -> Usage:
    """*usage* of another choice for a prompt that is counted with the first one."""
    again = usage.prompt_tokens
    return replace(usage, prompt_tokens=0, cached_tokens=0, repeated_tokens=again)


def _thinking_floor(plan: Plan) -> int:
    """How many tokens its model thinks unseen at least.

    A target may only say that of more models: a caller may have written it.
    """
    if plan.mode != CompletionMode.CHAT:
        return 0
    model, info = plan.request.model, plan.target.model_info
    return max(
        capabilities.describe_model(model, about).token_floor for about in ({}, info)
    )


def _sent(plan: Plan, part: Part) -> int:
    """About how many tokens a model reads: of the prompts, and of all beside them."""
    request = part.request
    if plan.mode == CompletionMode.CHAT:
        message = openai_chat.user_message(plan.ask(part, plan.target))
        sent = estimate(message) + estimate(plan.target.bridge.system or "")
    else:
        sent = sum(map(prompt_estimate, request.prompts))
    return sent + estimate(request.suffix or "") + _unknown(request)


def _unknown(request: CompletionRequest) -> int:
    """About how many tokens there are in parameters that nobody here knows.

    Such as descriptions of tools. Numbers are none.
    """
    return sum(
        len(orjson.dumps(value)) // 4
        for name, value in request.params.items()
        if name not in LEGACY_PARAMS and isinstance(value, (str, list, dict))
    )


def _most_made(request: CompletionRequest) -> int:
    length = _UNLIMITED if request.max_tokens is None else request.max_tokens
    return length * request.drawn * len(request.prompts)
