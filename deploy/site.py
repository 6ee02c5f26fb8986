"""What mkdocs.yml leaves to Python: all decisions in the navigation, formulas as MathML.

Browsers draw MathML by themselves, so the site asks nobody for a script.
"""

import html
import re
from pathlib import Path
from typing import Any

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+[A-Z]+\.md\)")  # pages that are no part of the site


def on_config(config: Any) -> Any:
    """Every page of docs/decisions, in order, below Explanation."""
    pages = sorted(Path(config["docs_dir"], "decisions").glob("*.md"))
    listed = [{_title(page): f"decisions/{page.name}"} for page in pages]
    (explanation,) = (one["Explanation"] for one in config["nav"] if "Explanation" in one)
    explanation.append({"Decisions": listed})
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    return OUTSIDE.sub(r"\1", markdown)


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(lambda found: mathml(found[2], block=found[1] == "div"), content)


def mathml(given: str, *, block: bool) -> str:
    """A formula of the page, which Markdown has in \\(...\\) or \\[...\\]."""
    from latex2mathml.converter import convert

    text = html.unescape(given).strip().removeprefix("\\(").removesuffix("\\)")
    text = text.removeprefix("\\[").removesuffix("\\]").strip()
    made: str = convert(text, display="block" if block else "inline")
    return made


def _title(page: Path) -> str:
    first = next(line for line in page.read_text(encoding="utf-8").splitlines() if line)
    return first.removeprefix("# ")
