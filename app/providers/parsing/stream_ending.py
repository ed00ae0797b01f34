"""When a stream of a provider is whole: one place decides it, for all readers.

A stream ends in one of four ways:

- by an error of the provider, in place of an event. The reader raises it out of `feed`,
  and nothing is decided here any more;
- whole;
- cut: the body has ended regularly, but too early. UpstreamCut;
- broken: the connection failed. Its error is raised, unless nothing was lost.

There are two rules for a stream to be whole, and a reader has one of them:

- `ChoiceEndings.check`, where frames pass through untouched: each choice that began has
  a finish reason.
- `check_body_ended`, where the gateway makes the chunks: the body has ended regularly.
  That no choice is left open is checked behind it, in core/post_processing, since a
  choice may have ended at a stop sequence of which the provider knows nothing.
"""

from ...errors import UpstreamCut, UpstreamError


class ChoiceEndings:
    """The choices of one stream by their indices: those that go on, and the others."""

    __slots__ = ("running", "finished")

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.finished: set[int] = set()

    def finish(self, index: int) -> None:
        """Note a finish reason."""
        self.running.discard(index)
        self.finished.add(index)

    def check(self, failure: UpstreamError | None) -> None:
        """Raise *failure*, or UpstreamCut, unless all choices are finished."""
        # To lose the connection, or `[DONE]`, after the last choice is no loss.
        if self.running or not self.finished:
            raise failure or UpstreamCut(
                "upstream ended the stream before the completion was done"
            )


def check_body_ended(failure: UpstreamError | None) -> None:
    """Raise the *failure* with which the body has ended, if any."""
    if failure:
        raise failure
