"""When a provider's stream is whole: one place decides it for all readers.

A stream ends in one of four ways. A reader reports what it reads, and `StreamEnding`
says what came of it:

- ended by an error: the provider sends an error in place of an event. The reader
  raises it out of `feed`, and nothing is decided here any more;
- whole: its choices have finish reasons, under the rule that the reader chose;
- cut: the body ended regularly, but too early. UpstreamCut;
- broken: the connection failed. Its error is raised, unless the rule says that
  nothing was lost.
"""

from collections.abc import Iterable
from enum import Enum, auto

from ...core.completion import Choice
from ...errors import UpstreamCut, UpstreamError


class EndingRule(Enum):
    """What a stream needs to be whole.

    CHOICES_FINISHED   each choice that began has a finish reason; a connection that
                       fails after the last of them has lost nothing
    BODY_ENDED         the body ended regularly. That no choice is left open is then
                       checked in core/post_processing, since a choice may have ended at
                       a stop sequence of which the provider knows nothing
    """

    CHOICES_FINISHED = auto()
    BODY_ENDED = auto()


class StreamEnding:
    """Follows the choices of one stream, and decides at its end."""

    __slots__ = ("_rule", "running", "finished")

    def __init__(self, rule: EndingRule) -> None:
        self._rule = rule
        # Indices of choices.
        self.running: set[int] = set()
        self.finished: set[int] = set()

    def follow(self, choices: Iterable[Choice]) -> None:
        """Note where the choices of one chunk stand."""
        for choice in choices:
            if choice.finish_reason:
                self.finish(choice.index)
            else:
                self.running.add(choice.index)

    def finish(self, index: int) -> None:
        """Note a finish reason."""
        self.running.discard(index)
        self.finished.add(index)

    @property
    def has_finished_choices(self) -> bool:
        """Whether there are choices, and none of them is left open."""
        return bool(self.finished) and not self.running

    def check(self, failure: UpstreamError | None = None) -> None:
        """Raise *failure*, or UpstreamCut, unless the stream is whole."""
        if self._rule is EndingRule.CHOICES_FINISHED:
            # To lose the connection, or `[DONE]`, after the last choice is no loss.
            if self.has_finished_choices:
                return
            raise failure or UpstreamCut(
                "upstream ended the stream before the completion was done"
            )
        if failure:
            raise failure
