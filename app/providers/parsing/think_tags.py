"""What some models think aloud, in tags, before they answer.

Open models write `<think>...</think>` before the text that is meant for others, and not
every server takes it out. Source: https://github.com/deepseek-ai/DeepSeek-R1#usage
"""

_OPEN, _CLOSE = "<think>", "</think>"


class Thoughts:
    """Takes the thoughts out of a text in pieces; *found* says that there are some."""

    def __init__(self) -> None:
        self.found = False
        self._held = ""
        self._state = self._beginning

    def without(self, piece: str) -> str:
        """What *piece* adds to the text that is meant for others."""
        self._held += piece
        return self._state()

    def rest(self) -> str:
        """What was held back and has turned out to be text."""
        text, self._held = self._held, ""
        return text if self._state != self._thinking else ""

    def _beginning(self) -> str:
        start = self._held.lstrip()
        if start.startswith(_OPEN):
            self.found, self._held = True, start.removeprefix(_OPEN)
            self._state = self._thinking
        elif not _OPEN.startswith(start):
            self._state = self._speaking
        else:
            return ""
        return self._state()

    def _thinking(self) -> str:
        _, end, rest = self._held.partition(_CLOSE)
        if not end:
            self._held = self._held[-len(_CLOSE) :]
            return ""
        self._held = rest
        self._state = self._listening
        return self._state()

    def _listening(self) -> str:
        """The blank lines between a thought and the text belong to neither."""
        self._held = self._held.lstrip("\n")
        if not self._held:
            return ""
        self._state = self._speaking
        return self._state()

    def _speaking(self) -> str:
        text, self._held = self._held, ""
        return text
