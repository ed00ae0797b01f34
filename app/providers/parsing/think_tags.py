"""Reasoning that a model writes in tags before its answer.

Open models write `<think>...</think>` before the text that is meant for others, and not
every server takes it out. Source: https://github.com/deepseek-ai/DeepSeek-R1#usage
"""

from enum import Enum, auto

_OPEN, _CLOSE = "<think>", "</think>"


class _State(Enum):
    START = auto()  # an opening tag may come
    REASONING = auto()
    SPACE = auto()  # blank lines after the closing tag, which belong to neither


class ThinkTagFilter:
    """Takes the reasoning out of a text in pieces. *has_reasoning* is true once an
    opening tag was read, *is_over* once all that follows is the answer's.
    """

    def __init__(self) -> None:
        self.has_reasoning = self.is_over = False
        self._held = ""
        self._state = _State.START

    def feed(self, piece: str) -> str:
        """What *piece* adds to the answer. May hold back the beginning of a tag."""
        if self.is_over:
            return piece
        self._held += piece
        if self._state is _State.START:
            # Only at the very start: behind other text a tag is part of that, as when
            # a model explains such tags.
            start = self._held.lstrip()
            if start.startswith(_OPEN):
                self.has_reasoning, self._held = True, start.removeprefix(_OPEN)
                self._state = _State.REASONING
            elif _OPEN.startswith(start):
                return ""
            else:
                self.is_over = True
        if self._state is _State.REASONING:
            _, end, rest = self._held.partition(_CLOSE)
            if not end:
                # Enough to recognise a closing tag that is cut in two. The reasoning
                # itself, which may be long, is not kept.
                self._held = self._held[-len(_CLOSE) :]
                return ""
            self._held, self._state = rest, _State.SPACE
        if self._state is _State.SPACE:
            self._held = self._held.lstrip("\n")
            if not self._held:
                return ""
            self.is_over = True
        text, self._held = self._held, ""
        return text

    def end(self) -> str:
        """What was held back and is part of the answer after all."""
        text, self._held = self._held, ""
        return "" if self._state is _State.REASONING else text
