"""What the gateway sees to itself in the answer to one prompt, whole or streamed.

Where upstream cannot: it puts the prompt before the text (`echo`), ends the text before
a stop sequence, drops the one token that had to be asked for when none was wanted, and
counts tokens, roughly. Everywhere it sees to it that every choice begins and ends once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import UpstreamCut, UpstreamProtocol
from .completion import Choice, Completion, Logprobs, Usage, estimate
from .request import Prompt

# A completion whose budget was used up before its first visible character.
SILENT = (
    "no text: the whole token budget was used up before it began, as reasoning models "
    "do; raise max_tokens"
)


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """What one call's answer has to become.

    *count* choices, each after *echo*, cut at the first of *stops*; with *nothing*,
    without any generated text. *logprobs* says that they were asked for, *may_reason*
    that a model may think unseen.
    """

    prompt: Prompt = ""
    count: int = 1
    echo: bool = False
    stops: Sequence[str] = ()
    nothing: bool = False
    logprobs: bool = False
    may_reason: bool = False


def shaped(pieces: Iterable[Completion], shape: PostProcessing) -> Iterator[Completion]:
    """The *pieces* of an answer in this shape; the usage last, in one without choices.

    Ends early when nothing more can come. Raises UpstreamCut if a choice is left open.
    """
    choices = [_Running(shape, i) for i in range(shape.count)]
    head: Completion | None = None
    usage: Usage | None = None
    for piece in pieces:
        head = head or replace(piece, choices=(), usage=None, warnings=())
        usage = piece.usage or usage
        yield from _shaped(piece, choices, head)
        if shape.stops and all(choice.cut for choice in choices):
            break
    if head is None or not all(choice.finished for choice in choices):
        raise UpstreamCut("upstream ended the answer before the completion was done")
    if shape.logprobs and any(choice.lacks_logprobs for choice in choices):
        raise UpstreamProtocol("upstream sent no log probabilities, though asked for")
    yield replace(head, usage=_counted(usage, shape, choices))


def whole(answer: Completion, shape: PostProcessing) -> Completion:
    """The whole *answer* in this shape."""
    *pieces, last = shaped([answer], shape)
    none = Logprobs() if shape.logprobs else None
    choices = (choice for piece in pieces for choice in piece.choices)
    return replace(
        last,
        choices=tuple(replace(c, logprobs=c.logprobs or none) for c in choices),
        warnings=tuple(dict.fromkeys(w for p in pieces for w in p.warnings)),
    )


def _shaped(
    piece: Completion, running: Sequence["_Running"], head: Completion
) -> Iterator[Completion]:
    for choice in piece.choices:
        if choice.index >= len(running):
            raise UpstreamCut("upstream sent more choices than it was asked for")
        fitted = running[choice.index].feed(choice)
        if fitted:
            warnings = running[choice.index].warnings(fitted)
            told = warnings or piece.warnings
            as_it_is = not told and head.is_piece(piece, fitted)
            yield piece if as_it_is else head.piece(fitted, warnings)


def _counted(
    usage: Usage | None, shape: PostProcessing, choices: Sequence["_Running"]
) -> Usage:
    if usage is None:
        made = sum(estimate(choice.text) for choice in choices)
        return Usage(prompt_estimate(shape.prompt), made, estimated=True)
    return replace(usage, completion_tokens=0) if shape.nothing else usage


def prompt_estimate(prompt: Prompt) -> int:
    """About how many tokens a prompt has. Exact for token ids."""
    return estimate(prompt) if isinstance(prompt, str) else len(prompt or ())


class _Running:
    """One choice, whose text passes through."""

    def __init__(self, shape: PostProcessing, index: int) -> None:
        self._shape = shape
        self._index = index
        self._echo = (
            shape.prompt if isinstance(shape.prompt, str) and shape.echo else ""
        )
        self._start = len(shape.prompt) if isinstance(shape.prompt, str) else 0
        self._held = ""
        self._logprobs = Logprobs()
        self._has_logprobs = False
        self.text = ""
        self.finished = False
        self.cut = False

    def feed(self, choice: Choice) -> Choice | None:
        """What can be said now; None if that is nothing."""
        if self.finished:
            return None
        if self._shape.nothing:
            return self._silenced(choice)
        if self._is_plain(choice):
            self.text += choice.text
            return choice
        self._held += choice.text
        if choice.logprobs:
            self._has_logprobs = True
            self._logprobs += choice.logprobs
        end = _first_stop(self._held, self._shape.stops)
        self.cut = end is not None
        self.finished = self.cut or bool(choice.finish_reason)
        reason = "stop" if self.cut else choice.finish_reason
        return self._released(
            len(self._held) - self._doubt if end is None else end, reason
        )

    def _is_plain(self, choice: Choice) -> bool:
        """Whether *choice* can be said as it is: just text, as in most pieces."""
        shape = self._shape
        busy = self._held or self._echo or self._has_logprobs or shape.stops
        more = choice.logprobs or choice.finish_reason
        return bool(choice.text) and not (busy or more)

    @property
    def _doubt(self) -> int:
        """How many characters at the end may be the beginning of a stop sequence."""
        return 0 if self.finished else _overlap(self._held, self._shape.stops)

    @property
    def lacks_logprobs(self) -> bool:
        """Whether there is text, and not one token of it."""
        return bool(self.text) and not self._has_logprobs

    def _released(self, length: int, reason: str | None) -> Choice | None:
        text, self._held = self._held[:length], self._held[length:]
        self.text += text
        logprobs = self._certain(all_of_them=self.finished and not self.cut)
        if not (text or reason or logprobs):
            return None
        return self._choice(text, logprobs, reason)

    def _certain(self, *, all_of_them: bool) -> Logprobs | None:
        """The tokens that begin within the text that was said."""
        if not self._has_logprobs:
            return None
        offsets = self._logprobs.text_offset
        said = self._start + len(self.text)
        count = sum(offset < said for offset in offsets)
        count = len(offsets) if all_of_them else count
        ready, self._logprobs = self._logprobs.first(count), self._logprobs.after(count)
        return ready if ready.tokens else None

    def _silenced(self, choice: Choice) -> Choice | None:
        self.finished = bool(choice.finish_reason)
        return self._choice("", None, "length") if self.finished else None

    def _choice(
        self, text: str, logprobs: Logprobs | None, reason: str | None
    ) -> Choice:
        echo, self._echo = self._echo, ""
        return Choice(echo + text, self._index, logprobs, reason)

    def warnings(self, choice: Choice) -> tuple[str, ...]:
        silent = choice.finish_reason == "length" and not self.text
        hidden = self._shape.may_reason and not self._shape.nothing
        return (SILENT,) if silent and hidden else ()


def _first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop sequence begins that is complete first; None without any."""
    found = ((i + len(stop), i) for stop in stops if (i := text.find(stop)) >= 0)
    _, start = min(found, default=(0, None))
    return start


def _overlap(text: str, stops: Sequence[str]) -> int:
    """The length of the longest end of *text* with which a stop sequence begins."""
    lengths = (
        length
        for stop in stops
        for length in range(min(len(stop) - 1, len(text)), 0, -1)
        if text.endswith(stop[:length])
    )
    return max(lengths, default=0)
