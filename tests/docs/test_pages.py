"""Every page, run as a reader would follow it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import Script
from tests.e2e.server import Server, eventually
from tests.upstream import Answer, ReceivedRequest, whole

from .pages import (
    LOOKED_AT,
    MARKS,
    PAGES,
    READ,
    ROOT,
    TYPED,
    Step,
    alike,
    blocks,
    steps,
)
from .shell import ADDRESS, clone, typed

BLOCKS = [block for page in PAGES for block in blocks(page)]
FOLLOWED = [page for page in PAGES if steps(page)]
WIRE = Path(__file__).parents[1] / "wire"

# The share of commands that may be skipped.
LEFT_OUT = 0.25

pytestmark = pytest.mark.e2e


def answer(request: ReceivedRequest) -> Answer:
    """A provider's answer to a request of any mode."""
    kind = "legacy"
    if "messages" in request.path:
        kind = "anthropic"
    elif "chat" in request.path:
        kind = "chat"
    return whole((WIRE / kind / "whole.json").read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clone(tmp_path)


@pytest.fixture
def gateway(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server | None]:
    """The gateway of the page, if it has one.

    A page that stores something has its own, which applies changes at once.
    """
    page: Path = request.param
    if not typed_on(page, ADDRESS):
        yield None
        return
    if not typed_on(page, "flask "):
        yield request.getfixturevalue("engine")
        return
    server = Server(
        GATEWAY_ENGINE="1",
        GATEWAY_INSTANCE=str(folder / "instance"),
        GATEWAY_STORE_TTL="0.0001",
        # The tutorial's host, and the scripted one in place of all providers.
        GATEWAY_TRUSTED_CUSTOM_HOSTS="127.0.0.1",
        WEB_CONCURRENCY="1",
    )
    eventually(lambda: "Try it" in server.log_text, 30)
    yield server
    server.stop()


def typed_on(page: Path, text: str) -> bool:
    return any(text in step.command for step in steps(page))


@pytest.mark.parametrize(
    "page, gateway",
    [(page, page) for page in FOLLOWED],
    ids=[page.stem for page in FOLLOWED],
    indirect=["gateway"],
)
def test_page_shows_real_output(
    page: Path, gateway: Server | None, folder: Path, script: Script
) -> None:
    done = steps(page)
    log = folder / "gateway.log"
    log.write_text(gateway.log_text if gateway else "")
    printed = typed(
        done,
        folder.parent if typed_on(page, "git clone") else folder,
        gateway.port if gateway else 8787,
        UPSTREAM=script(answer).url,
        GATEWAY_LOG=str(log),
        OPENAI_API_KEY="sk-of-the-test",
        ANTHROPIC_API_KEY="sk-of-the-test",
    )

    problems = [
        text for pair in zip(done, printed, strict=False) for text in differences(*pair)
    ]
    assert not problems, "\n\n".join(problems)
    assert len(printed) == len(done), f"the shell ended at {done[len(printed)].block}"


def differences(step: Step, printed: str) -> Iterator[str]:
    """The differences between a step's output and the page."""
    location = f"{step.block}\n$ {step.command}"
    if step.shown is None and not printed.endswith("status 0"):
        yield f"{location}failed:\n{printed}"
    if step.shown is not None and not alike(step.shown, printed):
        yield f"{location}shows:\n{step.shown}\nand prints:\n{printed}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in READ], ids=str)
def test_data_blocks_are_parseable(block) -> None:
    if block.language == "json":
        assert json.loads(block.text)
    else:
        assert [*yaml.safe_load_all(block.text)]


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.mark], ids=str)
def test_block_comment_is_valid_mark(block) -> None:
    """A mark with a reason: the comment says why the block is an exception."""
    assert any(block.marked(word) for word in MARKS)


def test_blocks_run_or_give_reason() -> None:
    unknown = [b for b in BLOCKS if b.language not in TYPED | READ | LOOKED_AT]

    assert [str(block) for block in unknown if block.not_run is None] == []


def test_few_commands_are_skipped() -> None:
    typable = [block for block in BLOCKS if block.language in TYPED]
    missing = {str(b): b.not_run for b in typable if b.not_run is not None}

    assert len(missing) <= LEFT_OUT * len(typable), missing


def test_tutorial_begins_with_git_clone() -> None:
    first, *others = steps(ROOT / "docs" / "tutorial.md")

    assert first.command.startswith("git clone ")
    assert not any("git clone" in step.command for step in others)


@pytest.mark.parametrize(
    "expected, actual, same",
    [
        ("a\nb", "a\nb", True),
        ("a\n...\nz", "a\nz", True),
        ("a\n...\nz", "a\n1\n2\nz", True),
        ("id ...!", "id 12!", True),
        ("id ...", "id 1\n2", False),
        ("a", "a\nb", False),
        ("", "error", False),
    ],
)
def test_ellipsis_matches_any_text(expected: str, actual: str, same: bool) -> None:
    assert alike(expected, actual) is same
