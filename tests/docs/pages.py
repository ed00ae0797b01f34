"""Pages of Markdown as blocks, and their commands as steps to run."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

TYPED, READ = {"console", "sh", "python"}, {"json", "yaml"}
LOOKED_AT = {"", "text"}
MARKS = ("not run:", "with", "in")

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^>]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
_HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?")
_PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its position, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""

    @property
    def not_run(self) -> str | None:
        """The reason why it is not run."""
        return self.marked("not run:")

    def marked(self, word: str) -> str | None:
        """The text of the mark after *word*."""
        match = re.fullmatch(rf"{word} +(.*)", self.mark, re.S)
        return match and match[1]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Step:
    """A command. Without *shown* it has to succeed, whatever it prints."""

    block: Block
    command: str
    shown: str | None = None


def blocks(page: Path) -> list[Block]:
    return [*_blocks(page, page.read_text())]


def _blocks(page: Path, text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        yield Block(
            page=page,
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            text=textwrap.dedent(match["text"]),
            mark=match["mark"] or "",
        )


def steps(page: Path) -> list[Step]:
    """The commands of *page*, in order."""
    typed = (b for b in blocks(page) if b.language in TYPED and b.not_run is None)
    return [step for block in typed for step in _steps(block)]


def _steps(block: Block) -> Iterator[Step]:
    if block.language == "console":
        yield from _transcript(block)
    elif block.language == "python":
        yield Step(block, _script(block))
    else:
        yield Step(block, block.text)


def _script(block: Block) -> str:
    client, module = block.marked("with"), block.marked("in")
    python = f".venvs/{client}/bin/python" if client else "python"
    names = ""
    if module:
        names = f"from {module.removesuffix('.py').replace('/', '.')} import *\n"
    return f"{python} - <<'END_OF_SCRIPT'\n{names}{block.text}END_OF_SCRIPT\n"


def _transcript(block: Block) -> Iterator[Step]:
    lines = block.text.splitlines()
    assert lines[0].startswith(_PROMPT), f"{block}: begin with a command"
    while lines:
        command = _command(lines)
        until = (i for i, line in enumerate(lines) if line.startswith(_PROMPT))
        shown = lines[: next(until, len(lines))]
        del lines[: len(shown)]
        yield Step(block, command, "\n".join(shown))


def _command(lines: list[str]) -> str:
    """Remove the command at the head of *lines*, and return it."""
    typed = [lines.pop(0).removeprefix(_PROMPT)]
    while typed[-1].endswith("\\"):
        typed.append(lines.pop(0))
    if end := _HERE_DOCUMENT.search("\n".join(typed)):
        while typed[-1] != end[1]:
            typed.append(lines.pop(0))
    return "\n".join(typed) + "\n"


def alike(shown: str, printed: str) -> bool:
    """Whether *seen* matches what a page has *shown*, in which `...` matches anything.

    On a line of its own it matches any number of lines. Columns may be wider.
    """
    pattern = "".join(map(_pattern, _lines(shown)))
    return bool(re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(printed))))


def _lines(text: str) -> list[str]:
    return [re.sub("  +", "  ", line.rstrip()) for line in text.strip().splitlines()]


def _pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*?"
    return "[^\n]*".join(map(re.escape, line.split("..."))) + "\n"
