"""Finds stop sequences in a text that comes in pieces.

The automaton of Aho and Corasick: each character costs the same, however many sequences
there are and however long, so that a stream cannot be slowed down by them. Its state is
the longest end of the text that begins a sequence: that much may have to be held back.

Source: https://doi.org/10.1145/360825.360855
"""

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache


class StopAutomaton:
    """The automaton of some sequences. State 0 is its start.

    *depths* has the length of the beginning that each state stands for, *matches* the
    length of the longest sequence that is complete there, or 0.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        edges: list[dict[str, int]] = [{}]
        self.depths = [0]
        self.matches = [0]
        for sequence in sequences:
            state = 0
            for char in sequence:
                following = edges[state].get(char)
                if following is None:
                    following = edges[state][char] = len(edges)
                    edges.append({})
                    self.depths.append(self.depths[state] + 1)
                    self.matches.append(0)
                state = following
            self.matches[state] = len(sequence)
        self._edges = edges
        # Where to go on if no edge fits: the longest end that is a beginning, too.
        self._fallbacks = [0] * len(edges)
        self._link_fallbacks()
        # From the start, all characters but these lead back to it.
        starts = "".join(map(re.escape, edges[0]))
        self._start = re.compile(f"[{starts}]")

    def _link_fallbacks(self) -> None:
        # By depth: the fallback of a state is nearer to the start.
        queue = deque(self._edges[0].values())
        while queue:
            state = queue.popleft()
            shorter = self._fallbacks[state]
            self.matches[state] = self.matches[state] or self.matches[shorter]
            for char, following in self._edges[state].items():
                self._fallbacks[following] = self._next(shorter, char)
                queue.append(following)

    def _next(self, state: int, char: str) -> int:
        edges, fallbacks = self._edges, self._fallbacks
        while state and char not in edges[state]:
            state = fallbacks[state]
        return edges[state].get(char, 0)

    def read(self, state: int, text: str) -> tuple[int, int, int]:
        """The state behind *text*, from *state* on, or behind the first sequence that
        it completes; how many characters that are, and the length of the sequence.
        """
        edges, matches = self._edges, self.matches
        position, end = 0, len(text)
        while position < end:
            if not state:
                match = self._start.search(text, position)
                if match is None:
                    return 0, end, 0
                position = match.start()
            char = text[position]
            position += 1
            following = edges[state].get(char)
            state = self._next(state, char) if following is None else following
            if matches[state]:
                return state, position, matches[state]
        return state, end, 0


# For the choices and calls of a request: one may have a thousand of them.
@lru_cache(8)
def _automaton(sequences: tuple[str, ...]) -> StopAutomaton:
    return StopAutomaton(sequences)


class StopMatcher:
    """Looks for *sequences* in the pieces of one text.

    *held* is the number of characters at the end of the text so far that may begin a
    sequence, and *length* the length of the text before the first one, once that is
    complete. With overlapping sequences it is the one that was complete first, and of
    several that end together the longest.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._automaton = _automaton(tuple(sequences))
        self._state = self._read = 0
        self.length: int | None = None

    def feed(self, text: str) -> None:
        """Read the next piece. Nothing is to be fed once a sequence is complete."""
        self._state, count, matched = self._automaton.read(self._state, text)
        self._read += count
        if matched:
            self.length = self._read - matched

    @property
    def held(self) -> int:
        return self._automaton.depths[self._state]
