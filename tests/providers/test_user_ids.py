"""Rules of providers for `user`: what breaks them is dropped and named."""

from typing import Any

import pytest

from app.providers.anthropic import takes_user_id

from . import harness

OPAQUE = [
    "u",
    "user-123456",
    "550e8400-e29b-41d4-a716-446655440000",
    "5d41402abc4b2a76b9719d911017c592",
    "12345678-1234-1234-1234-123456789012",
    "1234567890123456789",
    "123456",
    "a" * 256,
    "session_2026-11-27",
    "",
]
PERSONAL = [
    "ann@example.com",
    "Ann <ann@example.com>",
    "mailto:ann.lee+x@mail.example.co.uk",
    "user:ann@localhost",
    "+41446681800",
    "+1 (415) 555-2671",
    "tel:+49 30 901820",
    "(415) 555-2671",
    "415-555-2671",
    "4155552671",
    "030 901820",
    "é@example.org",
]
TOO_LONG = ["a" * 257, "é" * 300]

# Model and target of each endpoint that takes an id of Anthropic's.
ANTHROPIC: dict[str, dict[str, Any]] = {
    "anthropic": {"model": "claude-sonnet-4-5"},
    "vertex-ai": {"model": "anthropic.claude-sonnet-4-5"},
}


@pytest.mark.parametrize("user", OPAQUE)
def test_opaque_user_id_is_taken(user: str) -> None:
    assert takes_user_id(user)


@pytest.mark.parametrize("user", PERSONAL + TOO_LONG)
def test_personal_user_id_is_not_taken(user: str) -> None:
    assert not takes_user_id(user)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("provider", ANTHROPIC)
def test_personal_user_is_dropped_and_named(provider: str, stream: bool) -> None:
    asked: dict[str, Any] = ANTHROPIC[provider] | {"stream": stream}
    for user in (*PERSONAL, *TOO_LONG):
        assert harness.plan(provider, user=user, **asked).dropped == ["user"]
        assert "metadata" not in harness.body(provider, user=user, **asked)
    sent = harness.body(provider, user="u-1", **asked)

    assert sent["metadata"] == {"user_id": "u-1"}


def test_claude_on_bedrock_gets_no_user() -> None:
    asked = {"model": "anthropic.claude-sonnet-4-5-v1:0", "user": "ann@example.com"}

    assert harness.plan("bedrock", **asked).dropped == ["user"]
    assert "ann@" not in str(harness.body("bedrock", **asked))


@pytest.mark.parametrize(
    "provider, taken, refused",
    [
        ("deepseek", "ann_1-B", "ann@example.com"),
        ("deepseek", "a" * 512, "a" * 513),
        ("deepseek", "x", "é"),
        ("zhipu", "a" * 6, "a" * 5),
        ("z-ai", "a" * 128, "a" * 129),
        ("openai", "a" * 64, "a" * 65),
        ("azure-openai", "a" * 64, "a" * 65),
    ],
)
def test_users_outside_rules_are_dropped(
    provider: str, taken: str, refused: str
) -> None:
    to = {"via": "chat"}

    assert harness.plan(provider, to=to, user=taken).dropped == []
    assert harness.plan(provider, to=to, user=refused).dropped == ["user"]
