"""When an answer of a provider is whole: one place decides it, for all readers.

A stream ends in one of four ways:

- by an error of the provider, in place of an event. The reader raises it out of `feed`,
  and nothing is decided here any more;
- whole;
- cut: the body has ended regularly, but too early. UpstreamCut;
- broken: the connection failed. Its error is raised, unless nothing was lost.

It is whole if each choice that was asked for has a finish reason: a choice that never
began is missing as much as one that goes on. A reason does not end its choice by
itself: some servers send one with every frame, or an empty frame with one first, and
filters of content have their say last. So `ChoiceEndings` holds the reasons until
nothing can follow them: until `[DONE]`, or the end of the body. The text that came with
a reason is held with it, since most servers end in the next moment: the two go on as
one chunk, as they came. If it takes longer, the text goes on alone (`flush`).

Some providers send no reasons at all (Snowflake Cortex). `ReasonlessEnd` says what
takes their place; `inferred_reason` tells the reason from the budget, in whole answers
as well.

Readers decide this for the frames that they pass on. Where the gateway makes the
chunks, a choice may have ended at a stop sequence of which the provider knows nothing:
so a missing one is an error in core/post_processing, which is behind those readers.
"""

from collections.abc import Sequence
from enum import Enum, auto
from itertools import count
from typing import Any

from ...core.completion import Completion, Usage
from ...core.post_processing import incomplete
from ...core.sse import DONE
from ...errors import UpstreamCut, UpstreamError
from ..upstream_request import UpstreamRequest

# Data without meaning; llama.cpp opens the stream of a batch with `null`.
_EMPTY_DATA = (b"", b"null", b"{}")


def check_ended(answer: Completion) -> None:
    """Raise UpstreamCut if a choice of this whole answer goes on."""
    ended = sum(choice.finish_reason is not None for choice in answer.choices)
    if ended < len(answer.choices):
        raise incomplete("answer", ended, len(answer.choices))


def is_terminator(data: bytes) -> bool:
    """Whether the *data* of an event is `[DONE]`, maybe with blanks around it.

    Any reader may meet it: proxies add it to streams of providers that do not send it.
    """
    return data.strip() == DONE


def is_empty(data: bytes) -> bool:
    """Whether the *data* of an event means nothing."""
    return data.strip() in _EMPTY_DATA


def check_body_ended(failure: UpstreamError | None) -> None:
    """Raise the *failure* with which the body has ended, if any."""
    if failure:
        raise failure


class ReasonlessEnd(Enum):
    """What completes a stream in which no choice has a finish reason."""

    # `[DONE]`, if the tokens were counted before: whoever counts them has generated all
    # of them. Without counts, `[DONE]` is what servers send after a failure, too.
    COUNTED = auto()
    # `[DONE]`.
    TERMINATOR = auto()
    # The end of the body, or `[DONE]`.
    BODY = auto()


class ChoiceEndings:
    """The choices of one stream by their indices: which have begun, and why they end.

    *running* are those of which text may come without more ado, *reasons* those that
    end, in this order, unless more of them follows. *is_repeating* says that text has
    come behind a reason: so no reason of this stream is one before its end.
    """

    __slots__ = ("running", "reasons", "is_repeating", "_upstream", "_expected")

    def __init__(self, upstream: UpstreamRequest) -> None:
        self.running: set[int] = set()
        self.reasons: dict[int, str] = {}
        self.is_repeating = False
        self._upstream = upstream
        self._expected = expected_choices(upstream)

    def go_on(self, index: int, *, has_text: bool) -> None:
        """Note a chunk of this choice. Raises UpstreamCut for far too many choices."""
        if index not in self.reasons:
            self.running.add(index)
            # A few more than were asked for are the caller's to judge.
            if len(self.running) + len(self.reasons) > self._expected + _MOST_MORE:
                raise UpstreamCut("upstream sent more choices than it was asked for")
        elif has_text:
            self.is_repeating = True
            self.running.add(index)

    def hold(self, index: int, reason: str) -> str:
        """Note a *reason*, behind what came with it; returns the one that counts."""
        earlier = self.reasons.pop(index, None)
        if earlier is not None and _weight(reason) < _weight(earlier):
            # What is filtered stays so. Any other reason was none if text came since.
            is_refuted = index in self.running and _weight(earlier) < _FILTERED
            reason = reason if is_refuted else earlier
        self.reasons[index] = reason
        self.running.discard(index)
        return reason

    def complete(self, usage: Usage | None, *, is_sufficient: bool = False) -> None:
        """Infer the reasons of a stream without any, of which the end has come.

        Choices that never began stay without. *is_sufficient* says that tokens need
        not have been counted.
        """
        if self.reasons or len(self.running) < self._expected:
            return
        if usage is None and not is_sufficient:
            return
        reason = inferred_reason(self._upstream, usage)
        self.reasons = dict.fromkeys(sorted(self.running), reason)

    def check(self, failure: UpstreamError | None) -> None:
        """Raise *failure*, or UpstreamCut, unless all choices have ended."""
        is_missing = len(self.reasons) < self._expected or not self.running <= {
            *self.reasons
        }
        # To lose the connection, or `[DONE]`, after the last choice is no loss. But
        # where each frame has a reason, none says that it is the last.
        if is_missing or (failure and self.is_repeating):
            raise failure or incomplete("stream", len(self.reasons), self._expected)


_FILTERED = 2

# What is kept of choices that nobody asked for has to stay small.
_MOST_MORE = 128


def _weight(reason: str) -> int:
    """Which of two reasons says more. `stop` is what servers send by default."""
    return {"stop": 0, "content_filter": _FILTERED}.get(reason.lower(), 1)


def expected_choices(upstream: UpstreamRequest) -> int:
    """How many choices a call asks for."""
    return len(upstream.request.prompts) * upstream.request.n


def inferred_reason(upstream: UpstreamRequest, usage: Usage | None) -> str:
    """The finish reason of choices that ended without one.

    `length` if all tokens that were allowed were used, as far as they were counted.
    """
    limit = upstream.request.max_tokens
    if usage is None or usage.estimated or limit is None:
        return "stop"
    budget = limit * expected_choices(upstream)
    return "length" if usage.completion_tokens >= budget else "stop"


def choice_indices(
    indices: Sequence[Any], expected: int, *, whole: bool
) -> Sequence[Any]:
    """The indices of choices that stand together, from those that they have.

    Where all are there that were asked for, those without an index are counted up. In a
    *whole* answer that is so even if an index comes twice, or is none that was asked
    for; in a stream, two pieces of one choice may stand together. A single index that
    is left out is 0.
    """
    # Servers leave out a zero, or write it as something else that counts as nothing.
    indices = [i if i or type(i) is int else None for i in indices]
    present = [index for index in indices if index is not None]
    if any(type(index) is not int for index in present):
        return indices
    is_complete = len(indices) == expected
    is_usable = len({*present} & {*range(expected)}) == len(present)
    if whole and is_complete and not is_usable:
        return range(expected)
    if whole or (is_complete and is_usable):
        free = (i for i in count() if i not in present)
        return [next(free) if index is None else index for index in indices]
    return [0 if index is None else index for index in indices]
