"""Characters that come in two pieces: half of a surrogate pair in one event of a
stream, the other half in a later one.

Servers in JavaScript, Java and C# cut texts between UTF-16 code units, and escape what
is left of a character: `"\\ud83d"`. A half is held back until the next text of its
choice comes. One without a counterpart becomes U+FFFD.

Source: https://www.rfc-editor.org/rfc/rfc8259#section-8.2
"""

from dataclasses import replace

from ... import safe_json
from ...core.completion import Choice, Completion


class CharacterJoiner:
    """Joins the texts of one stream. *halves* are held back, by the index of their
    choice.
    """

    def __init__(self) -> None:
        self.halves: dict[int, str] = {}

    def feed(self, index: int, text: str) -> str:
        """*text*, the next of the choice at *index*, in whole characters."""
        text = self.halves.pop(index, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self.halves[index] = text[-1]
            text = text[:-1]
        return safe_json.whole_characters(text)

    def feed_chunk(self, chunk: Completion) -> Completion:
        """*chunk* with its texts in whole characters."""
        choices = (
            replace(choice, text=self.feed(choice.index, choice.text))
            for choice in chunk.choices
        )
        return replace(chunk, choices=tuple(choices))

    def end(self) -> tuple[Choice, ...]:
        """What is left when the stream ends."""
        halves, self.halves = self.halves, {}
        return tuple(
            Choice(safe_json.whole_characters(half), index)
            for index, half in halves.items()
        )


def in_whole_characters(answer: Completion) -> Completion:
    """The whole *answer* with its texts in whole characters."""
    choices = (
        replace(choice, text=safe_json.whole_characters(choice.text))
        for choice in answer.choices
    )
    return replace(answer, choices=tuple(choices))
