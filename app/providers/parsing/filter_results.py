"""What Azure's filters of content say of prompts and texts.

A stream opens with a frame about the prompts, without choices, whose id and model are
empty; results of several prompts may come in several of them. Each choice has results
of its own: with the asynchronous filter in frames without text, which come as late as
behind the finish reason.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-streaming
"""

from collections.abc import Mapping
from typing import Any

# The second name is that of versions before 2023-07.
_PROMPT_FIELDS = ("prompt_filter_results", "prompt_annotations")

# The results of a choice, and which of its characters they are about.
_RESULTS, _OFFSETS = "content_filter_results", "content_filter_offsets"


def prompt_fields(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The results for prompts in a whole answer, or in a frame; None without any."""
    return {k: document[k] for k in _PROMPT_FIELDS if document.get(k)} or None


def choice_fields(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """The results in a choice of a whole answer, or of a frame; None without any."""
    return {k: choice[k] for k in (_RESULTS, _OFFSETS) if choice.get(k)} or None


class PromptFilterResults:
    """The results for the prompts of a stream, until a chunk takes them along."""

    def __init__(self) -> None:
        self._held: dict[str, Any] = {}

    def hold(self, document: dict[str, Any]) -> None:
        """Take out of *document* what it says, and add it to what is noted already."""
        for name in _PROMPT_FIELDS:
            results = document.pop(name, None)
            if isinstance(results, list) and isinstance(self._held.get(name), list):
                results = [*self._held[name], *results]
            if results:
                self._held[name] = results

    def take(self) -> dict[str, Any]:
        """What is noted, once."""
        held, self._held = self._held, {}
        return held


class ChoiceFilterResults:
    """The results for one choice of a chat, over all of its chunks."""

    __slots__ = ("_results", "_offsets")

    def __init__(self) -> None:
        self._results: dict[str, Any] = {}
        self._offsets: Any = None

    def note(self, choice: Mapping[str, Any]) -> None:
        """Add those of a chunk: of each category, the last one that says anything."""
        results = choice.get(_RESULTS)
        if not isinstance(results, dict):
            return
        for category, result in results.items():
            # What was filtered once, or found, stays so.
            if not _is_notable(self._results.get(category)) or _is_notable(result):
                self._results[category] = result
        self._offsets = choice.get(_OFFSETS) or self._offsets

    @property
    def fields(self) -> dict[str, Any] | None:
        """The fields of the choice, as Azure names them; None without any results."""
        if not self._results:
            return None
        offsets = {_OFFSETS: self._offsets} if self._offsets else {}
        return {_RESULTS: self._results, **offsets}


def _is_notable(result: Any) -> bool:
    return isinstance(result, dict) and bool(
        result.get("filtered") or result.get("detected")
    )
