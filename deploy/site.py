"""What mkdocs.yml leaves to Python: all decisions in the navigation, formulas as MathML, notebooks
as pages.

Browsers draw MathML by themselves, so the site asks nobody for a script.
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+[A-Z]+\.md\)")  # pages that are no part of the site

NOTEBOOK = re.compile(r"\]\(((?:notebooks/)?[\w-]+)\.ipynb")  # has a page of its own on the site


def on_config(config: Any) -> Any:
    """Every page of docs/decisions, in order, below Explanation."""
    pages = sorted(Path(config["docs_dir"], "decisions").glob("*.md"))
    listed = [{_title(page): f"decisions/{page.name}"} for page in pages]
    (explanation,) = (one["Explanation"] for one in config["nav"] if "Explanation" in one)
    explanation.append({"Decisions": listed})
    return config


def on_files(files: Any, config: Any) -> Any:
    """A page for each notebook, with the outputs that are kept in it."""
    from mkdocs.structure.files import File

    for path in sorted(Path(config["docs_dir"]).glob("notebooks/*.ipynb")):
        text = page_of(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


def page_of(notebook: Mapping[str, Any]) -> str:
    """A notebook as Markdown."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _parts(cell)) + "\n"


def _parts(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![what the cell draws](data:image/png;base64,{data['image/png'].strip()})"
        else:
            text = "".join(output.get("text") or data["text/plain"]).rstrip("\n")
            yield f"```text\n{text}\n```"


def on_page_markdown(markdown: str, **_: Any) -> str:
    return NOTEBOOK.sub(r"](\1.md", OUTSIDE.sub(r"\1", markdown))


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
