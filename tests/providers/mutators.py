"""Recorded streams, and the ways in which servers break them.

A recording becomes a list of events; a mutator changes the list, or how it is written.
Each mutator is a kind of fault that real servers have shown: see `MUTATORS`.
"""

import copy
import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.upstream import Answer, chunk, close, head, reset
from tests.wire.frames import frames

from .recordings import TEXT, ModeCase

# The pieces of TEXT, in which every recording streams it.
PIECES = (" Paris", " – of", " course.")

# What the gateway's providers name the reason for which a choice ends.
_REASON_KEYS = {"finish_reason", "finishReason"}
_CONTENT_TYPES = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".frames": "application/vnd.amazon.eventstream",
}


@dataclass
class StreamEvent:
    """One event: its name if any, and its data, which is JSON where it can be."""

    name: str
    data: Any
    is_json: bool = True


@dataclass
class StreamedAnswer:
    """A streamed answer that can be mutated, and what a reader should make of it.

    *texts* are those of its choices. *format* is the suffix of the recording; *cut* is
    the number of bytes after which the connection ends, by *cut_by*.
    """

    format: str
    events: list[StreamEvent]
    texts: list[str] = field(default_factory=lambda: [TEXT])
    content_type: str = ""
    sentinel: bytes = b"[DONE]"
    is_compressed: bool = False
    has_mark: bool = False
    ends_with_blank_line: bool = True
    cut: int | None = None
    cut_by: Callable[..., None] | None = None

    @classmethod
    def of(cls, case: ModeCase) -> "StreamedAnswer":
        """The recording of *case*."""
        (file,) = case.folder.glob("stream.*")
        parse = _sse_events if file.suffix == ".sse" else _line_events
        return cls(file.suffix, list(parse(file.read_text())))

    def body(self) -> bytes:
        """Its bytes, before compression and cuts."""
        write = {".sse": self._sse, ".ndjson": self._lines, ".frames": self._frames}
        body = write[self.format]()
        return b"\xef\xbb\xbf" * self.has_mark + body

    def answer(self, random_cuts: random.Random) -> Answer:
        """What an upstream sends, in chunks that begin and end anywhere."""
        body = self.body()
        coding = []
        if self.is_compressed:
            body, coding = gzip.compress(body), ["Content-Encoding: gzip"]
        type_header = self.content_type or _CONTENT_TYPES[self.format]
        typed = [] if type_header == "none" else [f"Content-Type: {type_header}"]
        opening = head(200, *typed, *coding, "Transfer-Encoding: chunked")
        sent = body if self.cut is None else body[: self.cut % len(body)]
        pieces = map(chunk, _cut_anywhere(sent, random_cuts))
        if self.cut is not None and self.cut_by:
            # Without a pause, a reset would also discard what was sent before it.
            return [opening, *pieces, 0.02, self.cut_by]
        return [opening, *pieces, b"0\r\n\r\n"]

    def _sse(self) -> bytes:
        written = []
        for event in self.events:
            data = json.dumps(event.data) if event.is_json else event.data
            data = self.sentinel.decode() if data == "[DONE]" else data
            name = f"event: {event.name}\n" if event.name else ""
            written.append(f"{name}data: {data}\n\n".encode())
        body = b"".join(written)
        return body if self.ends_with_blank_line else body.rstrip(b"\n")

    def _lines(self) -> bytes:
        lines = (
            json.dumps(event.data) if event.is_json else event.data
            for event in self.events
        )
        body = "".join(f"{line}\n" for line in lines).encode()
        return body if self.ends_with_blank_line else body.rstrip(b"\n")

    def _frames(self) -> bytes:
        return frames("\n".join(json.dumps(event.data) for event in self.events))


def _sse_events(recorded: str) -> Iterator[StreamEvent]:
    for block in recorded.strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "data" in fields:
            name, data = fields.get("event", ""), fields["data"]
            is_json = data != "[DONE]"
            yield StreamEvent(name, json.loads(data) if is_json else data, is_json)


def _line_events(recorded: str) -> Iterator[StreamEvent]:
    for line in recorded.splitlines():
        if line:
            yield StreamEvent("", json.loads(line))


