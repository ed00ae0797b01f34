"""Links of the documentation lead to existing files and headings."""

import re
from pathlib import Path

import pytest

from .pages import PAGES, ROOT

_FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINKS = {
    f"{page.name}: {link}": (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", page.read_text()))
    if "://" not in link
}


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and others form it."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("page, link", LINKS.values(), ids=LINKS)
def test_link_target_exists(page: Path, link: str) -> None:
    name, _, fragment = link.partition("#")
    path = page.parent / name if name else page
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M) if fragment else []

    assert path.exists()
    assert not fragment or fragment in map(anchor, headings)


def test_readme_links_every_page() -> None:
    linked = {link for page, link in LINKS.values() if page == ROOT / "README.md"}

    assert {f"docs/{page.name}" for page in PAGES[1:]} <= linked
