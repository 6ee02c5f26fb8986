"""The stages are listed once, in flows/stages/base; what is said of each elsewhere is of all."""

import ast
from pathlib import Path

from flows.deployments.ui import pages as ui_pages
from flows.stages import content_keys
from flows.stages.base import STAGES

NAMES = [stage.name for stage in STAGES]
FLOWS = Path(__file__).parents[3] / "flows"


def test_what_is_said_of_stages_is_said_of_all() -> None:
    assert list(ui_pages._ROWS) == NAMES
    for table in (content_keys.SCHEMAS, content_keys._KEYS):
        assert list(table) == [*NAMES, "condition"]  # which is drawn on request


def test_no_list_of_the_stages_is_written_again() -> None:
    """In a tuple, a list, a set or a Literal; tables by stage are held to the one above."""
    found = []
    for file in sorted(FLOWS.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                named = [e.value for e in node.elts if isinstance(e, ast.Constant)]
                if len(set(named) & set(NAMES)) > 3:
                    found.append(f"{file.relative_to(FLOWS)}:{node.lineno}")
    # The names of a module that Prefect's entry points find.
    assert [one for one in found if not one.startswith("deployments/flows.py")] == []