def _cut_anywhere(body: bytes, random_cuts: random.Random) -> Iterator[bytes]:
    cuts = sorted(random_cuts.randrange(len(body) + 1) for _ in range(4))
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        if start < end:
            yield body[start:end]


def leaves(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Each leaf of a JSON value: what holds it, its key there, and itself."""
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in list(pairs):
        if isinstance(inner, (dict, list)):
            yield from leaves(inner)
        else:
            yield value, key, inner


def texts_in(answer: StreamedAnswer) -> dict[str, list[tuple[Any, Any]]]:
    """Where each piece of the text stands: holder and key. Some servers send a text in
    two shapes at once.
    """
    places: dict[str, list[tuple[Any, Any]]] = {piece: [] for piece in PIECES}
    for event in answer.events:
        for holder, key, value in leaves(event.data):
            if value in PIECES and key != "token":
                places[value].append((holder, key))
    assert all(places.values())
    return places


def choices_in(event: StreamEvent) -> list[dict[str, Any]]:
    """The choices of an event of OpenAI's or Google's shape; none of any other."""
    if not isinstance(event.data, dict):
        return []
    choices = event.data.get("choices") or event.data.get("candidates") or []
    return [choice for choice in choices if isinstance(choice, dict)]


# Mutators. They change an answer in place, with random choices, and return whether it
# can be changed in that way at all.

Mutator = Callable[[StreamedAnswer, random.Random], bool]


def repeat_reason(answer: StreamedAnswer, choose: random.Random) -> bool:
    """The reason stands on every event, from the first on."""
    key, reason = _reason(answer)
    for event in answer.events:
        for choice in choices_in(event):
            choice[key] = reason
    return bool(reason)


def late_text(answer: StreamedAnswer, choose: random.Random) -> bool:
    """The reason comes before text: with an event of no text, or with some text."""
    key, reason = _reason(answer)
    if not reason:
        return False
    for number in range(len(answer.texts)):
        choices = [
            choice
            for event in answer.events
            for choice in choices_in(event)
            if choice.get("index", 0) == number
        ]
        for choice in choices:
            choice[key] = None
        choose.choice(choices[:-1] or choices)[key] = reason
    return True


def blanks_in_sentinel(answer: StreamedAnswer, choose: random.Random) -> bool:
    answer.sentinel = choose.choice([b"[DONE] ", b" [DONE]", b" [DONE]  ", b"\t[DONE]"])
    return any(event.data == "[DONE]" for event in answer.events)


def missing_blank_line(answer: StreamedAnswer, choose: random.Random) -> bool:
    answer.ends_with_blank_line = False
    return answer.format != ".frames"


def wrong_type(answer: StreamedAnswer, choose: random.Random) -> bool:
    types = ["application/json", "text/plain", "application/octet-stream", "none"]
    if answer.format == ".sse":
        types += ["Text/Event-Stream", "text/event-stream;charset=UTF-8"]
    answer.content_type = choose.choice(types)
    return answer.format != ".frames"


def compressed(answer: StreamedAnswer, choose: random.Random) -> bool:
    answer.is_compressed = True
    return True


def half_characters(answer: StreamedAnswer, choose: random.Random) -> bool:
    """A character outside the BMP is cut in two: one half in each of two events."""
    places = texts_in(answer)
    i = choose.choice([0, 1])
    text, next_text = PIECES[i], PIECES[i + 1]
    for holder, key in places[text]:
        holder[key] = text + "\ud83d"
    for holder, key in places[next_text]:
        holder[key] = "\ude00" + next_text
    answer.texts = [t.replace(text, text + "\N{GRINNING FACE}") for t in answer.texts]
    return True


def infinities(answer: StreamedAnswer, choose: random.Random) -> bool:
    """Numbers that are no JSON, in a field that means nothing to us."""
    number = float(choose.choice(["inf", "-inf", "nan"]))
    for event in answer.events:
        if isinstance(event.data, dict):
            # AWS' frames are described, and some wrap another document.
            document = event.data.get("payload", event.data)
            document = document.get("json", document)
            document["score"] = number
    return True


def byte_order_mark(answer: StreamedAnswer, choose: random.Random) -> bool:
    answer.has_mark = True
    return answer.format != ".frames"


def missing_usage_parts(answer: StreamedAnswer, choose: random.Random) -> bool:
    """Counts are absent, null, zero or fractions."""
    counts = [
        (holder, key)
        for event in answer.events
        for holder, key, value in leaves(event.data)
        if "token" in str(key).lower() and type(value) is int
    ]
    for holder, key in counts:
        _change_count(holder, key, choose)
    return bool(counts)


def _change_count(holder: Any, key: Any, choose: random.Random) -> None:
    change = choose.choice(["keep", "remove", "null", "zero", "float", "text"])
    if change == "remove":
        del holder[key]
    elif change != "keep":
        count = holder[key]
        changed = {"null": None, "zero": 0, "float": float(count), "text": str(count)}
        holder[key] = changed[change]


def extra_events(answer: StreamedAnswer, choose: random.Random) -> bool:
    """Events without meaning, anywhere; one end more behind the end."""
    if answer.format == ".frames":
        return False
    if answer.format == ".ndjson":
        extra = [StreamEvent("", "", False), StreamEvent("", "  ", False)]
    else:
        extra = [
            StreamEvent("", "", False),
            StreamEvent("ping", "", False),
            StreamEvent("", " ", False),
        ]
    for _ in range(choose.randrange(1, 4)):
        at = choose.randrange(len(answer.events) + 1)
        answer.events.insert(at, choose.choice(extra))
    if answer.format == ".sse":
        end = StreamEvent("", "[DONE]", False)
        answer.events += [end] * choose.randrange(3)
    return True


# Faults after which an answer is not to be taken for whole, unless it is.


def truncated(answer: StreamedAnswer, choose: random.Random) -> bool:
    """The body ends anywhere: regularly, by a close, or by a reset."""
    answer.cut = choose.randrange(10**6)
    answer.cut_by = choose.choice([None, close, reset])
    return True


def dropped_end(answer: StreamedAnswer, choose: random.Random) -> bool:
    """A choice has no end, or stops anywhere: its last events never come.

    Of a single choice, whose server may be one that sends no reasons, `[DONE]` does not
    come either.
    """
    number = choose.randrange(len(answer.texts))
    events = [
        (i, choice)
        for i, event in enumerate(answer.events)
        for choice in choices_in(event)
        if choice.get("index", 0) == number
    ]
    if not events:
        return False
    kept = choose.randrange(len(events))
    for _, choice in events[kept:]:
        choice["dropped"] = True
    for event in answer.events:
        for key in ("choices", "candidates"):
            if isinstance(event.data, dict) and event.data.get(key):
                rest = [c for c in event.data[key] if "dropped" not in c]
                if not rest:
                    event.is_json, event.data = False, ""
                    break
                event.data[key] = rest
    if len(answer.texts) == 1:
        answer.events = [event for event in answer.events if event.data != "[DONE]"]
    return True


def _reason(answer: StreamedAnswer) -> tuple[str, str]:
    """The key and the value of the reason; empty in a shape that has no choices."""
    for event in answer.events:
        for choice in choices_in(event):
            for key in _REASON_KEYS & set(choice):
                if choice[key]:
                    return key, choice[key]
    return "", ""


# After these an answer is as whole as before.
MUTATORS: dict[str, Mutator] = {
    "reason repeated": repeat_reason,
    "text behind the reason": late_text,
    "blanks in the sentinel": blanks_in_sentinel,
    "no last blank line": missing_blank_line,
    "wrong content type": wrong_type,
    "compressed": compressed,
    "half characters": half_characters,
    "infinities": infinities,
    "byte order mark": byte_order_mark,
    "missing usage parts": missing_usage_parts,
    "extra events": extra_events,
}

# After these it may not be.
FAULTS: dict[str, Mutator] = {"truncated": truncated, "end dropped": dropped_end}


def with_choices(answer: StreamedAnswer, count: int) -> StreamedAnswer:
    """The same answer with *count* choices, in OpenAI's shape."""
    events: list[StreamEvent] = []
    for event in answer.events:
        if not choices_in(event):
            events.append(event)
            continue
        for number in range(count):
            data = json.loads(json.dumps(event.data))
            for choice in data["choices"]:
                choice["index"] = number
            events.append(replace(event, data=data))
    return replace(answer, events=events, texts=[TEXT] * count)


def mutated(
    answer: StreamedAnswer, names: Iterable[str], choose: random.Random
) -> StreamedAnswer:
    """The answer after all of these mutators that can change it."""
    for name in names:
        changed = copy.deepcopy(answer)
        if MUTATORS[name](changed, choose):
            answer = changed
    return answer


# Whole answers


@dataclass
class WholeAnswer:
    """A whole answer that can be mutated, and what a reader should make of it."""

    document: Any
    texts: list[str] = field(default_factory=lambda: [TEXT])
    content_type: str = "application/json"
    is_compressed: bool = False
    has_mark: bool = False
    is_truncated: bool = False

    @classmethod
    def of(cls, case: ModeCase) -> "WholeAnswer":
        """The recording of *case*."""
        return cls(json.loads(case.whole))

    def answer(self, random_cuts: random.Random) -> Answer:
        """What an upstream sends, in chunks that begin and end anywhere."""
        body = b"\xef\xbb\xbf" * self.has_mark + json.dumps(self.document).encode()
        if self.is_truncated:
            body = body[: random_cuts.randrange(len(body))]
        coding = []
        if self.is_compressed:
            body, coding = gzip.compress(body), ["Content-Encoding: gzip"]
        type_header = f"Content-Type: {self.content_type}"
        opening = head(200, type_header, *coding, "Transfer-Encoding: chunked")
        pieces = map(chunk, _cut_anywhere(body, random_cuts))
        return [opening, *pieces, b"0\r\n\r\n"]


WholeMutator = Callable[[WholeAnswer, random.Random], bool]


def whole_wrong_type(answer: WholeAnswer, choose: random.Random) -> bool:
    types = ["text/plain", "text/html", "application/octet-stream", "text/event-stream"]
    answer.content_type = choose.choice(types)
    return True


def whole_compressed(answer: WholeAnswer, choose: random.Random) -> bool:
    answer.is_compressed = True
    return True


def whole_mark(answer: WholeAnswer, choose: random.Random) -> bool:
    answer.has_mark = True
    return True


def whole_infinities(answer: WholeAnswer, choose: random.Random) -> bool:
    number = float(choose.choice(["inf", "-inf", "nan"]))
    for holder, _, value in leaves(answer.document):
        if value == TEXT and isinstance(holder, dict):
            holder["score"] = number
    return True


def whole_half_character(answer: WholeAnswer, choose: random.Random) -> bool:
    """The text ends within a character outside the BMP, or within its bytes."""
    for holder, key, value in leaves(answer.document):
        if value == TEXT:
            holder[key] = value + choose.choice(["\ud83d", "\ude00"])
    answer.texts = [TEXT + "\N{REPLACEMENT CHARACTER}"]
    return True


def whole_missing_usage_parts(answer: WholeAnswer, choose: random.Random) -> bool:
    counts = [
        (holder, key)
        for holder, key, value in leaves(answer.document)
        if "token" in str(key).lower() and type(value) is int
    ]
    for holder, key in counts:
        _change_count(holder, key, choose)
    return bool(counts)


def whole_without_reason(answer: WholeAnswer, choose: random.Random) -> bool:
    reasons = [
        (holder, key)
        for holder, key, _ in leaves(answer.document)
        if key in _REASON_KEYS
    ]
    for holder, key in reasons:
        holder[key] = choose.choice(["", None])
    return bool(reasons)


WHOLE_MUTATORS: dict[str, WholeMutator] = {
    "wrong content type": whole_wrong_type,
    "compressed": whole_compressed,
    "byte order mark": whole_mark,
    "infinities": whole_infinities,
    "half character": whole_half_character,
    "missing usage parts": whole_missing_usage_parts,
    "no reason": whole_without_reason,
}


def whole_with_choices(answer: WholeAnswer, texts: list[str]) -> WholeAnswer:
    """The same answer with a choice for each of *texts*, in OpenAI's shape."""
    written = json.dumps(answer.document["choices"][0])
    choices = []
    for number, text in enumerate(texts):
        choice = json.loads(written)
        for holder, key, value in leaves(choice):
            if value == TEXT:
                holder[key] = text
        choices.append(choice | {"index": number})
    return replace(answer, document=answer.document | {"choices": choices}, texts=texts)
