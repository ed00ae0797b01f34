"""What an upstream call costs, by how it has ended.

A gateway key, a virtual key and the ledger are charged the same amount: the sum over
the calls of a try. Only how far a call has come counts, and not what ended it: a caller
that hung up, a limit of time or size, the end of this process, another call of a batch
that failed. The rules follow what providers bill:

- Nothing is charged for a call that was not sent, or was answered with an error: an
  error status, or an error in place of an answer. An error with a usage beside it is
  charged that.
- An answer is charged as its provider counts it. If the provider reports no usage,
  tokens are estimated.
- An interrupted stream is charged its prompt and what was received: providers stop
  generating then, and bill that much.
- A whole answer that did not arrive, or cannot be parsed, is charged its prompt and
  max_tokens. Providers complete a call whose client hangs up, and bill it. Engines such
  as vLLM stop then, and cost less than is charged.
- So is a stream of which nothing has come yet, if its model reasons. Once text comes,
  the reasoning before it counts as the model's minimum.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import orjson

from ..core.batch import Part
from ..core.completion import Completion, Usage, estimate
from ..core.post_processing import prompt_estimate
from ..core.request import LEGACY_PARAMS, CompletionRequest
from ..core.routing import CompletionMode
from ..errors import UpstreamInBand
from ..planning import capabilities
from ..planning.plan import Plan
from ..providers.declaration import UpstreamAnswer
from ..providers.parsing.answer_fields import parse_usage
from ..providers.protocols import openai_chat

# Tokens to assume where there is no max_tokens, the default of OpenAI's completions.
# Only callers without limits on tokens and money can send such requests.
_DEFAULT_MAX_TOKENS = 16


class CallEnding(StrEnum):
    """How an upstream call has ended. One that was broken off has not."""

    REJECTED = "rejected"
    ANSWERED = "answered"


@dataclass(slots=True, eq=False)
class CallRecord:
    """The progress of one upstream call, which asks for *part* of *plan*.

    *is_sent* says whether the request has gone out, *ending* how its answer ended, once
    it did. *usage* is what the provider has reported, *generated* estimates the tokens
    that were received.
    """

    plan: Plan
    part: Part
    is_stream: bool
    is_sent: bool = False
    ending: CallEnding | None = None
    usage: Usage | None = None
    generated: int = 0

    def note(self, *answers: UpstreamAnswer) -> None:
        """Count the next chunks of the answer, or the whole answer."""
        for answer in answers:
            if answer.usage is not None:
                self.usage = (self.usage or answer.usage).updated(answer.usage)
            if isinstance(answer, Completion):
                for choice in answer.choices:
                    self.generated += estimate(choice.text)
            else:
                # Nearly every server sends one token per frame.
                self.generated += answer.tokens if answer.body else 0

    def fail(self, error: UpstreamInBand) -> None:
        """Note an *error* in place of an answer, or of its end."""
        usage = parse_usage(error.usage)
        if usage:
            # The provider has counted it, so it is billed.
            self.usage, self.ending = usage, CallEnding.ANSWERED
        elif not self.generated:
            self.ending = CallEnding.REJECTED

    @property
    def has_answer(self) -> bool:
        """Whether any of the answer has come."""
        return bool(self.ending or self.generated or self.usage)

    @property
    def charge(self) -> Usage:
        """What the call costs, as far as it has come."""
        if not self.is_sent or self.ending is CallEnding.REJECTED:
            usage = Usage()
        elif self.ending is CallEnding.ANSWERED:
            usage = self._answered_usage()
        elif self.is_stream:
            usage = self._interrupted_stream_usage()
        else:
            usage = self._max_usage()
        # The caller sees the tokens of a prompt once, however many calls it takes.
        return usage.of_repeated_prompt() if self.part.sample else usage

    def _answered_usage(self) -> Usage:
        """What the provider has counted, with estimates of what it has not."""
        usage = self.usage or Usage(estimated=True)
        is_counted = usage.prompt_tokens and usage.completion_tokens
        # The reader of frames and answers that pass through has estimated the rest.
        if is_counted or self.usage and self.plan.endpoint.legacy_shape:
            return usage
        prompt_tokens = _prompt_tokens(self.plan, self.part)
        return usage.with_estimates(prompt_tokens, self.generated)

    def _received_usage(self) -> Usage:
        """The prompt and what was received, unless the provider has counted more."""
        # Some providers report in every chunk, so there can be usage of a part.
        usage = self._answered_usage()
        tokens = max(self.generated, usage.completion_tokens)
        return replace(usage, completion_tokens=tokens, estimated=True)

    def _max_usage(self) -> Usage:
        """The prompt and all tokens that the request allows."""
        usage = self._received_usage()
        limit = _max_completion_tokens(self.part.request)
        return replace(usage, completion_tokens=max(usage.completion_tokens, limit))

    def _interrupted_stream_usage(self) -> Usage:
        """What was received, and the hidden reasoning before it."""
        usage = self._received_usage()
        reasoning_floor = _reasoning_floor(self.plan)
        if not reasoning_floor:
            return usage
        received, limit = usage.completion_tokens, self._max_usage().completion_tokens
        if not received:
            # All of it may have been reasoning so far.
            return replace(usage, completion_tokens=limit)
        tokens = max(min(received + reasoning_floor, limit), received)
        return replace(usage, completion_tokens=tokens)


@dataclass(slots=True)
class UsageCounter:
    """The upstream calls of one try. Several threads may begin calls."""

    calls: list[CallRecord] = field(default_factory=list)
    refused: list[Plan] = field(default_factory=list)

    def refuse(self, plan: Plan) -> None:
        """Count no call of *plan* of whose answer nothing has come."""
        self.refused.append(plan)

    def begin(self, plan: Plan, part: Part) -> CallRecord:
        """The record of a call that is about to be made."""
        record = CallRecord(plan, part, part.request.stream)
        self.calls.append(record)
        return record

    @property
    def total(self) -> Usage:
        """What they are charged, as far as they have come."""
        # Another thread may append while the charges are computed.
        charges = [
            call.charge
            for call in tuple(self.calls)
            if call.has_answer or not any(plan is call.plan for plan in self.refused)
        ]
        # Most tries make one call.
        return charges[0] if len(charges) == 1 else sum(charges, Usage())


def max_usage(plan: Plan) -> Usage:
    """The most that all calls of *plan* can use; the prompts are estimated."""
    prompt_tokens = sum(_prompt_tokens(plan, part) for part in plan.parts)
    completion_tokens = sum(_max_completion_tokens(part.request) for part in plan.parts)
    return Usage(prompt_tokens, completion_tokens, estimated=True)


def _reasoning_floor(plan: Plan) -> int:
    """How many tokens the model spends on reasoning at least.

    A target may only raise it: callers may have written the target's `model_info`.
    """
    if plan.mode != CompletionMode.CHAT:
        return 0
    model, info = plan.request.model, plan.target.model_info
    return max(
        capabilities.describe_model(model, override).token_floor
        for override in ({}, info)
    )


def _prompt_tokens(plan: Plan, part: Part) -> int:
    """About how many tokens a model reads: the prompts, and everything else sent."""
    request = part.request
    if plan.mode == CompletionMode.CHAT:
        message = openai_chat.user_message(plan.upstream_request(part, plan.target))
        tokens = estimate(message) + estimate(plan.target.bridge.system or "")
    else:
        tokens = sum(map(prompt_estimate, request.prompts))
    # Parameters unknown to the gateway may hold text, such as descriptions of tools.
    tokens += sum(
        len(orjson.dumps(value)) // 4
        for name, value in request.params.items()
        if name not in LEGACY_PARAMS and isinstance(value, (str, list, dict))
    )
    return tokens + estimate(request.suffix or "")


def _max_completion_tokens(request: CompletionRequest) -> int:
    limit = request.max_tokens
    limit = _DEFAULT_MAX_TOKENS if limit is None else limit
    # `best_of` draws more choices than are answered, and all are paid for.
    return limit * request.drawn * len(request.prompts)
