"""The nodes of a config, and the caches of parsed texts and nodes."""

import pytest

from app.api.config import nodes
from app.api.config.nodes import ConfigNode
from app.core.text_cache import cached_by_text


def test_result_is_cached_by_text() -> None:
    calls = []

    @cached_by_text
    def make(text: str, more: int) -> str:
        calls.append((text, more))
        return text * more

    assert [make("a", 1), make("a", 1), make("a", 2)] == ["a", "a", "aa"]
    assert calls == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("text", ["wrong", "long" * 5000])
def test_failures_and_long_texts_are_not_cached(text: str) -> None:
    calls = []

    @cached_by_text
    def make(text: str) -> str:
        calls.append(text)
        if text == "wrong":
            raise ValueError
        return text

    for _ in range(2):
        try:
            make(text)
        except ValueError:
            pass

    assert calls == [text, text]


def test_stored_node_is_cached_by_identity() -> None:
    config = {"provider": "openai"}
    level = nodes.stored_node(config, True)

    assert nodes.stored_node(config, True) is level
    assert nodes.stored_node(config, False) is not level
    assert nodes.stored_node(dict(config), True) is not level


def test_node_repr_shows_no_key() -> None:
    own = {"provider": "openai", "api_key": "secret", "default_params": {"a": "secret"}}
    top = ConfigNode.of({**own, "targets": [own]}, strict=True)

    assert "secret" not in repr((top, top.below))


def test_node_identity_ignores_its_path() -> None:
    own = {"provider": "openai", "api_key": "a"}
    moved = ConfigNode.of({"targets": [{}, {**own, "weight": 2}]}, strict=True).below[1]
    level = ConfigNode.of(own, strict=True)

    assert level.identity("openai", None) == moved.identity("openai", None)
    assert level.identity("openai", "http://a") != level.identity("openai", None)
    assert ConfigNode.of({}, strict=True).identity("openai") != level.identity("openai")
