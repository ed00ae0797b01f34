r"""Streams of the legacy shape: frames pass byte for byte, repaired only where needed.

Invariant: a frame goes on unparsed only if parsing and repairing it would have given
the same bytes. tests/providers/test_openai_completions.py compares the three paths
below with each other.

Why: a stream is hundreds of frames that differ in a few letters, and to parse and
write each is most of what an event costs (reading, checking and writing one took 19 µs
with patterns alone, and takes 10 µs with the template). So a frame takes the first of
three paths that fits:

1. *Template.* The last frame that was checked is cut into what stands before its text
   and what stands after it. A frame with the same two parts, and between them only
   characters that a JSON string may hold unescaped, differs in nothing but its text:
   no quote can end the string early, no backslash can hide one. Nearly all frames end
   here.
2. *Patterns.* A frame of another choice, or with escapes in its text, is searched for
   all that a frame needs (`"object"`, a null finish reason, the id and time of the
   first frame ...). No pattern can match inside a JSON string, where its quotes would
   be escaped. It is parsed once, to see that it is JSON, and becomes the template.
3. *Repair.* All others are parsed, mended, and written again if that changed anything:
   the first frame, finish reasons, usage, errors, several choices in one frame.

A finish reason is held until the end of the stream (parsing/stream_ending.py), with
the frame that it came in, which most servers end a moment later. If that takes longer,
its text goes on in a frame of its own (`flush`). A reason drops the template: what
follows it goes the third path once, to be noted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson

from ... import safe_json
from ...core.completion import Usage, estimate
from ...core.sse import Event
from ...errors import UpstreamError, UpstreamProtocol
from ..declaration import RawCompletion
from ..parsing.answer_fields import usage_body
from ..parsing.error_bodies import raise_in_band_error
from ..parsing.filter_results import PromptFilterResults
from ..parsing.json_answers import read_answer, read_object
from ..parsing.split_characters import CharacterJoiner
from ..parsing.stream_ending import ChoiceEndings, is_empty, is_terminator
from ..upstream_request import UpstreamRequest
from .choice_logprobs import ChoiceLogprobs
from .completion_repair import (
    estimate_uncounted,
    number_choices,
    read_usage,
    repair_choice,
    repair_head,
)

# What all frames of a stream have in common.
_HEAD_KEYS = ("id", "object", "created", "model")

# A frame that needs no repair matches each of these.
_REQUIRED_PATTERNS = tuple(
    map(
        re.compile,
        (
            rb'"finish_reason":\s?null',
            rb'"object":\s?"text_completion"',
            rb'"logprobs":\s?null',
            rb'"text":\s?"',
        ),
    )
)
# Exactly one index means exactly one choice.
_INDEX = re.compile(rb'"index":\s?(\d+)')
_TEXT = re.compile(rb'"text":\s?"((?:[^"\\]|\\.)*)"')
# What stands in a JSON string as it is: printable ASCII without `"` and `\`.
_UNESCAPED = re.compile(rb"[ !#-\[\]-~]*")
_USAGE = re.compile(rb'"usage":')
_NULL_USAGE = re.compile(rb'"usage":\s?null')


class FrameTemplate:
    """What frames that differ in their text alone have in common.

    *data* is a frame with one text; *start* and *end* are the bounds of that.
    """

    __slots__ = ("_before", "_after", "_start", "_after_length")

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._before, self._after = data[:start], data[end:]
        self._start, self._after_length = start, len(data) - end

    @classmethod
    def of(cls, data: bytes) -> Self | None:
        """The template of frames like *data*; None if its text is not the only one."""
        texts = list(_TEXT.finditer(data))
        return cls(data, *texts[0].span(1)) if len(texts) == 1 else None

    def fits(self, data: bytes) -> bool:
        """Whether *data* is the template with other unescaped text."""
        end = len(data) - self._after_length
        return (
            data.startswith(self._before)
            and data.endswith(self._after)
            and _UNESCAPED.fullmatch(data, self._start, end) is not None
        )


class FramePassthrough:
    """Reads one stream: one id and time for all frames, one choice in each, one finish
    reason for each choice, behind all text; usage only as requested, then in a last
    frame without choices.
    """

    def __init__(self, upstream: UpstreamRequest) -> None:
        self._upstream = upstream
        # Asked for each frame that takes the second path or the third.
        self._include_usage = upstream.request.include_usage
        self._continuous_usage = upstream.request.continuous_usage
        self._endings = ChoiceEndings(upstream)
        # The frames with the finish reasons, by their choices.
        self._held: dict[int, _ChoiceFrame] = {}
        self.done = False
        self._head: dict[str, Any] = {}
        self._patterns = _REQUIRED_PATTERNS
        self._template: FrameTemplate | None = None
        # The usage so far; and as upstream reports it, with fields of its own.
        self._usage: Usage | None = None
        self._counts: dict[str, Any] = {}
        self._completion_tokens = 0
        self._has_logprobs = upstream.request.logprobs is not None
        self._logprobs: dict[int, ChoiceLogprobs] = {}
        self._joiner = CharacterJoiner()
        self._filter_results = PromptFilterResults()

    def feed(self, event: Event) -> Sequence[RawCompletion]:
        # The first two lines are all that most events cost: see the top of the module.
        data = event.data
        template = self._template
        if template is not None and template.fits(data):
            # Nearly every server sends one token a frame.
            self._completion_tokens += 1
            return (RawCompletion(data),)
        if self._needs_no_repair(data):
            self._template = FrameTemplate.of(data)
            self._completion_tokens += 1
            return (RawCompletion(data),)
        if is_terminator(data):
            self._endings.complete(self._usage)
            self.done = True
            return self.end()
        if is_empty(data):
            return ()
        return self._repair(data)

    def end(self, failure: UpstreamError | None = None) -> Sequence[RawCompletion]:
        """The finish reasons; then the frame with the usage, if it was requested. The
        usage in any case.
        """
        self._endings.check(failure)
        frames = []
        for left in self._joiner.end():
            frames += self._take(_ChoiceFrame(self._head, left.to_body(), b""), None)
        only_choice = len(self._logprobs) == self._upstream.request.drawn == 1
        for logprobs in self._logprobs.values():
            logprobs.check(self._usage if only_choice else None)
        usage = estimate_uncounted(
            self._usage or Usage(estimated=True),
            self._upstream,
            self._completion_tokens,
        )
        frames += [self._last_frame(*item) for item in self._endings.reasons.items()]
        self._held.clear()
        frame = b""
        if self._include_usage:
            document = self._frame(self._head, [], usage_body(self._counts, usage))
            document |= self._filter_results.take()
            if usage.estimated:
                document["usage_estimated"] = True
            frame = orjson.dumps(document)
        return [*frames, RawCompletion(frame, usage, 0)]

    @property
    def holds_text(self) -> bool:
        return any(held.has_text for held in self._held.values())

    def flush(self) -> Sequence[RawCompletion]:
        frames = [frame for index in self._held for frame in self._release(index)]
        # What was counted is paid for, also if the stream ends in an error.
        usage = self._usage
        return [*frames, RawCompletion(b"", usage, 0)] if usage else frames

    def _release(self, index: int) -> list[RawCompletion]:
        """The frame of a choice that is held, if it has text, without its reason."""
        held = self._held.get(index)
        if held is None or not held.has_text:
            return []
        choice = held.choice | {k: None for k in _REASONS if k in held.choice}
        held.choice = held.choice | _NO_TEXT
        held.tokens = 0
        frame = _ChoiceFrame(held.head, choice, held.data)
        return [self._encode(frame, self._running_counts)]

    def _last_frame(self, index: int, reason: str) -> RawCompletion:
        """The frame that ends a choice."""
        frame = self._held.get(index)
        if frame is None:
            frame = _ChoiceFrame(self._head, {"index": index, **_NO_TEXT}, b"", 0)
        frame.choice["finish_reason"] = reason
        return self._encode(frame, self._running_counts)

    @property
    def _running_counts(self) -> dict[str, Any] | None:
        return usage_body(self._counts, self._usage) if self._usage else None

    def _needs_no_repair(self, data: bytes) -> bool:
        """Whether *data* is a frame of a running choice to be passed as it is."""
        # Their tokens are in each frame, and each frame is checked.
        if self._has_logprobs:
            return False
        indices = _INDEX.findall(data)
        if len(indices) != 1 or int(indices[0]) not in self._endings.running:
            return False
        if not all(pattern.search(data) for pattern in self._patterns):
            return False
        # An error may come beside an otherwise complete frame.
        if b'"error"' in data:
            return False
        # `usage` has to be there, or not to be there, as the caller asked for it.
        pattern = _NULL_USAGE if self._include_usage else _USAGE
        if bool(pattern.search(data)) != self._include_usage:
            return False
        # Half of a character may need this frame's text. What only looks like JSON, or
        # needs a lenient reading, cannot go on as it is.
        return not self._joiner.halves and read_answer(data)[1]

    def _repair(self, data: bytes) -> list[RawCompletion]:
        """The frames that *data* stands for, each with one choice, or none."""
        document, is_json = read_answer(data)
        raise_in_band_error(document, self._counts)
        # What stands in a frame without choices goes on with the next that has some:
        # clients index the first choice of each.
        self._filter_results.hold(document)
        if not self._head and not (document.get("choices") or document.get("id")):
            # Azure's first frame, whose id and model are empty: it names no stream.
            document["choices"] = []
        elif not self._head:
            repair_head(document, self._upstream)
            self._head = {k: document[k] for k in _HEAD_KEYS if k in document}
            # From now on, frames with the same id and time need no repair of these.
            for key in ("id", "created"):
                value = re.escape(orjson.dumps(self._head[key]))
                pattern = re.compile(rb'"%b":\s?%b\s*[,}]' % (key.encode(), value))
                self._patterns += (pattern,)
        document.update(self._head)
        choices = document.pop("choices", None) or []
        if not isinstance(choices, list):
            raise UpstreamProtocol("the answer has no list of choices")
        # Running counts are totals, so the last ones count; zeros mean not counted.
        usage, counts = read_usage(document), document.pop("usage", None)
        document.pop("usage_estimated", None)
        if usage is None:
            counts = None
        else:
            self._usage = (self._usage or usage).updated(usage)
            self._counts |= counts
            counts = usage_body(counts, usage)
        number_choices(choices, self._upstream, whole=False)
        if not is_json:
            document = safe_json.in_whole_characters(document)
        frames: list[RawCompletion] = []
        for choice in choices:
            repair_choice(choice, self._upstream)
            # The text is the next of its choice: half of it may have come before.
            choice["text"] = self._joiner.feed(choice["index"], choice["text"])
            if not is_json:
                choice, data = safe_json.in_whole_characters(choice), b""
            self._repair_logprobs(choice)
            head = document | self._filter_results.take()
            frames += self._take(_ChoiceFrame(head, choice, data), counts)
        if self._joiner.halves:
            self._template = None
        return frames

    def _repair_logprobs(self, choice: dict[str, Any]) -> None:
        index = choice["index"]
        if index not in self._logprobs:
            self._logprobs[index] = ChoiceLogprobs(self._upstream, index)
        self._logprobs[index].repair(choice)

    def _take(self, frame: "_ChoiceFrame", counts: Any) -> list[RawCompletion]:
        """What goes on with *frame*: all but its finish reason, and what is held with
        that.
        """
        choice = frame.choice
        index, reason = choice["index"], choice["finish_reason"]
        self._endings.go_on(index, has_text=frame.has_text)
        self._completion_tokens += estimate(choice["text"])
        frames = self._release(index) if frame.has_text else []
        if not reason:
            return [*frames, self._encode(frame, counts)]
        self._template = None
        self._endings.hold(index, reason)
        if earlier := self._held.get(index):
            # What a server adds to a choice may stand in any of its last frames.
            text = {} if frame.has_text else {k: earlier.choice[k] for k in _NO_TEXT}
            frame.head = earlier.head | frame.head
            frame.choice = earlier.choice | choice | text
        self._held[index] = frame
        return frames + self._release(index) if self._endings.is_repeating else frames

    def _encode(self, frame: "_ChoiceFrame", counts: Any) -> RawCompletion:
        """*frame* as JSON: as it came, if that says the same in other spacing."""
        counts = counts if self._continuous_usage else None
        document = self._frame(frame.head, [frame.choice], counts)
        is_same = frame.data and document == read_object(frame.data)
        body = frame.data if is_same else orjson.dumps(document)
        return RawCompletion(body, None, frame.tokens)

    def _frame(
        self, head: dict[str, Any], choices: list[Any], counts: Any
    ) -> dict[str, Any]:
        frame = {**head, "choices": choices}
        if self._include_usage or counts:
            frame["usage"] = counts
        return frame


@dataclass(slots=True)
class _ChoiceFrame:
    """A frame of one choice: what stands beside it, and the choice. It came as *data*,
    maybe with others. It has about so many *tokens*.
    """

    head: dict[str, Any]
    choice: dict[str, Any]
    data: bytes
    # Nearly every server sends one token a frame.
    tokens: int = 1

    @property
    def has_text(self) -> bool:
        """Whether it has text, or the log probabilities of some."""
        logprobs = self.choice["logprobs"]
        has_tokens = isinstance(logprobs, dict) and bool(logprobs.get("tokens"))
        return bool(self.choice["text"]) or has_tokens


# A choice without text.
_NO_TEXT: dict[str, Any] = {"text": "", "logprobs": None}

# The fields of a choice that say why it ended; the second is vLLM's.
_REASONS = ("finish_reason", "stop_reason")
