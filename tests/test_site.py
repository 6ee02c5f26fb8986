"""The pages of docs/: links lead somewhere, every command and call is there, the site is built."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

import spherescore
from flows.cli.parser import parser
from tests import browser

HOUSE = Path(__file__).parent.parent
DOCS = HOUSE / "docs"
PAGES = [HOUSE / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as sites make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()).strip() for head in heads)
    return {re.sub(r"[ -]+", "-", head) for head in plain}


def broken(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    found = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda one: str(one.relative_to(HOUSE)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_every_command_and_every_call_is_on_its_page() -> None:
    top = parser()
    commands = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    page = (DOCS / "commands.md").read_text()
    assert [name for name in commands if f"`spherescore {name} " not in page] == []
    python = (DOCS / "python.md").read_text()
    calls = [name for name in spherescore.__all__ if name != "SpherescoreBackend"]
    assert [name for name in calls if f"`{name}(" not in python] == []


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len((HOUSE / "README.md").read_text().splitlines()) <= 90


def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="`make test` installs it")
    pytest.importorskip("material", reason="`make test` installs it")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(HOUSE / "mkdocs.yml"), site_dir=str(tmp_path))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)  # strict: a warning ends it
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    for page in pages:
        text = page.read_text()
        assert re.findall(r'<(?:script|img|link)[^>]* (?:src|href)="(https?:[^"]+)"', text) == []
    assert "<math" in (tmp_path / "mathematics.html").read_text()
    assert "autoregression" in (tmp_path / "search" / "search_index.js").read_text()
    _searched(tmp_path)


def _searched(site: Path) -> None:
    """A browser finds a word in the site as it lies on the disk, and asks nobody."""
    if browser.found() is None:
        return
    with browser.tab(site / "profile") as tab:
        tab.open(f"file://{site}/index.html")
        tab.wait_for("!!document.querySelector('[data-md-component=search-query]')")
        tab.js("document.querySelector('#__search').click()")
        tab.js("document.querySelector('[data-md-component=search-query]').focus()")
        tab("insertText", "Input", text="autoregression")
        tab.wait_for("document.querySelectorAll('.md-search-result__item').length")
        assert [one for one in tab.asked if not one.startswith(("file:", "data:", "blob:"))] == []
