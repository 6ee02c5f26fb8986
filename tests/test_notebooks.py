"""The notebooks of docs/ run from their first cell to their last, and show what is kept in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.notebooks import HOUSE, NOTEBOOKS, beside_the_house, executed
from deploy.site import page_of

matplotlib = pytest.importorskip("matplotlib")


def read(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """All notebooks, run one after the other: the second goes on with what the first has made."""
    matplotlib.use("agg")
    with beside_the_house(tmp_path_factory.mktemp("notebooks")):
        yield [executed(read(path)) for path in NOTEBOOKS]


def kinds(notebook: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """What each code cell shows: text, pictures, values."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [(cell["id"], [output["output_type"] for output in cell["outputs"]]) for cell in cells]


def test_every_notebook_is_run() -> None:
    assert sorted(NOTEBOOKS) == sorted((HOUSE / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.long
def test_notebooks_run_and_show_as_much_as_is_kept_in_them(run: list[dict[str, Any]]) -> None:
    for path, made in zip(NOTEBOOKS, run, strict=True):
        assert kinds(made) == kinds(read(path)), f"{path.name}: make notebooks"
        shown = [kind for _, several in kinds(made) for kind in several]
        assert "display_data" in shown and "execute_result" in shown


def test_a_cell_that_fails_is_named() -> None:
    cells = [{"cell_type": "code", "source": ["1 + 1"]}, {"cell_type": "code", "source": ["1 / 0"]}]
    with pytest.raises(ZeroDivisionError) as caught:
        executed({"cells": cells})
    assert "in code cell 2:\n1 / 0" in caught.value.__notes__


def test_the_site_has_text_code_values_and_pictures_of_a_notebook() -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('said')"
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": [code]},
        {"cell_type": "code", "source": ["6 * 7"]},
    ]
    page = page_of(executed({"cells": cells}))
    assert page.startswith("# Title\n") and "```python\n6 * 7\n```\n\n```text\n42\n```" in page
    assert "```text\nsaid\n```" in page and "(data:image/png;base64,iVBOR" in page
