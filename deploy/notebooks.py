"""Runs the notebooks of docs/notebooks, cell by cell in one namespace, and keeps what they show.

    python -m deploy.notebooks        # `make notebooks`: runs them all and writes their outputs

A notebook is plain JSON, and its cells are plain Python. A Jupyter kernel would add nothing here
but a dozen packages. What is kept is what Jupyter shows: printed text, the value of the last
expression, and figures of matplotlib.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parents[1]
NOTEBOOKS = [HOUSE / "docs" / "notebooks" / f"{name}.ipynb" for name in ("own-files", "extremes")]


@contextmanager
def beside_the_house(directory: Path) -> Iterator[None]:
    """Work in an empty directory in which `deploy/` is found, as in a checkout."""
    before = Path.cwd()
    (directory / "deploy").symlink_to(HOUSE / "deploy")
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its cells have now.

    Raises:
        Whatever a cell raises, with a note of which cell it was.
    """
    namespace: dict[str, Any] = {"__name__": "notebook"}
    cells, number = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            number += 1
            try:
                outputs = _outputs("".join(cell["source"]), namespace, number)
            except Exception as error:
                error.add_note(f"in code cell {number}:\n{''.join(cell['source'])}")
                raise
            cell = {**cell, "execution_count": number, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _outputs(source: str, namespace: dict[str, Any], number: int) -> list[dict[str, Any]]:
    import matplotlib.pyplot as plt

    tree, value = ast.parse(source), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said, quiet = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(quiet):
        exec(compile(tree, f"<cell {number}>", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"<cell {number}>", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if said.getvalue():
        text = said.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    for figure in map(plt.figure, plt.get_fignums()):
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=72, metadata={"Software": None})
        image = base64.b64encode(stream.getvalue()).decode()
        outputs.append(
            {"output_type": "display_data", "metadata": {}, "data": {"image/png": image}}
        )
    plt.close("all")
    if value is not None and not _is_drawn(value):
        shown = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append(
            {"output_type": "execute_result", "metadata": {}, "data": shown,
             "execution_count": number}
        )  # fmt: skip
    return outputs


def _is_drawn(value: object) -> bool:
    """Whether it is part of a figure, which is kept as its picture."""
    return type(value).__module__.partition(".")[0] == "matplotlib"


def main() -> None:
    import matplotlib

    matplotlib.use("agg")
    with tempfile.TemporaryDirectory() as directory, beside_the_house(Path(directory)):
        for path in NOTEBOOKS:
            made = executed(json.loads(path.read_text(encoding="utf-8")))
            text = json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")
            print(f"{path.name}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
